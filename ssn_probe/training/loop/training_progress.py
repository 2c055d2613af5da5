"""A training's row of progress: how many rows it has learned from, and its latest figures."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ssn_probe.text import percent
from ssn_probe.training.loop.resuming import Step

Advance = Callable[[int], None]
"""Called with the number of rows that have just been learned from."""
FIGURES = ("loss", "held out", "probe")


@dataclass(kw_only=True, eq=False)
class TrainingProgress:
    """Counts a training's rows up to `total`, every epoch anew, with `batch` rows per step.

    The rows before a checkpoint are counted with the first step after it, and no row twice where a training starts
    again.
    """

    total: int
    batch: int
    counted: int = 0
    latest: dict[str, str] = field(default_factory=dict)

    def watch(self, advance: Advance, note: Callable[[str], None]) -> Callable[[Step, Any], None]:
        """What to call after every step."""

        def watch(step: Step, _change: Any) -> None:
            self.latest |= figures(step)
            note(", ".join(self.latest[name] for name in FIGURES if name in self.latest))
            self.count(step.step, advance)

        return watch

    def count(self, step: int, advance: Advance) -> None:
        """Counts all rows up to this step."""
        rows = min(step * self.batch, self.total) - self.counted
        if rows > 0:
            self.counted += rows
            advance(rows)

    def complete(self, advance: Advance) -> None:
        """Counts what is left: of a training that was not needed, say."""
        if self.counted < self.total:
            advance(self.total - self.counted)
            self.counted = self.total


def figures(step: Step) -> dict[str, str]:
    """A step's losses, and the ASR where it was probed, by name."""
    losses = {"loss": step.loss, "held out": step.held_out}
    found = {name: f"{name} {value:.3f}" for name, value in losses.items() if value is not None}
    return found if step.probe is None else found | {"probe": f"ASR probe {share(step.probe, 0)}"}


def share(value: float, digits: int = 1) -> str:
    return "–" if math.isnan(value) else percent(value, digits)  # no response could be judged
