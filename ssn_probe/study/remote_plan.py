"""What a run will send to a host: told, and asked about, before the first real job."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

import polars as pl

from ssn_probe.errors import RemoteError
from ssn_probe.model.hosted import in_words
from ssn_probe.model.subject import Subject
from ssn_probe.remote.job_limits import MOST_SENT, Limits
from ssn_probe.runs.cache import Cache
from ssn_probe.study.pipeline import expected_steps
from ssn_probe.study.plan import Plan
from ssn_probe.study.steps import Step
from ssn_probe.study.workbench import LARGEST_BATCH, Workbench
from ssn_probe.text import counted, size

UNASKED = 3
"""So few jobs are sent without a question."""
BYTES_PER_TOKEN = 24
"""Its number, its place and whether it is one, 8 bytes each, before they are packed."""
PASSES_TOGETHER = 3
"""An effect that takes more passes than these on a prompt has them in calls of their own."""


@dataclass(frozen=True, kw_only=True)
class RemotePlan:
    """Prompts to be sent, those of every step that is not in the cache; the calls they take, and the jobs of these.

    `runs`: what the host runs, in words.
    """

    host: str
    runs: str
    prompts: int
    calls: int
    jobs: int
    bytes_of_job: float

    @property
    def asks(self) -> bool:
        """Is it worth a question?"""
        return self.jobs > UNASKED

    def lines(self) -> list[str]:
        """For a reader, before anything is sent."""
        there = f"Host: {self.host} runs {self.runs}."
        if not self.jobs:
            return [there, "Nothing has to be sent there: everything is in the cache."]
        return [
            there,
            f"It will be sent the token ids of {counted(self.prompts, 'prompt')}, changes of neurons, and the source "
            f"of ssn_probe.tracing.bodies: about {counted(self.calls, 'call')} in {counted(self.jobs, 'job')}, at most "
            f"{Limits().jobs} at a time, each up to {size(self.bytes_of_job)} before it is packed.",
        ]


def remote_plan(bench: Workbench, steps: Iterable[Step], mean_tokens: float) -> RemotePlan:
    """What `steps` will send. The steps' bench must not compute: what depends on results counts as not there yet."""
    subject, together = bench.subject, bench.batch_size or LARGEST_BATCH
    assert subject.host is not None
    assert subject.deployment is not None
    prompts, calls = 0, Counter[str]()
    for step in steps:
        if step.prompts and not step.is_done():
            passes = step.cost.passes if step.cost.passes > PASSES_TOGETHER else 1
            prompts += step.prompts
            calls[step.label] += ceil(step.prompts * passes / together)
    return RemotePlan(
        host=subject.host.url,
        runs=f"{subject.name} in {in_words(subject.deployment)}",
        prompts=prompts,
        calls=sum(calls.values()),
        jobs=sum(ceil(count / Limits().calls) for count in calls.values()),
        bytes_of_job=min(MOST_SENT, Limits().calls * together * mean_tokens * BYTES_PER_TOKEN),
    )


def plan_of_run(subject: Subject, plan: Plan, cache: Cache, lengths: pl.DataFrame) -> RemotePlan:
    """What a run will send. The cache must not compute."""
    bench = Workbench(subject=subject, data=plan.data, anchor=plan.anchor, cache=cache)
    tokens = lengths["tokens"].mean()
    return remote_plan(bench, expected_steps(bench, plan.recipe), tokens if isinstance(tokens, float) else 0)


def must_be_confirmed(plan: RemotePlan, can_ask: bool) -> bool:
    """Is a person to be asked? Raises RemoteError where nobody can be."""
    if plan.asks and not can_ask:
        raise RemoteError(
            f"{counted(plan.jobs, 'job')} would be sent to {plan.host}, and nobody is here to be asked.",
            "Add --yes to send them.",
        )
    return plan.asks
