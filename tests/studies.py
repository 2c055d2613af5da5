"""A study step by step: the rows that it plans, and the tables that its steps give."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

import polars as pl

from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.spec import Recipe
from ssn_probe.study.arm_notes import can_read_log_odds
from ssn_probe.study.arm_steps import odds_steps, sample_steps, text_steps
from ssn_probe.study.arms import Arm, arms_of
from ssn_probe.study.pipeline import expected_steps
from ssn_probe.study.plan import make_plan
from ssn_probe.study.progress import Silent
from ssn_probe.study.steps import Row, Step, rows_of_steps
from ssn_probe.study.workbench import Workbench


@cache
def organism() -> Subject:
    """The organism without its weights, which is all that a plan needs."""
    return load_subject("organism", weights=False)


def bench_for(recipe: Recipe, subject: Subject | None = None) -> Workbench:
    plan = make_plan(recipe)
    return Workbench(subject=subject or organism(), data=plan.data, anchor=plan.anchor)


def exchanged_bench(recipe: Recipe, subject: Subject, count: int = 0) -> Workbench:
    """A bench, after the labels of the first `count` prompt ids of either context were exchanged in every language."""
    bench, other = bench_for(recipe, subject), {"harmful": "harmless", "harmless": "harmful"}
    first = pl.col("prompt_id").rank("dense").over("split", "context", "language") <= count
    label = pl.when(first).then(pl.col("context").replace(other)).otherwise("context")
    data = {
        node: replace(prompts, frame=prompts.frame.with_columns(context=label)) for node, prompts in bench.data.items()
    }
    return replace(bench, data=data)


def expected_rows(recipe: Recipe) -> list[Row]:
    """The rows of a plan before anything is known of the arms."""
    return rows_of_steps(expected_steps(bench_for(recipe), recipe))


def planned(recipe: Recipe) -> dict[str, int]:
    """Row → prompts."""
    return {row.label: row.prompts for row in expected_rows(recipe)}


def samples_of(bench: Workbench, recipe: Recipe, arms: Sequence[Arm] | None = None) -> pl.DataFrame:
    """The judged responses of all arms."""
    return pl.concat(_run(sample_steps(bench, recipe, list(arms or arms_of(bench, recipe))), "samples"))


def log_odds_of(bench: Workbench, recipe: Recipe, arms: Sequence[Arm] | None = None) -> pl.DataFrame:
    """The refusal log-odds of all arms; empty where they cannot be trusted."""
    known = list(arms or arms_of(bench, recipe))
    trusted = can_read_log_odds(bench, recipe, known)
    return pl.concat(_run(odds_steps(bench, recipe, known), "log_odds")) if trusted else pl.DataFrame()


def text_of(bench: Workbench, recipe: Recipe, arms: Sequence[Arm] | None = None) -> pl.DataFrame:
    """KL and perplexity of all arms."""
    return pl.concat(_run(text_steps(bench, recipe, list(arms or arms_of(bench, recipe))), "kl"))


def _run(steps: Iterator[Step], table: str) -> list[pl.DataFrame]:
    results = [(step.table, step.run()) for step in steps]
    return [result for name, result in results if name == table]


class Counts(Silent):
    """A tracker that counts what is done in every row."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}

    def advance(self, label: str) -> Callable[[int], None]:
        def report(done: int) -> None:
            self.done[label] = self.done.get(label, 0) + done

        return report

    def settle(self, totals: Mapping[str, int]) -> None:
        pass

    def note(self, label: str, text: str) -> None:
        assert "held out" in text

    def beside(self, text: str) -> None:
        assert "jobs at the host" in text
