"""How to train: a value that a recipe can hold. Standard library only.

These settings change the result. What only changes speed or memory (rows per forward pass, gradient checkpointing, how
often a checkpoint is written) is an argument of `train`.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from ssn_probe.spec.node import Node, one_of, require

SCHEDULES = ("linear", "constant")


@dataclass(frozen=True, eq=False)
class Training(Node):
    """AdamW without weight decay, on the deltas alone.

    The defaults are those of the paper's first author in later work (learning rate, batch, epochs, warm-up, clip). How
    the rate changes after the warm-up is not reported there; `"linear"` takes it down to zero, as common trainers do.

    `lr`: the highest learning rate. `batch`: rows per step, over all processes and accumulated micro-batches.
    `epochs`: passes over the training rows. `steps`: the number of steps, if given, instead. `warmup`: share of
    the steps in which the rate rises linearly. `clip`: largest norm of the gradient of all deltas together.
    `held_out`: share of the clusters of the training data that is not trained on but measures the loss; 0 for none.
    `evaluate_every`: steps between these measurements (None: once per epoch, and at the end). `patience`: stop after
    this many measurements without a new lowest loss (None: never). With held-out data the result is the delta of the
    lowest loss, otherwise the last. `seed`: decides the order of the rows and which are held out.
    """

    _: KW_ONLY
    lr: float = 5e-5
    batch: int = 16
    epochs: int = 3
    steps: int | None = None
    warmup: float = 0.03
    schedule: str = "linear"
    clip: float = 1.0
    held_out: float = 0.1
    evaluate_every: int | None = None
    patience: int | None = 3
    seed: int = 0

    def check(self) -> None:
        require(0 < self.lr < 1, f"the learning rate is {self.lr}", "Give lr above 0 and below 1; the default is 5e-5.")
        require(self.clip > 0, f"clip is {self.clip}", "Give the largest gradient norm, above 0; the default is 1.")
        for name in ("warmup", "held_out"):
            share = getattr(self, name)
            require(0 <= share < 1, f"{name} is {share}", f"Give {name} as a share, from 0 to below 1.")
        for name in ("batch", "epochs", "steps", "evaluate_every", "patience"):
            count = getattr(self, name)
            require(count is None or count >= 1, f"{name} is {count}", f"Give {name} as 1 or more.")
        one_of("schedule", self.schedule, SCHEDULES)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Which rows each step sees and how fast it learns: a function of the settings and the number of rows.

    Nothing is drawn along the way, so a training that resumes at step 70 needs only the number 70.
    """

    settings: Training
    rows: int

    @property
    def per_epoch(self) -> int:
        """Steps per pass over the rows; the last of them may be a smaller batch."""
        return math.ceil(self.rows / self.settings.batch)

    @property
    def total(self) -> int:
        """The number of steps."""
        return self.settings.steps or self.settings.epochs * self.per_epoch

    def batch(self, step: int) -> list[int]:
        """The numbers of the rows that step `step`, counted from 0, trains on."""
        epoch, place = divmod(step, self.per_epoch)
        order = list(range(self.rows))
        random.Random(f"order {self.settings.seed} {epoch}").shuffle(order)
        return order[place * self.settings.batch : (place + 1) * self.settings.batch]

    def rate(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0."""
        warm = math.ceil(self.settings.warmup * self.total)
        if step < warm:
            return self.settings.lr * (step + 1) / warm
        if self.settings.schedule == "constant":
            return self.settings.lr
        return self.settings.lr * (self.total - step) / (self.total - warm)

    def measures(self, done: int) -> bool:
        """Is the held-out loss measured after `done` steps?"""
        return done == self.total or done % (self.settings.evaluate_every or self.per_epoch) == 0


def held_out(clusters: Sequence[tuple[str, str]], settings: Training) -> set[str]:
    """The clusters that are not trained on: a share of those of each context, at least one each.

    `clusters` has a (context, cluster) per row; a cluster in two contexts counts in the first.
    """
    if not settings.held_out:
        return set()
    context_of: dict[str, str] = {}
    for context, cluster in clusters:
        context_of.setdefault(cluster, context)
    chosen: set[str] = set()
    for context in sorted(set(context_of.values())):
        members = sorted(cluster for cluster, its in context_of.items() if its == context)
        random.Random(f"held out {settings.seed} {context}").shuffle(members)
        chosen.update(members[: math.ceil(settings.held_out * len(members))])
    return chosen
