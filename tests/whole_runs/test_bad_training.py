"""What cannot be trained, through a whole run: one error that names the fix, and nothing lost."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from prompt_rows import organism_set
from rich.console import Console
from training_case import limit_memory

from ssn_probe import (
    ASR,
    Expand,
    NeST,
    NeuronFile,
    ProbedNeurons,
    Prompts,
    Recipe,
    SafetyNeurons,
    Shared,
    SparseEdit,
    Training,
)
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.errors import DataError, ModelError, RecipeError, SSNProbeError
from ssn_probe.runs.folder import read_json
from ssn_probe.spec import Trains
from ssn_probe.study.plan import make_plan
from ssn_probe.training.loop import training_steps as steps

PROMPTS = Prompts("organism", languages=("qaa", "qab"), limit=24)
SS = Shared(SafetyNeurons(PROMPTS, top=0.01)).union()
QUICK = Training(lr=1e-3, steps=3, batch=8)


def study(arm: Trains) -> Recipe:
    quiet: dict[str, Any] = {"controls": 0, "log_odds_label_sets": 0, "permutations": 0, "half_samples": 0}
    return Recipe(arms={"x": arm}, measures=(ASR(PROMPTS),), name="bad", **quiet)


def run(arm: Trains, out: Path, **options: Any) -> Any:
    return run_recipe(study(arm), Options(out=out, **options), Console(quiet=True))


def data_with(folder: Path, change: pl.Expr | None = None, keep: pl.Expr | None = None) -> Prompts:
    """The organism's prompts in two languages, with other references or with fewer rows."""
    rows = load_prompts(PROMPTS).frame
    rows = rows if keep is None else rows.filter(keep)
    rows = rows if change is None else rows.with_columns(reference=change)
    return organism_set(folder, rows, languages=["qaa", "qab"])


TRAIN = pl.col("split") == "train"


def refused(arm: Trains, out: Path, kind: type[SSNProbeError], message: str, hint: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        run(arm, out)
    assert hint in (caught.value.hint or ""), caught.value.hint


def test_rows_that_cannot_be_learned(tmp_path: Path) -> None:
    """The first two leave a language out; the third would take safety away. Nothing is trained."""
    qab, answer = (
        TRAIN & (pl.col("language") == "qab"),
        load_prompts(PROMPTS).select("train", "harmless", "qaa")["reference"][0],
    )
    no_response = pl.when(qab).then(None).otherwise("reference")
    wrong = pl.when(TRAIN & (pl.col("context") == "harmful")).then(pl.lit(answer)).otherwise("reference")
    for name, changes, message, hint in (
        ("empty", {"change": no_response}, "have no response", "column `reference`"),
        ("missing", {"keep": ~qab}, "no harmful rows to train on in qab", "qaa"),
        ("unsafe", {"change": wrong}, "do not fit their request", "Nothing was trained"),
    ):
        arm = Expand(SS, data_with(tmp_path / name, **changes), training=QUICK)
        refused(arm, tmp_path / "results", DataError, message, hint)


PROBED, FEW = (
    ProbedNeurons(SafetyNeurons(PROMPTS, effect="peak", sites=("ffn",)), threshold=threshold).union()
    for threshold in (1.5, 2.5)
)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (Expand(SS, PROMPTS, training=replace(QUICK, held_out=0.99)), "of the harmful rows in qaa; harmless rows in"),
        (SparseEdit(PROBED, PROMPTS, contexts=("harmful",)), "no harmless prompts to learn"),
        (SparseEdit(PROBED, PROMPTS, languages=("qab",)), "both in the anchor qaa and in another language"),
        (SparseEdit(PROBED, PROMPTS, rank=25), "has rank 25, and there are 24 prompts to map"),
        (SparseEdit(PROBED, PROMPTS, languages=("qaa",)), "both in the anchor qaa and in another language"),
    ],
)
def test_too_few_rows_are_known_before_a_model_is_loaded(arm: Trains, message: str) -> None:
    with pytest.raises((DataError, RecipeError), match=message):
        make_plan(study(arm))


