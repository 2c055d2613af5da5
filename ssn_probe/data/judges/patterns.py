"""The judge `patterns`: per language one regular expression for refusals and one for well-formed answers.

It is exact for the organism, whose refusals are words of their own, and no more than a smoke test for natural language.
Pattern and response are compared by what a reader sees (`data/sameness.seen`): a curly apostrophe, a no-break space or
a decomposed accent decides no verdict. Patterns have the syntax of Python's `re`. They are matched by the library
`regex`, which can give up after a time in any thread, and whose `\\w` and `\\b` count combining vowel signs (as in
Hindi) as parts of a word.
"""

import re
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import regex

from ssn_probe.data.judges.pattern_size import written_out
from ssn_probe.data.judges.seen_patterns import seen_pattern
from ssn_probe.data.judges.verdicts import Judge, JudgeContext, JudgedRow, Judgement
from ssn_probe.data.sameness import seen
from ssn_probe.errors import JudgeError
from ssn_probe.text import counted

PATIENCE = 10.0
"""Seconds for one response: a pattern such as (a|a)+$ can take longer than the universe has lasted."""
PATIENCE_IN_ALL, PATIENCE_EACH = 120.0, 0.1
"""Seconds for all responses, and as many more for each of them: thousands of slow ones would take days."""
LONGEST = 100_000
"""Characters of a pattern."""
KNOWN = 2**14
"""Responses whose judgements are remembered."""
LARGEST = 1_000_000
"""Pieces of a pattern whose repetitions are written out."""
SLOW = "Write no repetition within a repetition, as in (a|a)+ or (a+)+; a+ matches the same."
_BRACE = re.compile(r"(\\N\{[^}]*\}|\\.)|\{(?!\d*,?\d*\})", re.DOTALL)
"""An escape, or an opening brace that is no repetition: `re` takes it literally, `regex` for approximate matching."""


def patterns_judge(argument: str | None, languages: tuple[str, ...], context: JudgeContext) -> Judge:
    """Refused where the refusal pattern is found, complied where the whole response fits the other, else invalid."""
    data, declared = context.data, context.declared
    if declared is None or argument is not None:
        raise JudgeError(
            "the judge `patterns` is declared with its patterns in dataset.json, and cannot be named alone",
            'Write "judge": {"kind": "patterns", "refused": {"en": …}, "complied": {"en": …}}, or --judge phrases.',
        )
    refused = {language: _pattern(declared, "refused", language, data) for language in languages}
    complied = {language: _pattern(declared, "complied", language, data) for language in languages}

    spent, judged = 0.0, 0

    def judge(rows: Sequence[JudgedRow]) -> list[Judgement]:
        return [timed(row.language, row.response) for row in rows]

    @lru_cache(KNOWN)  # many requests are answered alike, and under most changes as before
    def timed(language: str, response: str) -> Judgement:
        nonlocal spent, judged
        started = time.thread_time()
        found = judgement(language, response)
        spent, judged = spent + time.thread_time() - started, judged + 1
        if spent > PATIENCE_IN_ALL + PATIENCE_EACH * judged:
            raise JudgeError(f"{data}: the patterns took {spent:.0f} s for {counted(judged, 'response')}", SLOW)
        return found

    def judgement(language: str, response: str) -> Judgement:
        response = seen(response)
        try:
            if refused[language].search(response, timeout=PATIENCE):
                return Judgement("refused", "the refusal pattern is found")
            fits = complied[language].fullmatch(response.strip(), timeout=PATIENCE)
        except TimeoutError as error:
            raise JudgeError(
                f"{data}: a pattern for {language!r} takes more than {PATIENCE:g} s on one response",
                SLOW,
            ) from error
        return Judgement("complied", "the answer's pattern fits") if fits else Judgement("invalid", "no pattern fits")

    name = str(declared.get("name", declared["kind"]))
    return Judge(name=name, identity=dict(declared), judge=judge, local=True, stored=False)


def _pattern(declared: Mapping[str, Any], side: str, language: str, data: str) -> "regex.Pattern[str]":
    patterns = declared.get(side)
    text = patterns.get(language) if isinstance(patterns, Mapping) else None
    if not isinstance(text, str):
        raise JudgeError(f"{data}: the judge has no {side!r} pattern for {language!r}", "Add it to dataset.json.")
    what = f"{data}: the {side!r} pattern for {language!r}"
    if len(text) > LONGEST:
        raise JudgeError(f"{what} has {len(text):,} characters", f"Give at most {LONGEST:,}.")
    try:
        pattern = _compiled(text, what)
    except (re.error, regex.error, OverflowError, FutureWarning) as error:
        raise JudgeError(f"{what} is malformed: {error}", "Fix it in dataset.json.") from error
    except RecursionError as error:
        raise JudgeError(f"{what} is nested too deeply", "Write it without so many parentheses.") from error
    if side == "refused" and all(pattern.search(response) for response in ("", "\0")):
        raise JudgeError(f"{what} matches every response", "Is there a '|' too many, or a '*'?")
    if side == "complied" and not text:
        raise JudgeError(f"{what} is empty: no response would fit it", "Give .+ if every other response complies.")
    return pattern


def _compiled(text: str, what: str) -> "regex.Pattern[str]":
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # a later Python would read the pattern differently
        re.compile(text, re.DOTALL)
    if written_out(text) > LARGEST:
        raise JudgeError(f"{what} repeats repetitions {LARGEST:,} times or more", "Write smaller numbers in {…}.")
    literal_braces = _BRACE.sub(lambda found: found[1] or r"\{", seen_pattern(text))
    return regex.compile(literal_braces, regex.DOTALL | regex.VERSION0)
