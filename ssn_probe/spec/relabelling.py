"""Other labels for the prompts that choose a set, as values: what the same procedure finds without the difference."""

from dataclasses import dataclass

from ssn_probe.spec.node import Node, require


@dataclass(frozen=True, eq=False)
class Labels(Node, abstract=True):
    """Which prompts count as harmful and which as harmless while a set is chosen; the measured effects are the same."""

    seed: int = 0

    def _check(self, name: str, number: int) -> None:
        require(number >= 0, f"{name} is {number}", "Give 0 or more.")
        require(self.seed >= 0, f"seed is {self.seed}", "Give 0 or more.")


@dataclass(frozen=True, eq=False)
class Exchanged(Labels):
    """The labels of prompts exchanged, as `ssn_probe.stats.nulls.label_exchange` allows, one draw for all languages.

    Draw 0 is the observed labels, of the prompts that take part in the exchange; 1, 2, … are random.
    """

    draw: int = 0

    def check(self) -> None:
        self._check("draw", self.draw)


@dataclass(frozen=True, eq=False)
class Placebo(Labels):
    """Harmless prompts against harmless prompts: their `split`-th random division, balanced in topic and length."""

    split: int = 0

    def check(self) -> None:
        self._check("split", self.split)
