"""`ssn-probe scores`: the effects of single prompts as one file, from which importances follow, and what it refuses."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as parquet
import pytest
from click.testing import CliRunner
from polars.testing import assert_frame_equal

from ssn_probe import Final, Placebo, Prompts, Recipe, Result, SafetyNeurons, Shared, run
from ssn_probe.api import score_export
from ssn_probe.cli.commands import main
from ssn_probe.errors import ResultError
from ssn_probe.runs.cache import FilePart
from ssn_probe.study import score_rows

PROMPTS = Prompts("organism", languages=("qaa", "qab"), limit=5)
LOCAL = SafetyNeurons(PROMPTS, effect="local", sites=("k", "ffn"))
NUMBERS: dict[str, Any] = {"permutations": 0, "half_samples": 0}
MEANS = ["language", "layer", "site", "index"]


def made(folder: Path, **sets: Any) -> Result:
    return run(Recipe(model="organism", sets=sets, **NUMBERS), out=folder, progress=False)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Two rules of the same effects, and one set of what they share."""
    harmful = SafetyNeurons(PROMPTS, effect="local", sites=("k", "ffn"), rule="harmful")
    return made(tmp_path_factory.mktemp("runs"), ms=LOCAL, harmful=harmful, ss=Shared(LOCAL))


def scores_of(path: Path) -> pl.DataFrame:
    """The score of every neuron by the rule `difference`, from the table of single prompts."""
    mean = pl.scan_parquet(path).group_by(*MEANS, "context").agg(pl.col("effect").cast(pl.Float64).mean()).collect()
    return mean.pivot("context", index=MEANS, values="effect").with_columns(mine=pl.col("harmful") - pl.col("harmless"))


def test_importances_follow_from_it(result: Result, tmp_path: Path) -> None:
    path = result.export_scores(tmp_path / "scores.parquet")
    rows = pl.read_parquet(path)
    assert rows.schema == score_rows.COLUMNS
    assert rows.null_count().sum_horizontal().item() == 0
    assert rows.select("prompt_id", "context", *MEANS).is_unique().all()
    per_layer = result.manifest["neurons"]["per_layer"]
    neurons = result.manifest["neurons"]["layers"] * (per_layer["k"] + per_layer["ffn"])
    assert rows.height == 2 * 2 * 5 * neurons
    chosen = result.table("neurons").filter(set="ms").join(scores_of(path), on=MEANS, how="left")
    assert chosen.height
    assert (chosen["score"] - chosen["mine"]).abs().max() < 1e-6  # type: ignore[operator]


def test_batches_and_blocks_change_nothing_and_no_site_is_read_whole(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pl.read_parquet(result.export_scores(tmp_path / "whole.parquet"))
    read = FilePart.array

    def guarded(part: FilePart, name: str) -> Any:
        assert not name.startswith("values."), "all layers of a batch are in memory"
        return read(part, name)

    for module in (score_rows, score_export):
        monkeypatch.setattr(module, "ROWS", 600)
    monkeypatch.setattr(FilePart, "array", guarded)
    path = result.export_scores(tmp_path / "blocks.parquet")
    assert_frame_equal(pl.read_parquet(path), whole, check_row_order=False)
    file = parquet.ParquetFile(path)
    assert {file.metadata.row_group(n).num_rows for n in range(file.num_row_groups - 1)} <= set(range(1, 601))


def test_only_some_of_them_on_the_command_line(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "some.parquet"
    command = ["scores", result.path.name, str(path), "-o", str(result.path.parent)]
    done = CliRunner().invoke(main, [*command, "--set", "ss", "--language", "qab", "--context", "harmless"])
    assert done.exit_code == 0, done.output
    assert str(path) in done.output.replace("\n", "")
    rows = pl.read_parquet(path)
    assert set(rows["language"]) == {"qab"}
    assert set(rows["context"]) == {"harmless"}


def test_verified_neurons_have_their_exact_effects(tmp_path: Path) -> None:
    prompts = Prompts("organism", languages=("qaa",), limit=4)
    ms = SafetyNeurons(prompts, effect=Final(probes=2), sites=("o",), rule="harmful", verify=0.3)
    result = made(tmp_path / "runs", ms=ms)
    mine = scores_of(result.export_scores(tmp_path / "scores.parquet"))
    chosen = result.table("neurons").join(mine, on=MEANS, how="left")
    assert result.table("verification")["verified"].sum() > 0
    assert (chosen["score"] - chosen["harmful"]).abs().max() < 1e-6  # type: ignore[operator]


def test_what_cannot_be_exported(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    wrong: list[tuple[str, str, dict[str, Any]]] = [
        ("no set 'harmfull'", "harmful", {"name": "harmfull"}),
        ("no language 'qac'", "qab", {"languages": ["qac"]}),
        ("no context 'harm'", "harmful", {"contexts": ["harm"]}),
    ]
    for problem, hint, options in wrong:
        with pytest.raises(ResultError, match=problem) as error:
            result.export_scores(path, **options)
        assert hint in (error.value.hint or "")
    with pytest.raises(ResultError, match="cannot write scores to"):
        result.export_scores(tmp_path / "scores.csv")
    assert not list(tmp_path.iterdir())


def test_a_set_is_named_where_several_effects_were_measured(result: Result) -> None:
    other = SafetyNeurons(PROMPTS, effect="peak")
    recipe = Recipe(model="organism", sets={"ms": LOCAL, "peak": other, "both": LOCAL & other})
    with pytest.raises(ResultError, match="the run reads 2 different scores") as error:
        score_rows.scored_set(recipe)
    assert error.value.hint == "Name a set with --set: ms, peak."
    assert score_rows.scored_set(recipe, "peak") == other
    with pytest.raises(ResultError, match="the set 'both' reads 2"):
        score_rows.scored_set(recipe, "both")
    placebo = Recipe(
        model="organism", sets={"ms": LOCAL, "ss": SafetyNeurons(PROMPTS, effect="local", labels=Placebo())}
    )
    assert score_rows.scored_set(placebo, "ms") == LOCAL


def test_scores_that_the_cache_no_longer_holds(tmp_path: Path) -> None:
    result = made(tmp_path / "runs", ms=SafetyNeurons(PROMPTS, effect="peak", sites=("k",)))
    for part in (tmp_path / "runs" / "cache").glob("*/*.safetensors"):
        part.unlink()
    with pytest.raises(ResultError, match="does not hold all") as error:
        result.export_scores(tmp_path / "scores.parquet")
    assert "Run the recipe again" in (error.value.hint or "")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_what_stops_it_leaves_no_half_file(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = result.export_scores(tmp_path / "scores.parquet", languages=["qab"])
    before, frames = path.read_bytes(), score_rows.effect_frames

    def stopped(*args: Any) -> Iterator[pl.DataFrame]:
        yield next(frames(*args))
        raise error

    monkeypatch.setattr(score_export, "effect_frames", stopped)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ResultError
    with pytest.raises(expected) as raised:
        result.export_scores(path)
    assert expected is KeyboardInterrupt or "disk is full" in (getattr(raised.value, "hint", None) or "")
    assert [one.name for one in tmp_path.iterdir()] == ["scores.parquet"]
    assert path.read_bytes() == before
    if expected is KeyboardInterrupt:
        command = ["scores", str(result.path), str(path), "-o", str(result.path.parent)]
        done = CliRunner().invoke(main, command)
        assert (done.exit_code, "Nothing was written" in done.output) == (130, True)
