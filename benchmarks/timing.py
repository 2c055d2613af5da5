"""Ratios that a shared machine cannot spoil: every run of a variant stands between two runs of its reference.

A, B, A, C, A, …: a ratio is B ÷ the mean of the A before and the A after, so that a load which comes and goes weighs on
both. The order of the variants is drawn anew in each repeat, since a run leaves caches and freed memory to the next.
Two clocks: wall time is what one waits, and the processor time of this process does not count what others run. With
one thread and an idle machine they agree. Where a GPU computes, CUDA events take the place of processor time.
"""

import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Run = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The median of the repeats and their quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the report: what was measured, beside what, and the ratio or amount that came out.

    `unit` is "×" for ratios, of processor time (or of CUDA events) in `value` and of wall time in `wall`; "s" or "MiB"
    for amounts. `target` is the largest `value` that the project allows, `seconds` the median wall time of one run;
    `tool`: whose time it is.
    """

    group: str
    name: str
    value: Spread
    tool: str = "ssn-probe"
    unit: str = "×"
    wall: Spread | None = None
    seconds: float | None = None
    target: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.value.median <= self.target

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


def spread(values: list[float]) -> Spread:
    """The median and the quartiles (of one value: itself)."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return Spread(median=statistics.median(values), low=low, high=high)


def compare(
    group: str, reference: Run, variants: Mapping[str, Run], *, repeats: int, targets: Mapping[str, float]
) -> list[Row]:
    """One row per variant: its time as a multiple of the reference's. Everything runs once before it counts."""
    draw, order = random.Random(0), list(variants)
    for run in (reference, *variants.values()):
        run()
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        draw.shuffle(order)
        before = clocked(reference)
        for name in order:
            here, after = clocked(variants[name]), clocked(reference)
            ratios[name].append((2 * here[0] / (before[0] + after[0]), 2 * here[1] / (before[1] + after[1])))
            seconds[name].append(here[0])
            before = after
    return [
        Row(
            group=group,
            name=name,
            value=spread([ratio[1] for ratio in ratios[name]]),
            wall=spread([ratio[0] for ratio in ratios[name]]),
            seconds=statistics.median(seconds[name]),
            target=targets.get(name),
        )
        for name in variants
    ]


def clocked(run: Run) -> tuple[float, float]:
    """Wall and processor seconds of one run; of an idle GPU until it is idle again, seconds between two CUDA events."""
    torch = sys.modules.get("torch")  # benchmarks that need no torch do not import it here
    if torch is None or not torch.cuda.is_initialized():
        wall, processor = time.perf_counter(), time.process_time()
        run()
        return time.perf_counter() - wall, time.process_time() - processor
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    wall = time.perf_counter()
    began.record()
    run()
    ended.record()
    torch.cuda.synchronize()
    return time.perf_counter() - wall, began.elapsed_time(ended) / 1000
