"""lm-eval's tasks as steps: the untouched model and every tested arm, after everything else has been measured."""

from collections.abc import Iterator, Mapping
from functools import partial

import polars as pl

from ssn_probe.spec import LMEval, Patch, Recipe
from ssn_probe.study.arms import UNTOUCHED, Arm, labels
from ssn_probe.study.edits_of_arms import edits_for
from ssn_probe.study.lm_eval_tasks import is_kept, measure_of, score_inputs, scores, task_language
from ssn_probe.study.measurements import Change
from ssn_probe.study.resolve import evaluated
from ssn_probe.study.steps import READING, Step
from ssn_probe.study.trained_arms import bench_of
from ssn_probe.study.workbench import Workbench


def lm_eval_steps(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> Iterator[Step]:
    """One step per arm and task. Of a learning curve the last point is measured; of random sets none, for their price.

    An arm that carries over activations from parallel prompts has none here, and is left out.
    """
    node = measure_of(recipe)
    if node is None:
        return
    last = {(arm.name, arm.set_language): arm for arm in arms if not isinstance(arm.does, Patch)}
    languages = evaluated(recipe, bench.data)
    for arm in (UNTOUCHED, *last.values()):
        for task in node.tasks:
            language = task_language(node, task, languages, bench.anchor)
            if language not in arm.skipped:
                yield _step(bench, node, arm, task, language)


def _step(bench: Workbench, node: LMEval, arm: Arm, task: str, language: str) -> Step:
    label, documents = f"{arm.name}: lm-eval", node.limit or 1  # without a limit, as many as there are tasks

    def change() -> tuple[Workbench, Change]:
        here = bench_of(bench, arm, language)
        return here, Change(edits=edits_for(here, arm.neurons, arm.does, language, arm.source), does=arm.does)

    def key() -> Mapping:
        here, changed = change()
        return score_inputs(here, node, task, changed)

    def run() -> pl.DataFrame:
        here, changed = change()
        found = scores(here, node, task, changed, partial(bench.tracker.note, label))
        bench.tracker.advance(label)(documents)
        return found.with_columns(*labels(arm, language))

    return Step(
        label=label,
        prompts=documents,
        cost=READING,
        key=key,
        is_kept=partial(is_kept, bench),
        run=run,
        table="lm_eval",
    )
