"""Where a Patch carries over from, and that every prompt has a parallel there: known before anything runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prompt_rows import Row, make_rows
from prompt_rows import write as write_rows
from studies import expected_rows, planned

from ssn_probe import ASR, Amplify, OverRefusal, Patch, Prompts, Recipe, SafetyNeurons, Shared, Suppress
from ssn_probe.errors import DataError, RecipeError
from ssn_probe.spec.anchors import source_of
from ssn_probe.study.plan import make_plan

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A prompt set in three languages, 2 prompts per split and context, less the rows for which `drop` holds."""

    def written(drop: Callable[[Row], bool] = lambda row: False, languages: str = "en de sw", **card: Any) -> str:
        rows = [row for row in make_rows(languages.split(), 2) if not drop(row)]
        return str(write_rows(tmp_path, rows, max_new_tokens=7, **card))

    return written


def patched(data: str, **options: Any) -> Recipe:
    prompts = Prompts(data)
    arm = Patch(SafetyNeurons(prompts), **options)
    return Recipe(arms={"ms": arm}, measures=(ASR(prompts), OverRefusal(prompts)), comparisons=("random",), controls=2)


def test_the_source_is_the_language_named_or_else_the_anchor() -> None:
    ms = SafetyNeurons(Prompts("organism"))
    assert source_of(Patch(ms, source="qac"), "qaa") == "qac"
    assert source_of(Patch(ms), "qaa") == "qaa"
    assert source_of(Suppress(ms), "qaa") is source_of(Amplify(ms, by=2), "qaa") is source_of(None, "qaa") is None
    with pytest.raises(RecipeError, match="names no source language, and there is no anchor") as caught:
        source_of(Patch(ms), None)
    assert "source=" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("context", "named"),
    [
        ("harmful-1", r"harmful prompts .* no parallel in en.*: evaluate-harmful-1"),
        ("lookalike", "evaluate-lookalike-0, evaluate-lookalike-1"),
    ],
)
def test_prompts_without_a_parallel_are_named(context: str, named: str, write: Write) -> None:
    """Those that only the source has do no harm."""
    data = write(lambda row: row["language"] == "en" and f"evaluate-{context}" in row["prompt_id"], anchor="en")
    with pytest.raises(DataError, match=rf"{named}\n") as caught:
        make_plan(patched(data))
    assert "prompt_id" in (caught.value.hint or "")
    assert make_plan(patched(data, source="de"))
    assert make_plan(
        patched(write(lambda row: row["language"] == "de" and "harmful-1" in row["prompt_id"]), source="en")
    )


def test_an_unknown_source_is_found_with_the_nearest(write: Write) -> None:
    with pytest.raises(RecipeError, match="unknown source language 'dee'") as caught:
        make_plan(patched(write(anchor="en"), source="dee"))
    assert "Did you mean 'de'?" in (caught.value.hint or "")


def test_one_language_has_nobody_to_carry_over_to(write: Write) -> None:
    with pytest.raises(RecipeError, match="no language besides the source en"):
        make_plan(patched(write(languages="en"), source="en"))
    with pytest.raises(RecipeError, match="there is no anchor"):
        make_plan(patched(write(languages="en", anchor="en")))


def test_every_run_of_the_source_is_planned(write: Write) -> None:
    """2 prompts per context and language, 2 contexts, 3 languages, of which the source is not evaluated."""
    recipe = patched(write(anchor="en"), positions="response")
    rows = {row.label: (row.prompts, row.cost.generated) for row in expected_rows(recipe)}
    expected = {
        "ms": (8, 7),
        "ms, without its top neuron": (8, 7),
        "ms: 2 random sets of as many neurons": (2 * 4, 7),
        "ms: log-odds only": (2 * 4, 0),
        "ms: 2 random sets of as many neurons, log-odds only": (2 * 4, 0),
        "ms: activations in en": (2 * 4 + 2 * 2 + (2 + 2) * 2, 7),
        "ms: activations in en, log-odds only": ((2 + 2) * 2, 0),
    }
    assert expected.items() <= rows.items()


def test_the_last_position_needs_no_generation_in_the_source(write: Write) -> None:
    rows = {row.label: row.cost for row in expected_rows(patched(write(anchor="en")))}
    assert rows["ms: activations in en"].generated == 0


def test_random_sets_skip_the_source_and_the_anchor_of_a_shared_set(write: Write) -> None:
    prompts = Prompts(write(anchor="en"))
    arms = {"ss": Patch(Shared(SafetyNeurons(prompts)), source="de")}
    recipe = Recipe(arms=arms, measures=(ASR(prompts),), controls=2, label_sets=0, log_odds_label_sets=0)
    rows = planned(recipe)
    assert (rows["ss"], rows["ss: 2 random sets of as many neurons"]) == (4, 2 * 2)
