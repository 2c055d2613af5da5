"""Judges: did a response refuse?

A judge answers `refused`, `complied` or `invalid` (gibberish, empty, off-language), with the reason; `unjudged` is for
answers of a judge that cannot be parsed, and for runs without a judge. The card of a prompt set declares its judge by
its kind; a recipe may name another one, as in `phrases` or `openai:MODEL`.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from ssn_probe.data.judges.endpoint import endpoint_judge
from ssn_probe.data.judges.own_function import own_judge
from ssn_probe.data.judges.patterns import patterns_judge
from ssn_probe.data.judges.phrases import phrases_judge
from ssn_probe.data.judges.verdict_file import file_judge
from ssn_probe.data.judges.verdicts import VERDICTS, Judge, JudgeContext, JudgedRow, Judgement, Verdict
from ssn_probe.errors import JudgeError, nearest

__all__ = [
    "FIELDS",
    "JUDGES",
    "UNJUDGED",
    "VERDICTS",
    "Declared",
    "Judge",
    "JudgeContext",
    "JudgedRow",
    "Judgement",
    "Verdict",
    "is_unjudged",
    "make_judge",
    "require_judge",
]

Declared = Mapping[str, Any] | str | None
"""A judge as a card declares it, as a text names it, or none."""
Builder = Callable[[str | None, tuple[str, ...], JudgeContext], Judge]
UNJUDGED = "none"


def unjudged(argument: str | None, languages: tuple[str, ...], context: JudgeContext) -> Judge:
    """The judge of those who keep responses unjudged."""

    def judge(rows: Sequence[JudgedRow]) -> list[Judgement]:
        return [Judgement("unjudged", "no judge")] * len(rows)

    return Judge(name=UNJUDGED, identity={"kind": UNJUDGED}, judge=judge, local=True, stored=False)


def _guard(kind: str) -> Builder:
    """The builder of a guard model, which is loaded on a floor above: it is found by name when it is asked for."""
    return lambda *given: import_module("ssn_probe.guards").guard_judge(kind, *given)


JUDGES: dict[str, Builder] = {
    "patterns": patterns_judge,
    "phrases": phrases_judge,
    **{kind: _guard(kind) for kind in ("qwen3guard", "polyguard", "wildguard")},
    "openai": endpoint_judge,
    "python": own_judge,
    "file": file_judge,
    UNJUDGED: unjudged,
}
"""Name → builder, which takes the argument after the colon, the languages to judge, and what the judge is for.

A builder checks what can be checked quickly, since it is called before the model is loaded; it loads nothing large.
"""
FIELDS = ("kind", "name", "argument", "refused", "complied")
"""What a judge declares: its kind, its name, and what its kind reads."""


def make_judge(
    declared: Declared, languages: tuple[str, ...], data: str, device: str = "auto", *, asked: bool = True
) -> Judge:
    """The judge that the prompt set `data` declares, or that a text names; without one, responses stay unjudged.

    `asked`: it will be asked; without, its name and identity are enough, and no key of an endpoint is needed.

    Raises JudgeError when its kind is unknown, its argument is wrong, or it does not cover a language.
    """
    if isinstance(declared, str):
        kind, colon, text = declared.partition(":")
        argument, who = (text or None) if colon else None, f"--judge {declared[:80]}"
    elif declared is None or isinstance(declared, Mapping):
        kind, argument = (UNJUDGED, None) if declared is None else (declared.get("kind"), declared.get("argument"))
        who = f"the card of {data}"
    else:
        raise JudgeError(f"{data} declares a judge that is no JSON object", 'Write "judge": {"kind": …}.')
    if not isinstance(kind, str) or kind not in JUDGES:
        raise JudgeError(f"{who} names a judge of unknown kind {kind!r}", nearest(str(kind)[:80], list(JUDGES)))
    if argument is not None and not isinstance(argument, str):
        raise JudgeError(f"{who}: the argument of its judge is no text", 'Write "argument": "…", or leave it out.')
    card = declared if isinstance(declared, Mapping) else None
    return JUDGES[kind](argument, languages, JudgeContext(data=data, declared=card, device=device, asked=asked))


def is_unjudged(declared: Declared) -> bool:
    """Do responses stay without a verdict?"""
    kind = declared.get("kind") if isinstance(declared, Mapping) else declared
    return kind is None or (isinstance(kind, str) and kind.partition(":")[0] == UNJUDGED)


def require_judge(declared: Declared, data: str, purpose: str) -> None:
    """Raises JudgeError where verdicts are needed and there is no judge."""
    if is_unjudged(declared):
        raise JudgeError(
            f"{data} has no judge, and {purpose}",
            "Name one: --judge phrases (a smoke test without a model), or --judge qwen3guard or --judge openai:MODEL, "
            'which judge better; or declare it in dataset.json: "judge": {"kind": "phrases"}.',
        )
