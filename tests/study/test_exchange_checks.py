"""Can a set be ranked among those that exchanged labels give? By the prompts of the organism, in several disguises."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.report.document import Section
from ssn_probe.report.markdown import as_markdown
from ssn_probe.report.sections.set_reliability import null_section
from ssn_probe.spec import Prompts, Recipe, SafetyNeurons, Shared
from ssn_probe.study.exchange_checks import why_no_null
from ssn_probe.study.plan import make_plan
from ssn_probe.study.robustness import robustness_of
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.workbench import Workbench

NOTHING = Section("", ())


@pytest.fixture(scope="module")
def organism() -> Subject:
    return load_subject("organism")


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    frame = load_prompts(Prompts("organism", languages=("qaa", "qab"), limit=20)).frame
    return frame.filter(split="identify").drop("source").with_columns(pair_id=pl.lit(None, pl.String))


def study(organism: Subject, folder: Path, frame: pl.DataFrame) -> tuple[Workbench, Recipe]:
    frame.write_parquet(folder / "prompts.parquet")
    ms = SafetyNeurons(Prompts(str(folder)), effect="local", sites=("ffn",), rule="paper", top=0.05)
    recipe = Recipe(sets={"ms": ms, "ss": Shared(ms, anchor="qaa")}, permutations=99, half_samples=0)
    return Workbench(subject=organism, data=make_plan(recipe).data, anchor="qaa"), recipe


def as_one_topic(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(topic=pl.lit("one"))


def by_language(frame: pl.DataFrame) -> pl.DataFrame:
    names = {name: pl.concat_str("language", pl.lit("-"), name) for name in ("prompt_id", "cluster")}
    others = [name for name in frame.columns if name.startswith("cluster_")]
    return as_one_topic(frame).drop(others).with_columns(**names)


def predicted(frame: pl.DataFrame) -> pl.DataFrame:
    """Four in five harmful prompts are of one topic, and one in five harmless ones."""
    ids = frame.select("prompt_id", "context").unique(maintain_order=True)
    number = pl.int_range(pl.len()).over("context") % 5
    topic = pl.when(number == 0).then(pl.col("context") == "harmless").otherwise(pl.col("context") == "harmful")
    named = ids.with_columns(topic=pl.when(topic).then(pl.lit("a")).otherwise(pl.lit("b"))).drop("context")
    return frame.drop("topic").join(named, on="prompt_id", how="left", maintain_order="left")


def test_a_valid_exchange_tests_every_set(organism: Subject, rows: pl.DataFrame, tmp_path: Path) -> None:
    bench, recipe = study(organism, tmp_path, as_one_topic(rows))
    assert [why_no_null(bench, node, 0) for node in recipe.sets.values()] == [None, None]
    robustness = robustness_of(bench, recipe, recipe.sets)
    (exchanged,) = robustness.exchangeability
    assert exchanged.sets == ("ms", "ss")
    assert "50 % of them keep their label, and the mean contrast is" in as_markdown(null_section(robustness) or NOTHING)


def test_a_rare_draw_without_a_language_s_prompts_is_no_null(
    organism: Subject, rows: pl.DataFrame, tmp_path: Path
) -> None:
    """One in some thousands of exchanges leaves a language that lacks most prompts without a harmful or harmless one:
    that is seen by the null that draws so many, and not by the thousand draws that try the exchange."""
    few = pl.col("prompt_id").rank("dense").over("context", "language") <= 5 + (pl.col("context") == "harmful")
    bench, recipe = study(organism, tmp_path, as_one_topic(rows).filter((pl.col("language") == "qaa") | few))
    assert all(why_no_null(bench, node, 0) is None for node in recipe.sets.values())
    robustness = robustness_of(bench, replace(recipe, permutations=30_000, half_samples=2), recipe.sets)
    (exchanged,) = robustness.exchangeability
    assert robustness.nulls is None
    assert exchanged.reason == "qab has no harmful prompt in some of the samples"
    assert f"no valid null exists: {exchanged.reason}" in bench.warnings


def test_own_ids_test_one_language_at_a_time(organism: Subject, rows: pl.DataFrame, tmp_path: Path) -> None:
    bench, recipe = study(organism, tmp_path, by_language(rows))
    ms, ss = recipe.sets.values()
    assert why_no_null(bench, ms.of("qab"), 0) is None
    for node in (ms, ss, ms.union(), ss.of("qab")):
        assert "prompt ids of the languages are not parallel" in (why_no_null(bench, node, 0) or "")
    robustness = robustness_of(bench, recipe, recipe.sets)
    assert robustness.nulls is not None
    assert robustness.nulls.select("set", "language_a").rows() == [("ms", "qaa"), ("ms", "qab")]
    assert "in each language independently" in as_markdown(null_section(robustness) or NOTHING)


def test_without_a_valid_null_nothing_has_a_p(organism: Subject, rows: pl.DataFrame, tmp_path: Path) -> None:
    bench, recipe = study(organism, tmp_path, predicted(rows))
    found = why_no_null(bench, recipe.sets["ss"], 0)
    assert "no valid null exists: 68 % of the prompts keep their label" in (found or "")
    robustness = robustness_of(bench, recipe, recipe.sets)
    assert robustness.nulls is None
    assert "No valid null exists" in as_markdown(null_section(robustness) or NOTHING)
    assert sum("no valid null exists" in note for note in bench.warnings) == 1
    evaluate(bench, SafetyNeurons(next(iter(bench.data)), effect="local", sites=("ffn",), fdr=0.5))
    assert sum("the rate of fdr=0.5 is not known" in note for note in bench.warnings) == 1
