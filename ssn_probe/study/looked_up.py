"""The steps of a run, looked up in the cache and not run: what is there, and what no run gets to."""

import contextlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ssn_probe.engines.vllm_engine import Vllm
from ssn_probe.errors import SSNProbeError
from ssn_probe.model.subject import Subject
from ssn_probe.runs.cache import Cache, NotCached
from ssn_probe.spec import Recipe
from ssn_probe.study.arm_steps import arm_steps
from ssn_probe.study.arms import arms_of, expected_arms
from ssn_probe.study.identify_steps import gate_label, identify_steps
from ssn_probe.study.plan import Plan
from ssn_probe.study.refusal_readout import given_up
from ssn_probe.study.refusal_trial import try_refusal
from ssn_probe.study.resolve import reads_log_odds
from ssn_probe.study.steps import Row, rows_of_steps
from ssn_probe.study.workbench import Workbench


def look_up(
    plan: Plan, subject: Subject, engine: Vllm | None, out: Path
) -> tuple[list[Row], Mapping[str, int], Mapping[str, str]]:
    """The rows, how many prompts of each are in the cache, and why some are not reached: the steps of a run, looked
    up and not run.

    Where the neurons of the arms do not follow from what is there, their rows are those expected, and count as 0.
    """
    kept = Cache(root=out / "cache", compute=False)
    bench = Workbench(subject=subject, data=plan.data, anchor=plan.anchor, cache=kept, engine=engine)
    try:
        arms = arms_of(bench, plan.recipe)
    except NotCached:
        arms = expected_arms(bench, plan.recipe)
    steps = [*identify_steps(bench, plan.recipe), *arm_steps(bench, plan.recipe, arms)]
    cached, unreached = Counter[str](), _given_up(bench, plan.recipe)
    for step in steps:
        if step.label and step.label not in cached and (why := step.unreached()):
            unreached[step.label] = why
        if step.label and step.label not in unreached:
            cached[step.label] += step.prompts if step.is_done() else 0
    return rows_of_steps(steps), cached, unreached


def _given_up(bench: Workbench, recipe: Recipe) -> dict[str, str]:
    """Responses that would test refusal log-odds which a run has given up, after the few that the cache holds."""
    with contextlib.suppress(SSNProbeError):
        try_refusal(bench, recipe)
    found = {}
    for prompts in reads_log_odds(recipe, bench.data):
        if why := given_up(bench, prompts):
            found[gate_label(prompts)] = why.message
    return found
