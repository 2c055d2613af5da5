"""What is in a report and what is not, from tables alone."""

from dataclasses import replace

import polars as pl
from arm_samples import EACH, EVERY, RECIPE, findings, manifest, ran

from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.markdown import report
from ssn_probe.spec import Recipe

NEURONS = pl.DataFrame({"set": ["ms", "ss"], "language": ["bb", "bb"], "site": ["ffn", "ffn"]})


MANIFEST = manifest() | {
    "neurons": {"layers": 2, "per_layer": {"ffn": 50}},
    "answer": ["An answer."],
    "warnings": [],
    "key": "k" * 20,
    "model": {"name": "organism", "family": "llama", "dtype": "float32", "attention": "sdpa", "digest": "d"},
    **{"data": [], "packages": {}, "python": "3", "platform": "x", "device": "cpu", "seconds": {}},
}


def written(recipe: Recipe, summary: pl.DataFrame | None) -> str:
    found = findings(neurons=NEURONS, summary=summary)
    return report(FinishedRun(recipe=recipe, manifest=MANIFEST, findings=found))


def test_a_section_is_there_where_it_has_something_to_say() -> None:
    transfer, unmeasured = written(EACH, ran(EVERY)[1]), written(RECIPE, None)
    assert "## Whose neurons matter for whom: ms" in transfer
    assert "## Neurons per language and site" in unmeasured
    assert "## Counts" not in transfer
    assert "## Tests" not in transfer + unmeasured


def test_a_recipe_without_a_question_has_no_line_for_it() -> None:
    summary = ran({"ss": {"aa": "rrrrrrrr", "bb": "cccccccc", "cc": "rrrccccc"}}, "ss")[1]
    assert written(RECIPE, summary).startswith("An answer.\n\n## Attack success rate")
    assert written(replace(RECIPE, question="Why?"), summary).startswith("An answer.\n\n*Why?*\n\n## ")
