"""The plan of a past run: its recipe, with the prompts that it was made with."""

from collections.abc import Mapping
from typing import Any

from ssn_probe.errors import ResultError
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.study.plan import Plan, make_plan


def past_plan(run: RunFolder, manifest: Mapping[str, Any], purpose: str) -> Plan:
    """The recipe of a run with its prompts. Raises ResultError where they are not the run's any more.

    `purpose`: what needs them, in a hint: "A judge needs the requests".
    """
    plan = make_plan(find_recipe(str(run.path / "recipe.json"), {}))
    then, now = [one["sha256"] for one in manifest["data"]], [one.digest for one in plan.data.values()]
    if then != now:
        raise ResultError(f"the prompts of {run.name} have changed since", f"{purpose}: restore them, or run again.")
    return plan
