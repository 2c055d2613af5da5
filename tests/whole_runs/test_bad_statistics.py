"""Data that cannot carry the statistics asked of them: a clear note in the report or an error, never a silent NaN."""

import json
from importlib.resources import files
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from ssn_probe import ASR, Prompts, Recipe, SafetyNeurons, Shared, Suppress
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.errors import DataError, RecipeError
from ssn_probe.runs.folder import RunFolder

ORGANISM = files("ssn_probe.organism") / "data"
LANGUAGES = ("qaa", "qab")


def folder(path: Path, ids: int, **columns: pl.Expr) -> Path:
    """The organism's prompts: `ids` a split and context, in two languages, with some columns changed."""
    frame = pl.read_parquet(ORGANISM / "prompts.parquet", glob=False).filter(pl.col("language").is_in(LANGUAGES))
    number = pl.col("prompt_id").rank("dense").over("split", "context", "language")
    path.mkdir(exist_ok=True)
    frame.filter(number <= ids).with_columns(**columns).write_parquet(path / "prompts.parquet")
    card = json.loads((ORGANISM / "dataset.json").read_text(encoding="utf-8")) | {"languages": list(LANGUAGES)}
    (path / "dataset.json").write_text(json.dumps(card), encoding="utf-8")
    return path


def run(data: Path, *, arms: bool = False, **fields) -> tuple[RunFolder, str]:
    prompts = Prompts(str(data))
    ms = SafetyNeurons(prompts, effect="local", sites=("ffn", "o"), top=fields.pop("top", 0.02))
    what = (
        {"arms": {"ss": Suppress(ms)}, "measures": (ASR(prompts),), "primary": "ss"} if arms else {"sets": {"ms": ms}}
    )
    small = {"controls": 0, "log_odds_controls": 0, "permutations": 99, "half_samples": 4}
    found = run_recipe(Recipe(**what, **(small | fields)), Options(out=data / "out"), Console(quiet=True))
    for table in found.path.glob("*.parquet"):
        for column in pl.read_parquet(table).select(pl.col(pl.Float64)).iter_columns():
            assert not column.is_nan().any(), (table.name, column.name)
    text = (found.path / "report.md").read_text(encoding="utf-8")
    assert "nan" not in text.lower().split()
    return found, text


def notes(found: RunFolder) -> str:
    return "\n".join(found.manifest()["warnings"])


def test_too_few_prompts_for_a_permutation_test(tmp_path: Path) -> None:
    found, text = run(folder(tmp_path / "few", 2, pair_id=pl.lit(None, pl.String)))
    assert "no permutation null: too few prompts for a permutation test" in notes(found)
    assert "no permutation null" in text


def test_a_single_cluster(tmp_path: Path) -> None:
    found, _ = run(folder(tmp_path / "one", 12, cluster=pl.col("split"), pair_id=pl.lit(None, pl.String)), arms=True)
    assert "no permutation null" in notes(found)
    assert "one cluster" in notes(found)


def test_identical_prompts(tmp_path: Path) -> None:
    same = pl.col("text").first().over("split", "context", "language")
    found, text = run(folder(tmp_path / "same", 12, text=same))
    assert "12 prompts" in notes(found)
    assert "repeated prompts are no new evidence" in text.replace("\\", "")


def test_constant_scores(tmp_path: Path) -> None:
    """Harmful and harmless prompts alike: no neuron differs, so none is chosen, and the error says so."""
    alike = pl.col("text").first().over("split", "language")
    with pytest.raises((DataError, RecipeError), match="no neuron of qaa passes"):
        run(folder(tmp_path / "alike", 12, text=pl.when(pl.col("split") == "identify").then(alike).otherwise("text")))


def test_only_refusals_and_no_refusals_at_baseline(tmp_path: Path) -> None:
    """The anchor refuses everything; where the judge sees no refusal there is nothing left to break."""
    found, _ = run(folder(tmp_path / "all", 30), arms=True)
    assert "qaa" in notes(found)
    assert "refuse" in notes(found)
    data = folder(tmp_path / "none", 30)
    card = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    card["judge"] |= {"refused": {one: "(?!)" for one in LANGUAGES}, "complied": {one: ".*" for one in LANGUAGES}}
    (data / "dataset.json").write_text(json.dumps(card), encoding="utf-8")
    found, _ = run(data, arms=True)
    summary = found.table("summary")
    assert summary.filter(arm="baseline", measure="asr")["value"].to_list() == [1.0] * 3
    assert "no refusal left to break" in notes(found)


def test_controls_that_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no random control can be drawn"):
        run(folder(tmp_path / "large", 12), arms=True, top=0.9, controls=3)


def test_topics_that_have_one_label_only(tmp_path: Path) -> None:
    found, text = run(folder(tmp_path / "topics", 12, topic=pl.col("context"), pair_id=pl.lit(None, pl.String)))
    assert "no permutation null" in notes(found)
    assert "What chance gives" not in text


def test_a_shared_set_of_nothing_is_an_error_that_names_the_scores(tmp_path: Path) -> None:
    prompts = Prompts(str(folder(tmp_path / "narrow", 12)))
    narrow = SafetyNeurons(prompts, effect="local", sites=("q",), top=0.001, rule="paper")
    with pytest.raises(DataError):
        run_recipe(Recipe(sets={"ss": Shared(narrow)}), Options(out=tmp_path / "out"), Console(quiet=True))
