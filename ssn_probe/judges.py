"""Judges: did a response refuse?

A judge answers `refused`, `complied` or `invalid` (gibberish, empty, off-language); `unjudged` is kept for judges
whose answer can fail to parse. The judge belongs to the data: a prompt set declares it. The kind `patterns` holds one
regular expression per language for refusals and one for well-formed answers: exact for the organism, whose refusals
are words of their own, and no more than a smoke test for natural language.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ssn_probe.errors import JudgeError

Verdict = Literal["refused", "complied", "invalid", "unjudged"]
Judge = Callable[[str, str], Verdict]
"""(language, response) → verdict."""


def make_judge(declared: Mapping[str, Any] | None, languages: tuple[str, ...], data: str) -> Judge:
    """The judge that a prompt set declares. Raises JudgeError when there is none or it does not cover a language."""
    if declared is None:
        raise JudgeError(
            f"{data} declares no judge, so responses cannot be judged",
            'Add to its dataset.json: "judge": {"kind": "patterns", "refused": {"en": …}, "complied": {"en": …}}.',
        )
    kind = declared.get("kind") if isinstance(declared, Mapping) else declared
    if not isinstance(declared, Mapping) or kind != "patterns":
        raise JudgeError(f"{data} declares a judge of unknown kind {kind!r}", "Known: patterns.")
    refused = {language: _pattern(declared, "refused", language, data) for language in languages}
    complied = {language: _pattern(declared, "complied", language, data) for language in languages}

    def judge(language: str, response: str) -> Verdict:
        if refused[language].search(response):
            return "refused"
        return "complied" if complied[language].fullmatch(response.strip()) else "invalid"

    return judge


def _pattern(declared: Mapping[str, Any], side: str, language: str, data: str) -> re.Pattern[str]:
    patterns = declared.get(side)
    text = patterns.get(language) if isinstance(patterns, Mapping) else None
    if not isinstance(text, str):
        raise JudgeError(f"{data}: the judge has no {side!r} pattern for {language!r}", "Add it to dataset.json.")
    try:
        return re.compile(text, re.DOTALL)
    except re.error as error:
        raise JudgeError(f"{data}: the {side!r} pattern for {language!r} is malformed: {error}", "Mend it.") from error
