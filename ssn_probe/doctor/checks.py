"""A finding of the doctor. A check that raises is a finding, too, so that the other checks continue."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssn_probe.errors import SSNProbeError

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """The name of a check, its status and what it found; unless it passed, what that means and what to do."""

    name: str
    status: Status
    found: str
    meaning: str = ""
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.status != "ok" and not (self.meaning and self.remedy):
            raise ValueError(f"The check {self.name!r} is {self.status} without a meaning and a remedy.")


def passed(name: str, found: str) -> Check:
    """The check passed."""
    return Check(name=name, status="ok", found=found)


def warned(name: str, found: str, meaning: str, remedy: str) -> Check:
    """It works, with a limitation that the user should know."""
    return Check(name=name, status="warning", found=found, meaning=meaning, remedy=remedy)


def failed(name: str, found: str, meaning: str, remedy: str) -> Check:
    """It does not work, or its numbers would be wrong."""
    return Check(name=name, status="failed", found=found, meaning=meaning, remedy=remedy)


def guarded(name: str, examine: Callable[[], Check | list[Check]]) -> list[Check]:
    """The findings of a check; if it raises, one failed check that names the exception. Ctrl-C passes through."""
    try:
        found = examine()
    except SSNProbeError as error:
        meaning = "`ssn-probe run` would stop at the same point, with the same message."
        return [failed(name, error.message, meaning, error.hint or "Fix what the message names, then check again.")]
    except Exception as error:
        meaning = "This check ended with an exception, so its question is not answered."
        remedy = "Fix the failed checks above first. If this one still fails, report this line."
        return [failed(name, named(error), meaning, remedy)]
    return found if isinstance(found, list) else [found]


def named(error: Exception) -> str:
    """An exception as its type, the first line of its text, and where it was raised."""
    frames, text = traceback.extract_tb(error.__traceback__), str(error).strip().partition("\n")[0]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return type(error).__name__ + (f": {text}" if text else "") + where
