"""How long a prompt takes on this machine: each kind of work that a plan asks for, tried on a batch.

A figure of now: another machine, batch size or load gives another. What runs on no model (nulls, statistics) is not in
it.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from ssn_probe.model.chat import encode
from ssn_probe.model.openings import Openings
from ssn_probe.model.precision import computing_in
from ssn_probe.model.subject import Subject
from ssn_probe.study.plan import Plan
from ssn_probe.study.steps import Cost, Row
from ssn_probe.study.workbench import LARGEST_BATCH
from ssn_probe.tracing.batching import BatchSize, no_progress
from ssn_probe.tracing.divergence import read_texts
from ssn_probe.tracing.effects import refusal_log_odds, score
from ssn_probe.tracing.generate import generate
from ssn_probe.tracing.responses import Engine
from ssn_probe.tracing.texts import Text

Trials = Mapping[str, Callable[[Subject, Cost, list[list[int]], BatchSize], None]]
ENOUGH = 1.0
"""Seconds of a trial that are enough to tell."""
OPENINGS = Openings(refusal=((0,),), compliant=((1,),))
"""The openings that a gate will find are not known yet; one token on each side stands for them."""


def calibrate(
    subject: Subject, plan: Plan, rows: Iterable[Row], batch_size: int | None, engine: Engine | None = None
) -> Mapping[str, float]:
    """Row of the plan → seconds per prompt, with nothing changed in the model."""
    trials = TRIALS if engine is None else {**TRIALS, "responses": partial(_generate, engine=engine)}
    known: dict[Cost, float] = {}
    texts = _texts(plan)
    seconds = {}
    for row in rows:
        if row.cost not in known:
            known[row.cost] = _seconds(subject, row.cost, texts, batch_size or LARGEST_BATCH, trials)
        seconds[row.label] = known[row.cost]
    return seconds


def _texts(plan: Plan) -> list[str]:
    """A batch of the plan's prompts, of every set, context and language alike."""
    texts = [text for prompts in plan.data.values() for text in prompts.frame["text"]]
    return texts[:: max(1, len(texts) // LARGEST_BATCH)][:LARGEST_BATCH]


def _seconds(subject: Subject, cost: Cost, texts: list[str], batch_size: int, trials: Trials) -> float:
    """Seconds per prompt, from a few prompts first, and a whole batch where that takes no time."""
    _timed(subject, cost, texts[:1], trials)
    tried = texts[: min(8, batch_size)]
    took = _timed(subject, cost, tried, trials)
    if took < ENOUGH and len(tried) < min(batch_size, len(texts)):
        tried = texts[:batch_size]
        took = _timed(subject, cost, tried, trials)
    return took / len(tried) * (cost.passes if _by_neuron(cost) else 1)


def _timed(subject: Subject, cost: Cost, texts: list[str], trials: Trials) -> float:
    trial = _read if _by_neuron(cost) else trials[cost.work]
    with computing_in(subject, cost.dtype) as computing:
        started = time.perf_counter()
        trial(computing, cost, encode(subject, texts), BatchSize(len(texts), auto=True))
        return time.perf_counter() - started


def _by_neuron(cost: Cost) -> bool:
    """Does every neuron take a pass of its own, so that one pass is tried and multiplied?"""
    return cost.effect is not None and cost.effect.by_neuron


def _generate(
    subject: Subject, cost: Cost, tokens: list[list[int]], size: BatchSize, *, engine: Engine | None = None
) -> None:
    generate(subject, tokens, max_new_tokens=max(1, cost.generated), engine=engine, batch_size=size)


def _read(subject: Subject, _cost: Cost, tokens: list[list[int]], size: BatchSize) -> None:
    refusal_log_odds(subject, tokens, OPENINGS, batch_size=size)


def _read_text(subject: Subject, cost: Cost, tokens: list[list[int]], size: BatchSize) -> None:
    texts = [Text(prompt=tuple(row), answer=(0,) * max(1, cost.generated), own=(0, len(row))) for row in tokens]
    read_texts(subject, texts, batch_size=size)


def _score(subject: Subject, cost: Cost, tokens: list[list[int]], size: BatchSize) -> None:
    assert cost.effect is not None
    options = {"sites": cost.sites, "batch_size": size, "shelf": None, "advance": no_progress}
    if cost.effect.reads_responses:
        options["responses"] = [[0] * max(1, cost.generated)] * len(tokens)
    score(cost.effect, subject, tokens, reads=OPENINGS if cost.effect.needs_openings else None, **options)


TRIALS: Trials = {
    "responses": _generate,
    "log odds": _read,
    "text": _read_text,
    "effect": _score,
    "training": _score,
}
"""How each kind of work is tried."""
