"""Prompt sets as values."""

from dataclasses import KW_ONLY, dataclass

from ssn_probe.spec.node import Node, later, require


@dataclass(frozen=True, eq=False)
class Prompts(Node):
    """A prompt set with the fixed splits *identify | evaluate | train*.

    `source` is the name of a set, a path, or a name on the hub (docs/data.md); `harmless` is the source of another
    set, whose harmless prompts replace those of this one; `languages` are those to use (default: all); `limit` keeps
    the first ids of every split and context, of each language where languages share none; `max_new_tokens` is the
    length of responses, instead of the card's.
    """

    source: str
    _: KW_ONLY
    harmless: str | None = None
    languages: tuple[str, ...] | None = None
    limit: int | None = None
    max_new_tokens: int | None = later(None)

    def check(self) -> None:
        most = self.max_new_tokens
        require(most is None or 1 <= most <= 1_000_000, f"max_new_tokens is {most}", "Give 1 to 1,000,000.")
        require(self.limit is None or self.limit >= 1, f"limit is {self.limit}", "Give a limit of 1 or more.")
