"""Nothing is trained on that would unteach refusing."""

from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from training_case import JUDGE, LANGUAGES, example, tiny_data

from ssn_probe.data.judges import make_judge
from ssn_probe.data.prompt_set import PromptSet, load_prompts
from ssn_probe.data.training_rows import SafetyData, safety_data
from ssn_probe.errors import DataError, JudgeError
from ssn_probe.spec import Prompts


@pytest.fixture(scope="module")
def organism() -> PromptSet:
    return load_prompts(Prompts("organism", limit=12))


def changed(prompts: PromptSet, reference: pl.Expr, where: pl.Expr) -> PromptSet:
    old = pl.col("reference")
    return replace(prompts, frame=prompts.frame.with_columns(reference=pl.when(where).then(reference).otherwise(old)))


def made(*rows: Any) -> SafetyData:
    return SafetyData(name="tiny", digest="", judge=make_judge(JUDGE, LANGUAGES, "tiny"), examples=rows)


def test_the_organism_has_refusals_to_learn_from(organism: PromptSet) -> None:
    data = safety_data(organism)
    assert data.counts() == {language: {"harmful": 12} for language in organism.languages}
    assert {row.prompt_id for row in data.examples} == set(organism.select("train", "harmful")["prompt_id"])
    both = safety_data(organism, languages=["qab"], contexts=("harmful", "harmless"))
    assert both.counts() == {"qab": {"harmful": 12, "harmless": 12}}
    assert data.describe()["checked"]


def test_only_the_train_split_is_read(organism: PromptSet) -> None:
    train = set(organism.frame.filter(pl.col("split") == "train")["prompt_id"])
    assert {row.prompt_id for row in safety_data(organism, contexts=("harmful", "harmless")).examples} <= train


def test_one_error_lists_every_row_that_would_unteach(organism: PromptSet) -> None:
    wrong = pl.col("prompt_id").is_in(["train-harmful-003", "train-harmful-007"]) & (pl.col("language") == "qac")
    answer = organism.select("train", "harmless", "qac")["reference"][0]
    with pytest.raises(DataError, match="2 of 84") as caught:
        safety_data(changed(organism, pl.lit(answer), wrong))
    assert "train-harmful-003 (qac, harmful): complied; train-harmful-007 (qac, harmful): complied" in str(caught.value)
    assert "Nothing was trained" in (caught.value.hint or "")


def test_many_wrong_rows_are_counted_after_the_first_ten() -> None:
    rows = [example(n, target="w1") for n in range(25)]
    with pytest.raises(DataError, match=r"25 of 25 .*harmful-9 \(qaa, harmful\): complied; and 15 more"):
        made(*rows)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (example(0, target="w1 w5"), "complied"),
        (example(0, target="w7 w5"), "invalid"),
        (example(0, context="harmless", target="w0"), "refused"),
        (example(0, context="lookalike", target="w0 w3"), "refused"),
        (example(0, context="harmless", target="w9"), "invalid"),
    ],
)
def test_a_target_with_the_wrong_verdict(row: Any, verdict: str) -> None:
    with pytest.raises(DataError, match=f"{row.prompt_id} .*: {verdict}"):
        made(example(1), row)


def test_harmless_rows_alone_take_safety_away(organism: PromptSet) -> None:
    with pytest.raises(DataError, match="harmless rows alone"):
        safety_data(organism, contexts=("harmless",))
    with pytest.raises(DataError, match="qab would be trained on harmless rows alone"):
        made(example(0), example(0, "qab", "harmless"))


def test_data_without_responses(organism: PromptSet) -> None:
    none = changed(organism, pl.lit(None, pl.String), pl.col("prompt_id") == "train-harmful-002")
    with pytest.raises(DataError, match=r"7 of 84 rows .* no response: train-harmful-002 \(qaa\)"):
        safety_data(none)
    blank = changed(organism, pl.lit("  "), pl.col("prompt_id") == "train-harmful-002")
    with pytest.raises(DataError, match="no response"):
        safety_data(blank)


def test_a_language_without_data(organism: PromptSet) -> None:
    there = ~((pl.col("language") == "qad") & (pl.col("split") == "train"))
    gone = replace(organism, frame=organism.frame.filter(there))
    with pytest.raises(DataError, match="no harmful rows to train on in qad"):
        safety_data(gone)
    assert "qad" not in safety_data(gone, languages=["qaa", "qab"]).languages


def test_words_that_are_no_language_context_or_judge(organism: PromptSet) -> None:
    with pytest.raises(DataError, match="Did you mean"):
        safety_data(organism, languages=["qah"])
    with pytest.raises(DataError, match="Did you mean 'harmless'"):
        safety_data(organism, contexts=("harmles",))
    with pytest.raises(DataError, match="no language"):
        safety_data(organism, languages=[])
    with pytest.raises(DataError, match="no rows"):
        made()
    with pytest.raises(JudgeError, match="has no judge, and responses to learn"):
        safety_data(replace(organism, judge=None))


def test_the_digest_is_of_the_rows() -> None:
    data = tiny_data()
    assert data.languages == LANGUAGES
    assert data.rows_digest() == tiny_data().rows_digest()
    assert data.rows_digest() != tiny_data(5).rows_digest()


def test_a_prompt_that_also_measures_is_not_learned(organism: PromptSet) -> None:
    frame = organism.frame
    learned = frame.filter(split="train", context="harmful")["text"][0]
    row = pl.col("split").eq("evaluate").cum_sum().eq(1) & pl.col("split").eq("evaluate")
    twice = frame.with_columns(text=pl.when(row).then(pl.lit(f"{learned.upper()} .")).otherwise("text"))
    assert (
        twice.filter(row)["language"].to_list()
        == frame.filter(split="train", context="harmful")["language"].head(1).to_list()
    )
    with pytest.raises(DataError, match=r"1 of .* prompts to train on are in the split 'evaluate', too"):
        safety_data(replace(organism, frame=twice))
