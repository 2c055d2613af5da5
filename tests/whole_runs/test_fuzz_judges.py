"""Whatever a card declares as a judge gives verdicts, or one clear error."""

import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from fuzzing import JUDGE, clear, texts, values
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import verdict

from ssn_probe.data.judges import make_judge
from ssn_probe.errors import JudgeError

pieces = st.sampled_from(
    ["a", "(", ")", "[", "]", "*", "+", "?", "{9}", "|", "\\", "^", "$", ".", "(?<=", "(?P<x>", "\\1", "-"]
)
patterns = st.lists(pieces, max_size=8).map("".join) | texts


@settings(deadline=None, max_examples=150)
@given(refused=patterns | values, complied=patterns | values, response=texts)
def test_a_judge_of_any_patterns(refused: Any, complied: Any, response: str) -> None:
    declared = {"kind": "patterns", "refused": {"en": refused}, "complied": {"en": complied}}
    judge = clear(lambda: make_judge(declared, ("en",), "mine"))
    if judge is not None:
        found = clear(lambda: verdict(judge, "en", response[:100]))
        assert found in ("refused", "complied", "invalid", None)


PATTERNS = {
    "nested": ("(" * 5000 + ")" * 5000, "nested too deeply"),
    "repeated": ("a{99999999999}", "malformed: the repetition number"),
    "another Python": ("[[a]", "malformed: Possible nested set"),
    "a bar too many": ("sorry|", "matches every response"),
    "a star too many": ("(sorry)*", "matches every response"),
    "nothing": ("", "matches every response"),
}


@pytest.mark.parametrize(("pattern", "message"), PATTERNS.values(), ids=PATTERNS)
def test_a_pattern_that_cannot_judge(pattern: str, message: str) -> None:
    declared = JUDGE | {"refused": {"en": pattern}}
    with pytest.raises(JudgeError, match=re.escape(message)) as caught:
        make_judge(declared, ("en",), "mine")
    assert caught.value.hint


def test_no_answer_may_count_as_a_refusal() -> None:
    judge = make_judge(JUDGE | {"refused": {"en": "^$|sorry"}}, ("en",), "mine")
    assert [verdict(judge, "en", response) for response in ("", "sorry", "yes")] == ["refused", "refused", "complied"]


@pytest.mark.parametrize("threads", [False, True], ids=["main thread", "another thread"])
def test_a_pattern_that_backtracks_without_end_is_stopped(threads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssn_probe.data.judges.patterns.PATIENCE", 0.2)
    judge = make_judge(JUDGE | {"refused": {"en": "(a|a)+$"}}, ("en",), "mine")
    assert verdict(judge, "en", "aaa") == "refused"
    slow = partial(verdict, judge, "en", "a" * 60 + "b")
    with (
        ThreadPoolExecutor() as pool,
        pytest.raises(JudgeError, match=r"a pattern for 'en' takes more than 0\.2 s") as caught,
    ):
        pool.submit(slow).result() if threads else slow()
    assert "(a|a)+" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("pattern", "response", "wanted"),
    [
        ("a{i}", "a", "complied"),
        ("a{i}", "a{i}", "refused"),
        (r"\N{BULLET}", "•", "refused"),
        ("a{,2}b", "ab", "refused"),
    ],
)
def test_braces_mean_what_they_mean_in_python(pattern: str, response: str, wanted: str) -> None:
    """The library `regex` would match approximately."""
    assert verdict(make_judge(JUDGE | {"refused": {"en": pattern}}, ("en",), "mine"), "en", response) == wanted


LARGE = {
    "repeated repetitions": ("(a{10000}){10000}", "repeats repetitions"),
    "repeated repetitions, three deep": ("(?:(?:(?:a{200}){200}){200}){,200}", "repeats repetitions"),
    "long": ("a" * 200_000, "has 200,000 characters"),
}


@pytest.mark.parametrize("side", ["refused", "complied"])
@pytest.mark.parametrize(("pattern", "message"), LARGE.values(), ids=LARGE)
def test_a_pattern_that_would_fill_the_memory(side: str, pattern: str, message: str) -> None:
    with pytest.raises(JudgeError, match=message):
        make_judge(JUDGE | {side: {"en": pattern}}, ("en",), "mine")


def test_a_pattern_that_no_response_fits() -> None:
    with pytest.raises(JudgeError, match="is empty"):
        make_judge(JUDGE | {"complied": {"en": ""}}, ("en",), "mine")
