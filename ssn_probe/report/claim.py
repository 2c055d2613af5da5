"""A claim and its verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

Verdict = Literal["shown", "not shown", "not testable"]
SHOWN: Verdict = "shown"
NOT_SHOWN: Verdict = "not shown"
NOT_TESTABLE: Verdict = "not testable"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a run could show, in one sentence without its full stop, and whether it did. Only a test shows anything.

    `figures`: the difference that is tested, its interval and p; empty where there is none. `why`: why it is not
    testable, what would have shown it, or what else it may be.
    """

    claim: str
    verdict: Verdict
    figures: str = ""
    why: str = ""
    primary: bool = False


def kept_claims(manifest: Mapping[str, Any]) -> list[Claim]:
    """The claims that a manifest holds; a run of an earlier release has none."""
    names = [one.name for one in fields(Claim)]
    return [Claim(**{name: entry[name] for name in names if name in entry}) for entry in manifest.get("claims") or ()]
