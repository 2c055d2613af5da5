"""How long a prompt takes on this machine: each kind of work that a plan asks for, tried on one batch.

A figure of now: another machine, batch size or load gives another. What runs on no model (nulls, statistics) is not in
it.
"""

import time
from collections.abc import Mapping

from ssn_probe.model.chat import encode
from ssn_probe.model.openings import Openings
from ssn_probe.model.subject import Subject
from ssn_probe.study.plan import Plan
from ssn_probe.study.steps import Stage
from ssn_probe.study.workbench import LARGEST_BATCH
from ssn_probe.tracing.batching import BatchSize
from ssn_probe.tracing.effects import refusal_log_odds, score_local, score_refusal
from ssn_probe.tracing.generate import generate

ENOUGH = 1.0
"""Seconds of one trial that are enough to tell."""


def calibrate(subject: Subject, plan: Plan, batch_size: int | None) -> Mapping[str, float]:
    """Row of the plan → seconds per prompt, with nothing changed in the model.

    The openings that a gate will find are not known yet; one token on each side stands for them.
    """
    known: dict[tuple, float] = {}
    texts = _texts(plan)
    for stage in plan.stages:
        if _kind(stage) not in known:
            known[_kind(stage)] = _seconds(subject, stage, texts, batch_size or LARGEST_BATCH)
    return {stage.label: known[_kind(stage)] for stage in plan.stages}


def _kind(stage: Stage) -> tuple:
    return stage.work, stage.generated, stage.sites


def _texts(plan: Plan) -> list[str]:
    """A batch of the plan's prompts, of every set, context and language alike."""
    texts = [text for prompts in plan.data.values() for text in prompts.frame["text"]]
    return texts[:: max(1, len(texts) // LARGEST_BATCH)][:LARGEST_BATCH]


def _seconds(subject: Subject, stage: Stage, texts: list[str], batch_size: int) -> float:
    """Seconds per prompt, from a few prompts first, and a whole batch where that takes no time."""
    _run(subject, stage, texts[:1])
    tried = texts[: min(8, batch_size)]
    took = _timed(subject, stage, tried)
    if took < ENOUGH and len(tried) < min(batch_size, len(texts)):
        tried = texts[:batch_size]
        took = _timed(subject, stage, tried)
    # brute force: one pass was tried for each prompt, and every neuron takes one
    return took / len(tried) * (stage.passes if stage.work == "Final" else 1)


def _timed(subject: Subject, stage: Stage, texts: list[str]) -> float:
    started = time.perf_counter()
    _run(subject, stage, texts)
    return time.perf_counter() - started


def _run(subject: Subject, stage: Stage, texts: list[str]) -> None:
    tokens, size = encode(subject, texts), BatchSize(len(texts), auto=True)
    reads = Openings(refusal=((0,),), compliant=((1,),))
    if stage.work == "responses":
        generate(subject, tokens, max_new_tokens=max(1, stage.generated), batch_size=size)
    elif stage.work == "Refusal":
        score_refusal(subject, tokens, reads, sites=stage.sites, batch_size=size)
    elif stage.work == "Local":
        score_local(subject, tokens, sites=stage.sites, batch_size=size)
    else:
        refusal_log_odds(subject, tokens, reads, batch_size=size)
