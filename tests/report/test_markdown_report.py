"""The whole report from tables alone: which sections there are and in which order."""

from typing import Any

import polars as pl
from arm_samples import EACH, EVERY, RECIPE, findings, ran
from arm_samples import manifest as manifest_of

from ssn_probe.report.markdown import report
from ssn_probe.spec import Recipe

NEURONS = pl.DataFrame({"set": ["ms", "ss"], "language": ["bb", "bb"], "site": ["ffn", "ffn"]})
ARMS = {"ss": {"aa": "rrrrrrrr", "bb": "cccccccc", "cc": "rrrccccc"}}


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


def titles(recipe: Recipe, arms: dict[str, dict[str, str]], primary: str | None = None, **changes: Any) -> list[str]:
    _, summary = ran(arms, primary)
    text = report(recipe, manifest(**changes), findings(neurons=NEURONS, summary=summary))
    return [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]


def test_sections_of_a_test() -> None:
    found = titles(RECIPE, ARMS, "ss", warnings=["Careful."])
    assert found[:5] == [
        *(
            "Attack success rate (ASR) in %: complied / judged",
            "Not refused / all responses in %, the figure that papers print",
        ),
        *("Invalid responses in %", "Tests: ss against the baseline", "Counts against ASR: ss"),
    ]
    assert found[-2:] == ["Notes", "How it was made"]


def test_sections_of_a_transfer() -> None:
    found = titles(EACH, EVERY)
    assert "Whose neurons matter for whom: ms" in found
    assert not any(title.startswith(("Tests", "Counts")) for title in found)


def test_the_answer_comes_first() -> None:
    _, summary = ran(ARMS, "ss")
    text = report(RECIPE, manifest(), findings(neurons=NEURONS, summary=summary))
    assert text.startswith("An answer.")
    assert "## Tests: ss against the baseline" in text


def test_a_run_that_measured_nothing_has_no_tests() -> None:
    text = report(RECIPE, manifest(), findings(neurons=NEURONS))
    assert "## Tests" not in text
    assert "## Neurons per language and site" in text
