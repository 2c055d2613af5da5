"""The organisms of the yardstick: planted neurons with measured Shapley values, trained here from their seeds.

    python -m benchmarks.identification make [--folder FOLDER] [--only NAME]

The *development* set are the three that ssn-probe ships: whoever tunes a method tunes it on these. The *test* set are
ten that nobody ships: five seeds of each architecture, three sizes or more, with and without planted attention. They
are listed in the order in which they are made, so that the first few are balanced over architectures.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssn_probe.model.loading import locate
from ssn_probe.neurons import Site
from ssn_probe.organism.make import train
from ssn_probe.organism.variants import Variant

PAIRS = 12
"""Permutation pairs of a Shapley value, half of what shipped organisms have: its standard error is in the truth."""
DEVELOPMENT = ("organism:planted-ffn", "organism:planted-attention", "organism:planted-qwen3")
"""The set to tune methods on: never compared in the table."""
FOLDER = Path(".cache/identification/organisms")


@dataclass(frozen=True)
class Planting:
    """What decides a test organism: its seed, its architecture, and how many neurons of a site every layer plants."""

    seed: int
    architecture: Literal["llama", "qwen3"]
    ffn: int
    o: int = 0

    @property
    def name(self) -> str:
        """For example `llama-101-ffn16-o4`; its folder's name."""
        return f"{self.architecture}-{self.seed}-ffn{self.ffn}" + (f"-o{self.o}" if self.o else "")

    @property
    def variant(self) -> Variant:
        """The shipped variants' curriculum and dropout, with this planting."""
        planted: dict[Site, int] = {"ffn": self.ffn} | ({"o": self.o} if self.o else {})  # type: ignore[assignment]
        return Variant(architecture=self.architecture, planted=planted, dropout=0.3)


TEST = (
    Planting(101, "llama", 16),
    Planting(201, "qwen3", 8, 4),
    Planting(102, "llama", 8, 4),
    Planting(202, "qwen3", 16),
    Planting(103, "llama", 8),
    Planting(203, "qwen3", 8),
    Planting(104, "llama", 4, 4),
    Planting(204, "qwen3", 4, 4),
    Planting(105, "llama", 16, 8),
    Planting(205, "qwen3", 16, 8),
)


def make(
    planting: Planting, folder: Path = FOLDER, say: Callable[[str, int, int, float | None], None] | None = None
) -> Path:
    """The folder of a test organism, trained if it is not there: two to five minutes of one core.

    The same seed gives the same weights on the same machine. What was stopped half-way is made again.
    """
    out = folder / planting.name
    if not (out / "truth.json").is_file():
        train(planting.seed, out, variant=planting.variant, pairs=PAIRS, progress=say)
    return out


def made(folder: Path = FOLDER) -> dict[str, str]:
    """Name → model, for `load_subject`, of every test organism that is there, in their order."""
    return {one.name: str(folder / one.name) for one in TEST if (folder / one.name / "truth.json").is_file()}


def development() -> dict[str, str]:
    """Name → model of the shipped organisms."""
    return {name.partition(":")[2]: locate(name) for name in DEVELOPMENT}
