"""The answer of every shipped recipe is short, and has its claims beside it, whatever it found."""

import textwrap
from typing import Any

import polars as pl
import pytest
from arm_samples import compared, comparisons, findings, primary_test, row, table

from ssn_probe.organism.ground_truth import COMPARISON
from ssn_probe.report.answer import answer_lines
from ssn_probe.report.claims import claims
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.terminal.claims_table import claims_table
from ssn_probe.spec import Each, Recipe, Trains
from ssn_probe.spec.discovery import find_recipe, list_recipes
from ssn_probe.spec.rendering import as_text
from ssn_probe.stats import Estimate
from ssn_probe.stats.nulls.permutation_null import SCHEMA as NULLS
from ssn_probe.study.arms import WEAKENED, ArmName
from ssn_probe.study.comparisons import COMPARISONS
from ssn_probe.study.findings import Findings
from ssn_probe.study.pipeline import named_sets
from ssn_probe.study.robustness import Robustness
from ssn_probe.study.training_curves import Difference, Point, curve_table, learning_curves

MOST, MOST_ON_SCREEN = 6, 27
"""Lines of the answer; with its claims in a terminal of 80 columns."""
LANGUAGES = ("qaa", "qab", "qac")
MEASURES = ("asr", "over_refusal", "utility", "invalid", "refusal_log_odds", "kl", "perplexity")
CHANGED = {"delta": 0.1, "delta_low": 0.05, "delta_high": 0.15}


def summary_of(recipe: Recipe) -> pl.DataFrame:
    """Every measure of every arm, with and without its top neuron."""
    rows = [row("baseline", measure, "baseline") for measure in MEASURES]
    for name, node in recipe.arms.items():
        steps = node.at if isinstance(node, Trains) and node.at is not None else (None,)
        applied = LANGUAGES if isinstance(node.neurons, Each) else (None,)
        for measure in MEASURES:
            rows += [
                row(name, measure, role, step=step, set_language=of, **CHANGED)
                for step in steps
                for of in applied
                for role in ("tested", WEAKENED)
            ]
    return table(*rows)


def everything(recipe: Recipe) -> Findings:
    """A study that found whatever can be found."""
    sets = list(named_sets(recipe))
    null = ("size", "average", None, 10.0, 10.0, 5.0, 3.0, 7.0, 5.0, 3.0, 7.0, 8.0)
    nulls = [(name, *null, 0.1 + place / 100, 1000) for place, name in enumerate(sets)]
    truth = dict.fromkeys(COMPARISON) | {"language": "*", "question": "harmful", "mass": 0.5, "precision": 0.4}
    truths = [truth | {"set": name, "mass": 0.5 + place / 100, "ranked_by": "own"} for place, name in enumerate(sets)]
    beside = [
        compared(arm, name, measure, p_holm=0.05)
        for arm in recipe.arms
        for name in COMPARISONS
        for measure in ("asr", "refusal_log_odds", "kl")
        if (name, measure) != ("labels", "asr")
    ]
    beside += [primary_test(arm) for arm in recipe.arms]
    summary = summary_of(recipe)
    curves = {
        ArmName(name, step=step): Point(
            curve=name, step=step, group="random" if "random" in name else name, parameters=9
        )
        for name, node in learning_curves(recipe).items()
        for step in node.at or ()
    }
    estimate = Estimate(value=0.1, low=0.0, high=0.2, n=10, clusters=10, method="")
    difference = Difference(curve="ss", step=8, measure="asr", random_sets=3, estimate=estimate)
    return findings(
        neurons=pl.DataFrame({"set": sets, "language": "qaa", "site": "ffn"}),
        summary=summary if recipe.arms else None,
        comparisons=comparisons(*beside),
        robustness=Robustness(nulls=pl.DataFrame(nulls, schema=NULLS, orient="row")),
        truth=pl.DataFrame(truths, schema={**COMPARISON, "ranked_by": pl.String}),
        curves=curve_table(summary, curves) if curves else None,
        differences=(difference,) if curves else (),
    )


def answered(recipe: Recipe) -> FinishedRun:
    manifest: dict[str, Any] = {"neurons": {"layers": 2, "per_layer": {"ffn": 500}}, "anchor": "qaa"}
    manifest["sets"] = {name: dict.fromkeys(LANGUAGES, 9) for name in named_sets(recipe)}
    return FinishedRun(recipe=recipe, manifest=manifest, findings=everything(recipe))


@pytest.mark.parametrize("name", [listing.name for listing in list_recipes()])
def test_the_answer_and_the_claims_fit_on_a_screen(name: str) -> None:
    run = answered(find_recipe(name, {}))
    lines, found = answer_lines(run), claims(run)
    assert 1 <= len(lines) <= MOST, "\n".join(lines)
    assert len(set(lines)) == len(lines)
    assert [one.primary for one in found] == [run.recipe.primary is not None, *[False] * (len(found) - 1)][: len(found)]
    on_screen = [*as_text(claims_table(found), width=80).splitlines(), *(textwrap.fill(line, 76) for line in lines)]
    assert len("\n".join(on_screen).splitlines()) + 2 <= MOST_ON_SCREEN, "\n".join(on_screen)
