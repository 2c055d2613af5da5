"""Topics and sources that only tell harmful from harmless prompts: what can still be exchanged, and what is said."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ssn_probe.model.subject import load_subject
from ssn_probe.spec import Prompts, Recipe, SafetyNeurons
from ssn_probe.stats.nulls.label_exchange import draw_labels, exchange
from ssn_probe.study.contrast_effects import _within, apart, in_strata
from ssn_probe.study.plan import make_plan
from ssn_probe.study.robustness import robustness_of
from ssn_probe.study.workbench import Workbench


def prompts(topics: list[str | None], harmful: list[bool], sources: list[str] | None = None) -> pl.DataFrame:
    names = [str(number) for number in range(len(topics))]
    columns = {"prompt_id": names, "harmful": harmful, "cluster": names, "topic": topics}
    columns |= {"pair_id": [None] * len(names), "source": sources or ["one"] * len(names), "within": ["0"] * len(names)}
    return pl.DataFrame(columns, schema_overrides={"topic": pl.String, "pair_id": pl.String})


SIDES = [True] * 10 + [False] * 10


@pytest.mark.parametrize(
    ("topics", "stratum", "differs"),
    [
        (["a", "b"] * 10, ["a | 0", "b | 0"], ()),
        ([None] * 20, [" | 0"], ()),
        (["a", "b"] * 5 + ["c", "d"] * 5, ["0"], ("topic",)),
        (["a", "b"] * 5 + [None] * 10, ["0"], ("topic",)),
        (["a", "b"] * 5 + ["a"] + ["c"] * 9, ["0"], ("topic",)),  # six relabellings are too few for a test
    ],
)
def test_labels_are_exchanged_within_topics_that_both_have(
    topics: list[str | None], stratum: list[str], differs: tuple[str, ...]
) -> None:
    found = in_strata(prompts(topics, SIDES))
    assert sorted(found["stratum"].unique()) == stratum
    assert apart(found) == differs
    assert exchange(found).dropped_prompts == 0


def test_two_sources_are_told() -> None:
    found = in_strata(prompts(["a", "b"] * 10, SIDES, ["one"] * 10 + ["other"] * 10))
    assert apart(found) == ("source",)
    assert apart(found.filter("harmful")) == ()


def test_falling_back_keeps_the_level() -> None:
    """Random labels on prompts of many topics, whose effect depends on the topic: p ≤ .05 in about 5 % of the draws."""
    random, rejected, fell_back = np.random.default_rng(0), 0, 0
    for trial in range(150):
        topic = random.integers(0, 12, 16)
        values = random.normal(size=16) + 2 * random.normal(size=12)[topic]
        found = in_strata(prompts([f"t{one}" for one in topic], list(random.permutation([True, False] * 8))))
        labels, kept = draw_labels(found, 99, trial)
        every = np.concatenate([found["harmful"].to_numpy()[None], labels])
        gaps = np.abs([values[kept & one].mean() - values[kept & ~one].mean() for one in every])
        rejected += bool((gaps >= gaps[0] - 1e-12).mean() <= 0.05)
        fell_back += "topic" in apart(found)
    assert 20 < fell_back < 140
    assert rejected <= 14  # P(more | level .05) < 1 %


@pytest.fixture
def two_kinds(tmp_path: Path) -> Recipe:
    """The organism's prompts, harmful ones with topics of their own, harmless ones of another set without any."""
    data = make_plan(Recipe(sets={"ms": SafetyNeurons(Prompts("organism", limit=12, languages=("qaa",)))})).data
    (rows,) = (one.frame.drop("source").filter(split="identify") for one in data.values())
    words = [word for word in load_subject("organism").tokenizer.get_vocab() if word.isalpha()][:8]
    longer = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.col("text") + f" {' '.join(words)}").otherwise("text")
    rows = rows.with_columns(text=longer.over("context"), pair_id=pl.lit(None, pl.String))
    rows.filter(context="harmful").write_parquet(tmp_path / "own.parquet")
    rows.filter(context="harmless").with_columns(topic=pl.lit(None)).write_parquet(tmp_path / "other.parquet")
    source = Prompts(str(tmp_path / "own.parquet"), harmless=str(tmp_path / "other.parquet"))
    node = SafetyNeurons(source, effect="local", sites=("ffn",), top=0.02)
    return Recipe(sets={"ms": node}, permutations=99)


def test_the_null_stays_and_its_limits_are_said(two_kinds: Recipe) -> None:
    bench = Workbench(subject=load_subject("organism"), data=make_plan(two_kinds).data)
    found = robustness_of(bench, two_kinds, {"ms": two_kinds.sets["ms"]})
    assert found.nulls is not None
    assert found.apart == ("source", "topic")
    for said in ("come from different sources", "within classes of length alone"):
        assert sum(said in warning for warning in bench.warnings) == 1


@pytest.mark.parametrize(("topics", "prompts_of_each", "classes"), [(1, 32, 1), (1, 128, 4), (4, 64, 2), (6, 140, 4)])
def test_strata_are_not_so_small_that_labels_stay_by_chance(topics: int, prompts_of_each: int, classes: int) -> None:
    """Labels at random, within topic and length: half of them stay, give or take little, whatever the number."""
    random, n = np.random.default_rng(0), topics * prompts_of_each
    frame = prompts([f"t{i % topics}" for i in range(n)], random.permutation([True, False] * (n // 2)).tolist())
    frame = frame.with_columns(tokens=pl.Series(random.integers(3, 40, n)))
    assert _within(frame, topics).n_unique() == classes
    found = retention_of(in_strata(frame.with_columns(within_topic=_within(frame, topics))))
    assert 0.49 < found < 0.55


def retention_of(frame: pl.DataFrame) -> float:
    labels, kept = draw_labels(frame, 200, 0)
    same = labels == frame["harmful"].to_numpy()
    return float(same[:, kept].mean())
