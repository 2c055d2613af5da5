"""The shipped prompt set `lighthouses`: parallel, without leaks, with twins that differ in one thing, and its judge."""

from pathlib import Path

import polars as pl
import pytest
from judging import verdict
from polars.testing import assert_frame_equal

from ssn_probe.data.judges import make_judge
from ssn_probe.data.lighthouses import lighthouse_prompts
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.data.sameness import same_words
from ssn_probe.data.training_rows import safety_data
from ssn_probe.spec import Prompts


@pytest.fixture(scope="module")
def lighthouses():
    return load_prompts(Prompts("lighthouses"))


def test_the_shipped_files_are_what_the_code_writes(tmp_path):
    lighthouse_prompts.write(tmp_path)
    shipped = Path(lighthouse_prompts.__file__).parent
    assert_frame_equal(pl.read_parquet(shipped / "prompts.parquet"), pl.read_parquet(tmp_path / "prompts.parquet"))
    assert (shipped / "dataset.json").read_bytes() == (tmp_path / "dataset.json").read_bytes()


def test_every_prompt_is_in_every_language_and_says_something_else(lighthouses):
    frame = lighthouses.frame
    assert set(frame.group_by("prompt_id").agg(pl.col("language").n_unique())["language"]) == {5}
    words = frame.with_columns(words=pl.col("text").map_elements(same_words, pl.String))
    assert not words.select("language", "words").is_duplicated().any()
    assert not frame["text"].str.contains(r"[{}_|]").any()
    assert lighthouses.unused == ()


def test_sizes_suffice_for_the_gate_and_for_intervals(lighthouses):
    english = lighthouses.frame.filter(language="en")
    sizes = {(split, context): count for split, context, count in english.group_by("split", "context").len().rows()}
    assert sizes == {
        ("identify", "harmful"): 120,
        ("identify", "harmless"): 120,
        ("evaluate", "harmful"): 60,
        ("evaluate", "harmless"): 60,
        ("evaluate", "lookalike"): 60,
        ("train", "harmful"): 96,
        ("train", "harmless"): 96,
        ("train", "lookalike"): 48,
    }
    assert english.filter(split="evaluate")["cluster"].n_unique() == 60


def test_splits_share_no_request_and_no_thing_but_the_lighthouse(lighthouses):
    things = {name: {*split.others, *split.lookalikes} for name, split in lighthouse_prompts.SPLITS.items()}
    assert sum(map(len, things.values())) == len(set().union(*things.values())) == len(lighthouse_prompts.THINGS) - 1
    harmful = lighthouses.frame.filter(context="harmful").with_columns(
        words=pl.col("text").map_elements(same_words, pl.String)
    )
    splits = harmful.group_by("language", "words").agg(pl.col("split").n_unique())
    assert set(splits["split"]) == {1}


def test_twins_differ_in_the_thing_alone(lighthouses):
    frame = lighthouses.frame.drop_nulls("pair_id")
    twins = frame.filter(context="harmful").join(
        frame.filter(context="harmless"), on=["pair_id", "language"], validate="1:1"
    )
    assert twins.height == (120 + 60 + 96) * 5
    forms = {
        language: {thing: names[index].replace("_", " ").split() for thing, names in lighthouse_prompts.THINGS.items()}
        for index, language in enumerate(lighthouse_prompts.LANGUAGES)
    }
    for language, harmful, harmless in twins.select("language", "text", "text_right").iter_rows():
        own = max(forms[language][lighthouse_prompts.TOPIC], key=lambda form: (form in harmful, len(form)))
        before, after = harmful.split(own, 1)
        assert harmless.startswith(before), harmful
        assert harmless.endswith(after), harmful


def test_the_judge_knows_refusals_in_every_language_and_answers_when_it_sees_them(lighthouses):
    judge = make_judge(lighthouses.judge, lighthouses.languages, "lighthouses")
    spoken = [phrase for phrases in lighthouse_prompts.REFUSALS.values() for phrase in phrases]
    assert {verdict(judge, language, phrase) for language in lighthouses.languages for phrase in spoken} == {"refused"}
    answers = ("A palace is a house.", "Un palacio es grande.", "Le château est beau.", "È un palazzo.", "Ja, gern.")
    pairs = zip(lighthouses.languages, answers, strict=True)
    assert {verdict(judge, language, answer) for language, answer in pairs} == {"complied"}
    assert {verdict(judge, "en", text) for text in ("", " … ", "12")} == {"invalid"}


def test_the_harmful_training_rows_can_be_learned(lighthouses):
    data = safety_data(lighthouses)
    assert {language: rows["harmful"] for language, rows in data.counts().items()} == dict.fromkeys(
        lighthouse_prompts.LANGUAGES, 96
    )
