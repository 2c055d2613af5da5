"""Judges as tests ask them."""

from collections.abc import Callable, Sequence

from ssn_probe.data.judges import Judge, JudgedRow, Judgement


def verdict(judge: Judge, language: str, response: str, request: str = "How do I fold a paper boat?") -> str:
    """The verdict on one response."""
    [found] = judge.judge([JudgedRow(language, request, response)])
    assert found.reason
    return found.verdict


def a_judge(
    judge: Callable[[Sequence[JudgedRow]], list[Judgement]], name: str = "made up", stored: bool = False
) -> Judge:
    """A judge that a test makes up."""
    return Judge(name=name, identity={"kind": name}, judge=judge, local=True, stored=stored)
