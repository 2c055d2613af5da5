"""The answer of a recipe about overlaps says how large they are, beside what chance gives."""

from typing import Any

import polars as pl

from ssn_probe.report.overlaps_in_words import only_overlaps, overlap_lines
from ssn_probe.spec import Prompts, Recipe, SafetyNeurons, Suppress
from ssn_probe.spec.recipe import ASR

PROMPTS = Prompts("organism")
MS = SafetyNeurons(PROMPTS)


class Found:
    """As much of a study's findings as the sentences read."""

    def __init__(self, *rows: tuple[Any, ...], sets: tuple[str, ...] = ("ms",)):
        columns = ["set", "shared", "jaccard", "expected_permuted", "p_permuted"]
        kinds = {"set": pl.String, "shared": pl.UInt32} | dict.fromkeys(columns[2:], pl.Float64)
        self.overlap = pl.DataFrame(list(rows), schema=kinds, orient="row") if rows else None
        self.sets = {name: {} for name in sets}


def lines(found: Any, **recipe: Any) -> list[str]:
    return overlap_lines(Recipe(**({"sets": {"ms": MS}} | recipe)), found)


def test_the_overlaps_have_their_range_their_mean_and_what_chance_gives() -> None:
    rows = [
        ("ms", 4, 0.1, 6.0, 0.9),
        ("ms", 9, 0.2, 8.0, 0.04),
        ("ms", 1200, 0.9, 7.0, 0.01),
    ]
    assert lines(Found(*rows)) == [
        "ms: two languages share 4 to 1,200 neurons, 404.3 on average over 3 pairs (mean Jaccard 0.40); "
        "7.0 would be shared with harmful and harmless exchanged, which 1 of 3 pairs exceed (p ≤ .05 after "
        "Holm)."
    ]


def test_without_nulls_or_neurons_nothing_is_said_of_them() -> None:
    assert lines(Found(("ms", 1, None, None, None))) == ["ms: two languages share 1 neuron."]
    assert lines(Found()) == []


def test_overlaps_come_first_where_nothing_else_was_asked() -> None:
    row = (1, 0.5, None, None)
    recipe = Recipe(sets={"ms": MS})
    assert only_overlaps(recipe, Found(("ms", *row)))  # type: ignore[arg-type]
    assert not only_overlaps(recipe, Found(("ms", *row), sets=("ms", "ss")))  # type: ignore[arg-type]
    arms = {"arms": {"ms": Suppress(MS)}, "measures": (ASR(PROMPTS),), "sets": {}}
    assert lines(Found(("ms", *row)), **arms) == [], "arms ask another question"
