"""A run as a list of steps: the one description that plans, progress, cache look-ups, timing and execution all use.

A step is one measurement on some prompts. It says which row of a plan it belongs to, what it costs, under which key its
result is kept, and how it is run. Some keys depend on results that are not there yet, such as the neurons of an arm:
asking for them raises NotCached where nothing may be computed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from ssn_probe.runs.cache import NotCached
from ssn_probe.spec import SITES, Effect, Refusal
from ssn_probe.study.refusal_readout import UntrustedReadoutError
from ssn_probe.study.workbench import Workbench

Work = Literal["responses", "log odds", "text", "effect", "training"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a prompt takes: the kind of work, forward passes (a backward counts two), and tokens of a response, which
    are generated, or read where the work is `text` or an effect along responses.

    `effect` and `sites`: what is scored, and `dtype` in which, if not in the model's; `behind_starts`: by ablations
    that run behind what prompts begin with. Training is timed as the refusal
    effect, which passes forward and backward.
    """

    work: Work
    passes: float = 1
    generated: int = 0
    effect: Effect | None = None
    sites: tuple[str, ...] = ()
    dtype: str | None = None
    behind_starts: bool = False


def generating(tokens: int) -> Cost:
    """Of greedy responses of at most so many tokens."""
    return Cost(work="responses", generated=tokens)


def reading_text(tokens: int) -> Cost:
    """Of one pass over a prompt and an answer of at most so many tokens."""
    return Cost(work="text", generated=tokens)


READING = Cost(work="log odds")
TRAINING = Cost(work="training", passes=3, effect=Refusal(at=1, exact_qk=0), sites=SITES)


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One measurement. `key` is all that decides its numbers; `is_kept` says whether the cache has it under that key.

    `table` names the table that the result of `run` belongs to, if it belongs to one. Several steps share a `label`.
    `trusts` raises where log-odds that it reads cannot be trusted.
    """

    label: str
    prompts: int
    cost: Cost
    key: Callable[[], Mapping[str, Any]]
    is_kept: Callable[[Mapping[str, Any]], bool]
    run: Callable[[], Any]
    table: Literal["samples", "log_odds", "language_log_odds", "kl", "lm_eval"] | None = None
    trusts: Callable[[], Any] | None = None

    def is_done(self) -> bool:
        """Is the result in the cache? False where that cannot be known yet."""
        try:
            return self.is_kept(self.key())
        except (NotCached, UntrustedReadoutError):
            return False

    def unreached(self) -> str | None:
        """Why no run gets to it, where that is known."""
        try:
            if self.trusts is not None:
                self.trusts()
        except NotCached:
            return None
        except UntrustedReadoutError as error:
            return error.message
        return None


@dataclass(frozen=True, kw_only=True)
class Row:
    """The steps of one label together, as a plan and the progress show them."""

    label: str
    prompts: int
    cost: Cost


def rows_of_steps(steps: Iterable[Step]) -> list[Row]:
    """One row per label, in the order of the first step; a step without a label, or without prompts, has none."""
    rows: dict[str, Row] = {}
    for step in steps:
        if step.label and step.prompts:
            before = rows.get(step.label)
            total = step.prompts + (0 if before is None else before.prompts)
            first = Row(label=step.label, prompts=0, cost=step.cost) if before is None else before
            rows[step.label] = replace(first, prompts=total)
    return list(rows.values())


def run_steps(bench: Workbench, steps: Iterable[Step]) -> Iterator[tuple[Step, Any]]:
    """Every step with its result, in order."""
    return bench.together(partial(_run, step) for step in steps)


def _run(step: Step) -> tuple[Step, Any]:
    return step, step.run()


def run_unless_done(users: Iterable[Step], run: Callable[[], Any], complete: Callable[[], None]) -> None:
    """Runs what other steps need, unless all of them are in the cache; `complete` then ends its row of progress."""
    if not all(step.is_done() for step in users):
        run()
    complete()
