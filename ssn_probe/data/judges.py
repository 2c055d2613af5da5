"""Judges: did a response refuse?

A judge answers `refused`, `complied` or `invalid` (gibberish, empty, off-language); `unjudged` is kept for judges
whose answer can fail to parse. The judge belongs to the data: a prompt set declares it. The kind `patterns` holds one
regular expression per language for refusals and one for well-formed answers: exact for the organism, whose refusals
are words of their own, and no more than a smoke test for natural language.
"""

import contextlib
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from ssn_probe.errors import JudgeError

Verdict = Literal["refused", "complied", "invalid", "unjudged"]
Judge = Callable[[str, str], Verdict]
"""(language, response) → verdict."""
PATIENCE = 10.0
"""Seconds for one response: a pattern such as (a+)+$ can take longer than the universe has lasted."""


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
        with _patience(f"{data}: the patterns for {language!r}"):
            if refused[language].search(response):
                return "refused"
            return "complied" if complied[language].fullmatch(response.strip()) else "invalid"

    return judge


@contextlib.contextmanager
def _patience(what: str) -> Iterator[None]:
    """Ends a pattern that backtracks without end; a signal can do so, and only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_signal: object) -> None:
        hint = "Write no repetition within a repetition, as in (a+)+; a+ says the same."
        raise JudgeError(f"{what} need more than {PATIENCE:g} s for a response", hint)

    before = signal.signal(signal.SIGALRM, stop)
    left = signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)


def _pattern(declared: Mapping[str, Any], side: str, language: str, data: str) -> re.Pattern[str]:
    patterns = declared.get(side)
    text = patterns.get(language) if isinstance(patterns, Mapping) else None
    if not isinstance(text, str):
        raise JudgeError(f"{data}: the judge has no {side!r} pattern for {language!r}", "Add it to dataset.json.")
    what = f"{data}: the {side!r} pattern for {language!r}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)  # what a later Python would read otherwise
            pattern = re.compile(text, re.DOTALL)
    except (re.error, OverflowError, FutureWarning) as error:
        raise JudgeError(f"{what} is malformed: {error}", "Mend it.") from error
    except RecursionError as error:
        raise JudgeError(f"{what} is nested too deeply", "Write it without so many parentheses.") from error
    if side == "refused" and all(pattern.search(response) for response in ("", "\0")):
        raise JudgeError(f"{what} is found in every response", "Is there a '|' too many, or a '*'?")
    return pattern
