"""Prompt sets as values. Standard library only."""

from dataclasses import KW_ONLY, dataclass

from ssn_probe.spec.node import Node, require


@dataclass(frozen=True, eq=False)
class Prompts(Node):
    """A prompt set with fixed splits *identify | evaluate | train* by parallel id.

    `source` is `"organism"` or a folder or file (see `ssn_probe.data.prompt_set`); `harmless` names another set that
    provides the harmless context; `languages` restricts; `limit` keeps the first so many ids per split and context.
    """

    source: str
    _: KW_ONLY
    harmless: str | None = None
    languages: tuple[str, ...] | None = None
    limit: int | None = None

    def check(self) -> None:
        require(self.limit is None or self.limit >= 1, f"limit is {self.limit}", "Give a limit of 1 or more.")
