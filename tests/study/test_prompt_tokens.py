"""The prompts of a study against the model: unknown tokens are refused by name, long prompts counted by language."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prompt_rows import load, make_rows, write

from ssn_probe import ASR, OverRefusal, Prompts, Recipe, SafetyNeurons, Suppress
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.errors import DataError, ModelError
from ssn_probe.model.context_length import Limit
from ssn_probe.model.subject import Subject
from ssn_probe.spec import Expand, Local
from ssn_probe.study.prompt_tokens import length_notes, prompt_lengths

PROMPTS = Prompts("made")
SETS = Recipe(name="sets", sets={"ms": SafetyNeurons(PROMPTS, effect=Local())})
ARM = Suppress(SafetyNeurons(PROMPTS, effect=Local()))
ARMS = Recipe(name="arms", arms={"ms": ARM}, measures=(ASR(PROMPTS), OverRefusal(PROMPTS)), log_odds_label_sets=0)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., PromptSet]:
    """A prompt set whose texts follow from their row."""

    def make(text: Callable[[dict[str, Any]], str]) -> PromptSet:
        rows = [row | {"text": text(row)} for row in make_rows()]
        return load(write(tmp_path / "made", rows, max_new_tokens=8))

    return make


def notes(recipe: Recipe, prompts: PromptSet, subject: Subject, *limits: Limit) -> list[str]:
    lengths = prompt_lengths(recipe, {PROMPTS: prompts}, subject)
    return list(length_notes(lengths, replace(subject, limits=limits)))


def number(row: dict[str, Any]) -> int:
    return int(row["prompt_id"].rpartition("-")[2])


CONTEXT = Limit(tokens=12, of="the context", beyond="That is far")


def test_long_prompts_are_counted_by_language(made: Callable[..., PromptSet], llama: Subject) -> None:
    """Three tokens belong to the template; in German every number adds five words."""
    prompts = made(lambda row: "w1 " * (5 * number(row) + 1 if row["language"] == "de" else 1))
    assert notes(SETS, prompts, llama) == []
    [found] = notes(SETS, prompts, llama, CONTEXT)
    assert found == "2 of 12 prompts are longer than the context: de 2 of 6. That is far."
    [found] = notes(ARMS, prompts, llama, CONTEXT)
    assert found == (
        "5 of 30 prompts are longer than the context: de 5 of 15. "
        "With a response of up to 8 tokens it is 8: de 8 of 15. That is far."
    )


def test_a_prompt_may_fit_without_its_response(made: Callable[..., PromptSet], llama: Subject) -> None:
    prompts = made(lambda _row: "w1 w2")
    assert notes(SETS, prompts, llama, CONTEXT) == []
    [found] = notes(ARMS, prompts, llama, CONTEXT)
    assert "are longer than the context with a response of up to 8 tokens: de 9 of 15" in found


def test_a_prompt_as_long_as_the_context_is_not_beyond_it(made: Callable[..., PromptSet], llama: Subject) -> None:
    prompts = made(lambda _row: "w1 " * 9)
    assert notes(SETS, prompts, llama, CONTEXT) == []
    assert len(notes(SETS, prompts, llama, replace(CONTEXT, tokens=11))) == 1


def test_a_token_outside_the_embedding_is_named_with_its_prompt(made: Callable[..., PromptSet], llama: Subject) -> None:
    short = replace(llama, vocabulary=60)
    prompts = made(lambda row: "w1 w55" if row["language"] == "de" and number(row) == 1 else "w1")
    with pytest.raises(DataError, match=r"made: \S+-1 \(de\) has the token 'w55' \(id 61\), .* ends at id 59"):
        prompt_lengths(SETS, {PROMPTS: prompts}, short)


def test_a_token_that_the_template_writes(made: Callable[..., PromptSet], llama: Subject) -> None:
    prompts = made(lambda _row: "w1")
    with pytest.raises(ModelError, match=r"The chat template of \S+ writes the token '<user>' \(id 3\)"):
        prompt_lengths(SETS, {PROMPTS: prompts}, replace(llama, vocabulary=3))


@pytest.mark.parametrize(("changes", "words"), [
    ({"context": 9}, r"t-\S+ \(en\) has 10 tokens, but the model takes 9"),
    ({"vocabulary": 13}, r"t-\S+ \(en\) has the token 'w7' \(id 13\)"),
    ({}, None),
])  # fmt: skip
def test_rows_to_train_on_are_checked_before_anything_runs(
    tmp_path: Path, llama: Subject, changes: dict[str, Any], words: str | None
) -> None:
    learned = {"reference": "w7 w7 w7", "text": "w1 w2 w3", "split": "train", "context": "harmful"}
    rows = [row | learned | {name: f"t-{row[name]}" for name in ("prompt_id", "cluster")} for row in make_rows()]
    patterns = dict.fromkeys(("en", "de"), "w7")
    asked = [row | {"text": "w1"} for row in make_rows()]
    prompts = load(
        write(tmp_path / "made", asked + rows, judge={"kind": "patterns", "refused": patterns, "complied": patterns})
    )
    recipe = replace(
        ARMS, arms={"expand": Expand(SafetyNeurons(PROMPTS, effect=Local()), PROMPTS, contexts=("harmful",))}
    )
    if words is None:
        prompt_lengths(recipe, {PROMPTS: prompts}, llama)
        return
    with pytest.raises(DataError, match=words):
        prompt_lengths(recipe, {PROMPTS: prompts}, replace(llama, **changes))
