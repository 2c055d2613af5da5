"""What every judge gives and how it is called."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ssn_probe.errors import JudgeError

Verdict = Literal["refused", "complied", "invalid", "unjudged"]
VERDICTS: tuple[Verdict, ...] = ("refused", "complied", "invalid", "unjudged")


@dataclass(frozen=True)
class JudgedRow:
    """A response with the request that it answers, in the language of the request."""

    language: str
    request: str
    response: str


@dataclass(frozen=True)
class Judgement:
    """A verdict, and the reason for it in a few words."""

    verdict: Verdict
    reason: str


class HalfJudged(JudgeError):
    """A judge that failed on the way: `finished` are the judgements that it had made, by the number of their row."""

    def __init__(self, message: str, hint: str, finished: Mapping[int, Judgement]):
        super().__init__(message, hint)
        self.finished = finished


def no_cost() -> str:
    """What a judge that costs nothing has cost."""
    return ""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A judge of responses.

    `name` stands in tables. `identity` is plain JSON of all that decides the verdicts: equal identities give equal
    verdicts for equal rows. `judge` takes rows in batches and answers in their order; a judge loads what it needs on
    its first call. `local`: it asks nobody over a network. `stored`: its verdicts cost something, so they are kept by
    content, and `verify` takes them from there and never calls it. `spent` tells what it has cost so far, if anything.
    """

    name: str
    identity: Mapping[str, Any]
    judge: Callable[[Sequence[JudgedRow]], list[Judgement]]
    local: bool
    stored: bool = True
    spent: Callable[[], str] = no_cost


@dataclass(frozen=True, kw_only=True)
class JudgeContext:
    """What a judge is built for: the data's name, what their card declares of it, and the device to run on.

    `asked`: it will be asked, so that what it needs for that must be there; else only its identity is needed.
    """

    data: str
    declared: Mapping[str, Any] | None = None
    device: str = "auto"
    asked: bool = True