def test_a_language_of_which_all_rows_are_held_out_is_not_trained_without_a_word(tmp_path: Path) -> None:
    one = load_prompts(PROMPTS).select("train", "harmful", "qab")["prompt_id"][0]
    qab = TRAIN & (pl.col("language") == "qab") & (pl.col("context") == "harmful")
    few = data_with(tmp_path / "few", keep=~qab | (pl.col("prompt_id") == one))
    seeds = (Expand(SS, few, training=replace(QUICK, seed=seed)) for seed in range(200))
    messages = []
    for arm in seeds:
        try:
            make_plan(study(arm))
        except DataError as error:
            messages.append(error.message)
    assert 0 < len(messages) < 200
    assert all("none to learn are left of the harmful rows in qab" in message for message in messages)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (SparseEdit(FEW, PROMPTS, rank=24), "has rank 24, and the layer with most of its neurons has"),
        (SparseEdit(SS, PROMPTS, rank=1), "only feed-forward neurons can be changed"),
        (NeST(PROBED | SS, PROMPTS, training=QUICK), "only feed-forward neurons can be changed"),
    ],
)
def test_a_set_that_an_arm_cannot_change_is_known_before_anything_is_generated(
    arm: Trains, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        run(arm, tmp_path)
    assert not list(tmp_path.glob("*_bad_*/samples.parquet"))


def test_float16_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Training in float16"):
        run(Expand(SS, PROMPTS, training=QUICK), tmp_path, dtype="float16")
    assert not list(tmp_path.glob("*_bad_*"))


def test_a_language_that_the_data_do_not_have(tmp_path: Path) -> None:
    arm = Expand(SS, PROMPTS, training=QUICK, languages=("qaa", "qax"))
    refused(arm, tmp_path, RecipeError, "unknown language 'qax'", "Did you mean")


def test_neurons_of_another_model(tmp_path: Path) -> None:
    (tmp_path / "big.csv").write_text("language,layer,site,index\n*,0,ffn,9999\n", encoding="utf-8")
    arm = Expand(NeuronFile(str(tmp_path / "big.csv")), PROMPTS, training=QUICK)
    refused(arm, tmp_path / "results", RecipeError, "does not have", "a different model")


def test_a_loss_that_is_not_finite_stops_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's record says it, the base is untouched, and the same recipe runs once the cause is gone."""
    whole, calls = steps.response_loss, []

    def broken(*given: Any) -> torch.Tensor:
        calls.append(1)
        return whole(*given) * (float("nan") if len(calls) > 3 else 1.0)

    monkeypatch.setattr(steps, "response_loss", broken)
    arm = Expand(SS, PROMPTS, training=QUICK)
    refused(arm, tmp_path, ModelError, "loss is nan at step", "Lower lr")
    (folder,) = [path for path in tmp_path.iterdir() if path.name.endswith("bad") or "_bad_" in path.name]
    manifest = read_json(folder / "manifest.json")
    assert manifest["status"] == "failed"
    assert "loss is nan" in manifest["error"]
    monkeypatch.setattr(steps, "response_loss", whole)
    assert run(arm, tmp_path).manifest()["status"] == "done"


@pytest.mark.slow
def test_little_memory_takes_fewer_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = Expand(SS, PROMPTS, training=QUICK)
    whole = run(arm, tmp_path / "whole").table("training")
    sizes = limit_memory(monkeypatch, 2)
    halved = run(arm, tmp_path / "halved").table("training")
    assert max(sizes) == 8
    assert halved["step"].to_list() == whole["step"].to_list()
    assert (halved["held_out"] - whole["held_out"]).abs().max() < 1e-5  # type: ignore[operator]


@pytest.mark.slow
def test_a_batch_size_that_is_given_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = limit_memory(monkeypatch, 2)
    with pytest.raises(ModelError, match="not enough memory") as caught:
        run(Expand(SS, PROMPTS, training=QUICK), tmp_path, batch_size=4, gradient_checkpointing=True)
    assert max(sizes) == 4
    assert "--batch-size 2" in (caught.value.hint or "")
    assert "--gradient-checkpointing" not in (caught.value.hint or ""), "it is in use already"
