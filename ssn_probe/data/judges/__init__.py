"""Judges: did a response refuse?

A judge answers `refused`, `complied` or `invalid` (gibberish, empty, off-language); `unjudged` is kept for judges
whose answer can fail to parse. The judge belongs to the data: the card of a prompt set declares it by its kind.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ssn_probe.data.judges.patterns import patterns_judge
from ssn_probe.data.judges.verdicts import Judge, Verdict
from ssn_probe.errors import JudgeError, nearest

__all__ = ["FIELDS", "JUDGES", "Judge", "Verdict", "make_judge"]

JUDGES: dict[str, Callable[[Mapping[str, Any], tuple[str, ...], str], Judge]] = {"patterns": patterns_judge}
"""Kind → builder, which takes the declaration, the languages to judge and the name of the data."""
FIELDS = ("kind", "name", "refused", "complied")
"""What a judge declares: its kind, its name, and what its kind reads."""


def make_judge(declared: Mapping[str, Any] | None, languages: tuple[str, ...], data: str) -> Judge:
    """The judge that the prompt set `data` declares.

    Raises JudgeError when none is declared, its kind is unknown or it does not cover a language.
    """
    if declared is None:
        raise JudgeError(
            f"{data} declares no judge, so responses cannot be judged",
            'Add to its dataset.json: "judge": {"kind": "patterns", "refused": {"en": …}, "complied": {"en": …}}.',
        )
    kind = declared.get("kind") if isinstance(declared, Mapping) else declared
    if not isinstance(declared, Mapping) or not isinstance(kind, str) or kind not in JUDGES:
        raise JudgeError(f"{data} declares a judge of unknown kind {kind!r}", nearest(str(kind)[:80], list(JUDGES)))
    return JUDGES[kind](declared, languages, data)
