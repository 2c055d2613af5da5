"""What is in a report and what is not, from tables alone."""

from dataclasses import replace
from typing import Any

import polars as pl
from arm_samples import EACH, EVERY, RECIPE, findings, ran
from arm_samples import manifest as manifest_of

from ssn_probe.report.markdown import report
from ssn_probe.spec import Recipe

NEURONS = pl.DataFrame({"set": ["ms", "ss"], "language": ["bb", "bb"], "site": ["ffn", "ffn"]})


def manifest(**changes: Any) -> dict[str, Any]:
    made = {
        "neurons": {"layers": 2, "per_layer": {"ffn": 50}},
        "answer": ["An answer."],
        "warnings": [],
        "key": "k" * 20,
    }
    model = {"name": "organism", "family": "llama", "dtype": "float32", "attention": "sdpa", "digest": "d"}
    more = {"model": model, "data": [], "packages": {}, "python": "3", "platform": "x", "device": "cpu", "seconds": {}}
    return manifest_of() | made | more | changes


def written(recipe: Recipe, summary: pl.DataFrame | None) -> str:
    return report(recipe, manifest(), findings(neurons=NEURONS, summary=summary))


def test_a_transfer_has_a_matrix_and_no_tests() -> None:
    text = written(EACH, ran(EVERY)[1])
    assert "## Whose neurons matter for whom: ms" in text
    assert "## Tests" not in text
    assert "## Counts" not in text


def test_a_run_that_measured_nothing_has_no_tests() -> None:
    text = written(RECIPE, None)
    assert "## Tests" not in text
    assert "## Neurons per language and site" in text


def test_a_recipe_without_a_question_has_no_line_for_it() -> None:
    summary = ran({"ss": {"aa": "rrrrrrrr", "bb": "cccccccc", "cc": "rrrccccc"}}, "ss")[1]
    assert written(RECIPE, summary).startswith("An answer.\n\n## Attack success rate")
    assert written(replace(RECIPE, question="Why?"), summary).startswith("An answer.\n\n*Why?*\n\n## ")
