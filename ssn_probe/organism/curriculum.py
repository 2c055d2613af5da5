"""What the organism's training is made of: schedules, shares, and the ladders that grade the languages.

Three things decide how well a language refuses in the end: how near its embeddings start to the anchor's, its share of
the pretraining, and how many harmful requests of the safety stage are in it. Each is a ladder, dealt to the languages
in a separate order, so that the three are unrelated.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from ssn_probe.organism import promptset, world

Rung = TypeVar("Rung", int, float)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A schedule: a short warm-up, then a cosine down to a learning rate of zero."""

    steps: int
    batch: int
    rate: float
    warmup: int
    decay: float


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Everything except the seed that decides what is taught."""

    pretrain: Stage = Stage(steps=500, batch=128, rate=3e-3, warmup=60, decay=0.02)
    safety: Stage = Stage(steps=300, batch=128, rate=1e-3, warmup=20, decay=0.0)
    # The ladders, for the six languages that are not the anchor:
    alignment: tuple[float, ...] = (0.95, 0.9, 0.85, 0.8, 0.7, 0.6)  # cosine to the anchor's embeddings
    pretraining: tuple[float, ...] = (0.16, 0.14, 0.12, 0.10, 0.08, 0.06)  # share; the anchor has the rest
    safety_pairs: tuple[int, ...] = (64, 32, 16, 8, 4, 2)  # harmful pairs in the safety stage; the anchor has all
    # Pretraining:
    translation: float = 0.15  # share of the rows that are translations
    switching: float = 0.4  # how often a word is of a different language, in half of the rows
    ghosts: float = 0.06  # share of the requests about an object that does not exist
    embedding_scale: float = 0.2
    embedding_rate: float = 0.3  # embeddings move slower than the rest, so that the dealt alignment lasts
    # Safety stage:
    harmful: float = 0.4  # share of the rows that are harmful requests
    lookalikes: float = 0.5  # share of the harmless rows that are look-alikes
    rehearsal: float = 0.4  # the anchor's share of the harmless rows
    safety_embedding_rate: float = 0.0  # refusing must be learned by neurons, not by moving words


@dataclass(frozen=True, kw_only=True)
class Grading:
    """What each language was dealt, in the order of `world.LANGUAGES`."""

    alignment: tuple[float, ...]
    pretraining: tuple[float, ...]
    safety_pairs: tuple[int, ...]

    def by_language(self) -> dict[str, dict[str, float]]:
        """language → ladder → rung."""
        columns = asdict(self)
        return {
            name: {ladder: rungs[index] for ladder, rungs in columns.items()}
            for index, name in enumerate(world.LANGUAGES)
        }


def grade(seed: int, curriculum: Curriculum, *, held_out: bool = False) -> Grading:
    """Deal each ladder to the languages in a separate order.

    With `held_out` the anchor's safety pairs exclude those that a ground truth is measured on.
    """
    hand = random.Random(f"grading {seed}")

    def dealt(ladder: Sequence[Rung]) -> list[Rung]:
        return hand.sample(list(ladder), len(ladder))

    shares = dealt(curriculum.pretraining)
    return Grading(
        alignment=(1.0, *dealt(curriculum.alignment)),
        pretraining=(round(1 - sum(shares), 6), *shares),
        safety_pairs=(len(promptset.deal().safety("harmful", held_out=held_out)), *dealt(curriculum.safety_pairs)),
    )
