"""`ssn-probe delta train`: what it writes and says, what it refuses, and that nothing is lost where it stops."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from delta_command_case import SETTINGS, done, prepare, refused, run, same, write_data, write_neurons
from tiny import tiny_tokenizer
from training_case import NEURONS, changes, limit_memory, settings

from ssn_probe.api import delta_training
from ssn_probe.api.delta_training import Job, chosen_neurons
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.data.training_rows import safety_data
from ssn_probe.model.out_of_memory import OutOfMemory, fitting
from ssn_probe.spec import Prompts
from ssn_probe.spec.training_settings import Training
from ssn_probe.training.delta_file.file import read_delta
from ssn_probe.training.export.conversion import load_plain
from ssn_probe.training.loop import training_progress
from ssn_probe.training.loop import training_steps as steps
from ssn_probe.training.loop.resuming import FILE, Step
from ssn_probe.training.loop.train import train


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Callable[[str], Path]) -> None:
    """Every command is short, and its lines are not wrapped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    prepare(tmp_path, tiny_folder("llama"))


# ── what it writes and says ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_file_is_what_training_gives_and_all_that_is_left() -> None:
    shown, before = done(run("--contexts", "harmful,harmless", out="new/d.safetensors")), sorted(Path().iterdir())
    file = read_delta(Path("new/d.safetensors"))
    data = safety_data(load_prompts(Prompts("data")), contexts=("harmful", "harmless"))
    module = load_plain("./model", "float32").module
    found = train(module, tiny_tokenizer(), NEURONS, data, Training(**SETTINGS), eos_ids=(2,))
    ours = {part.module: part.change for part in file.rows.parts}
    assert all(torch.equal(change, ours[name]) for name, change in changes(found).items())
    assert dict(file.about["data"]) == found.record["data"]
    assert (file.about["base"]["name"], file.about["neurons"]) == ("./model", "n.csv")
    assert [path.name for path in Path("new").iterdir()] == ["d.safetensors"]
    assert [path.name for path in before] == ["data", "model", "n.csv", "new"]
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line}
    parameters = sum(change.numel() for change in changes(found).values())
    assert rows["all"][2:4] == [str(len(NEURONS)), f"{parameters:,}"]
    assert float(rows["all"][4]) == pytest.approx(100 * parameters / sum(p.numel() for p in module.parameters()), 1e-3)
    assert f"6 of 6, the delta of step {found.chosen_step}" in shown
    loss = found.record["held_out_loss"]
    assert f"loss {loss['base']:.4f} before, {loss['chosen']:.4f} after" in shown
    assert "ASR on held-out harmful rows" in shown
    assert "training: 30 prompts" in shown
    assert "Written to new/d.safetensors." in shown


def test_without_held_out_rows_there_is_no_probe() -> None:
    shown = done(run("--held-out", "0", "--languages", "qab"))
    assert "ASR" not in shown
    assert ["held", "out", "nothing"] in [line.split() for line in shown.splitlines()]
    assert list(read_delta(Path("d")).about["data"]["rows"]) == ["qab"]


def test_a_training_that_stops_early_is_complete() -> None:
    shown = done(run("--steps", "40", "--evaluate-every", "1", "--lr", "0.9"))
    steps_done = read_delta(Path("d")).about["steps"]["done"]
    assert steps_done < 40
    assert f"training: {5 * steps_done} prompts" in shown
    assert "Stopped early" in shown


def test_how_training_goes_in_words() -> None:
    assert training_progress.figures(Step(step=1, total=2, loss=0.41249)) == {"loss": "loss 0.412"}
    measured = training_progress.figures(Step(step=0, total=2, held_out=0.3876, probe=0.123))
    assert list(measured.values()) == ["held out 0.388", "ASR probe 12 %"]
    assert training_progress.figures(Step(step=0, total=2, probe=math.nan)) == {"probe": "ASR probe –"}


def test_the_organism(tmp_path: Path) -> None:
    write_neurons(Path("o.csv"), [(0, "ffn", 1), (1, "ffn", 3), (1, "q", 3)])
    shown = done(run("--lr", "0.05", "--steps", "2", neurons="o.csv", model="organism", data="organism"))
    assert "ASR probe" in shown
    loss = read_delta(Path("d")).about["held_out_loss"]
    assert loss["chosen"] < loss["base"]


def job(path: str, **options: Any) -> Job:
    return Job(neurons=Path(path), model="m", data="d", out=Path("d"), training=settings(), **options)


def test_which_neurons_are_trained() -> None:
    some = "\nqab,1,q,7\nqab,0,ffn,2\nqaa,0,ffn,2\n"
    Path("several.csv").write_text(f"language,layer,site,index{some}", encoding="utf-8")
    assert chosen_neurons(job("several.csv", language="qaa")) == ([(0, "ffn", 2)], "several.csv, those of qaa")
    assert sorted(chosen_neurons(job("several.csv", language="qab"))[0]) == [(0, "ffn", 2), (1, "q", 7)]
    either, said = chosen_neurons(job("several.csv", union=True))
    assert (sorted(either), said) == ([(0, "ffn", 2), (1, "q", 7)], "several.csv, those of any language")
    write_neurons(Path("one.csv"), [(0, "ffn", 2)], "qab")
    assert chosen_neurons(job("one.csv")) == ([(0, "ffn", 2)], "one.csv, those of qab")
    assert sorted(chosen_neurons(job("n.csv"))[0]) == sorted(NEURONS)


# ── what it refuses ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_neurons_that_cannot_be_trained() -> None:
    for content, *words in (
        ("", "cannot read the neuron file bad.csv", "parquet or csv"),
        ("language,layer,site,index\n", "bad.csv has no neurons"),
        (
            "language,layer,site,index\nqaa,0,ffn,1\nqab,0,ffn,1\n",
            "different neurons for qaa, qab",
            "--language CODE",
            "--union",
        ),
        ("language,layer,site,index\n*,7,ffn,1\n", "no layer 7"),
        ("language,layer,site,index\n*,0,ffn,999\n", "999"),
    ):
        Path("bad.csv").write_text(content, encoding="utf-8")
        refused(run(neurons="bad.csv"), *words)
    refused(run(neurons="missing.csv"), "missing.csv")
    write_neurons(Path("one.csv"), language="qaa")
    refused(run("--language", "qax", neurons="one.csv"), "no language 'qax'", "Did you mean 'qaa'?")
    refused(run("--language", "qaa", "--union"), "both --language and --union")


def test_data_that_cannot_be_learned() -> None:
    write_data(Path("silent"), reference="")
    refused(run(data="silent"), "have no response", "reference")
    write_data(Path("unsafe"), reference="w1")
    refused(run(data="unsafe"), "do not fit their request", "Nothing was trained")
    part_of_the_data("half", (pl.col("split") != "train") | (pl.col("language") == "qaa"))
    refused(run(data="half"), "no harmful rows to train on in qab", "languages that have data")
    refused(run("--languages", "qax"), "no language 'qax'")
    refused(run("--languages", ","), "no language to train on")
    refused(run("--contexts", "harmless"), "trained on harmless rows alone")
    refused(run("--contexts", "harmfull"), "unknown context 'harmfull'", "Did you mean 'harmful'?")
    refused(run(data="missing"), "no prompt set")


def part_of_the_data(folder: str, rows: pl.Expr) -> None:
    Path(folder).mkdir()
    shutil.copy("data/dataset.json", folder)
    pl.read_ndjson("data/prompts.jsonl").filter(rows).write_ndjson(f"{folder}/prompts.jsonl")


def test_data_with_a_train_split_alone() -> None:
    part_of_the_data("train-only", pl.col("split") == "train")
    done(run(out="whole"))
    done(run(data="train-only"))
    assert same(read_delta(Path("d")), read_delta(Path("whole")))


def test_settings_that_make_no_sense() -> None:
    refused(run("--lr", "0"), "the learning rate is 0.0", "above 0")
    refused(run("--lr", "-1"), "the learning rate is -1.0")
    refused(run("--lr", "nan"), "Training.lr is nan", "finite number")
    refused(run("--steps", "0"), "steps is 0")
    refused(run("--held-out", "1"), "held_out is 1.0")
    assert run("--micro-batch", "0").exit_code == 2
    refused(run("--shard"), "several processes, but there is only one", "torchrun")


def test_models_that_cannot_be_trained() -> None:
    refused(run(model="./missing"), "no model folder")
    refused(run("--dtype", "float23"), "Unknown dtype 'float23'")
    refused(run("--device", "cuda:99"), "'cuda:99' cannot be used")


def test_no_file_is_written_over_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("thesis").write_text("mine", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(delta_training, "read_weights", None)  # it is refused before anything is loaded
        assert "thesis already exists" in run(out="thesis").stderr
        assert "data is a folder" in run("--overwrite", out="data").stderr
        assert "cannot write thesis/d" in run(out="thesis/d").stderr
        refused(run("--checkpoints", "thesis"), "cannot write thesis", "--checkpoints FOLDER")
    assert Path("thesis").read_text(encoding="utf-8") == "mine"
    done(run("--overwrite", out="thesis"))
    assert read_delta(Path("thesis")).about["method"] == "expand"


def test_a_loss_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = steps.response_loss
    monkeypatch.setattr(steps, "response_loss", lambda *given: loss(*given) * torch.nan)
    refused(run("--held-out", "0"), "The loss is nan at step 1 of 6")


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_little_memory_takes_fewer_rows_at_a_time_and_leaves_none_out(monkeypatch: pytest.MonkeyPatch) -> None:
    done(run(out="whole"))
    sizes = limit_memory(monkeypatch, 1)
    done(run())
    assert sizes[:3] == [5, 2, 1]
    for ours, theirs in zip(read_delta(Path("d")).rows.parts, read_delta(Path("whole")).rows.parts, strict=True):
        assert theirs.change.abs().max() > 1e-3
        assert (ours.change - theirs.change).abs().max() < 1e-6


def test_a_size_that_is_given_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = limit_memory(monkeypatch, 2)
    hints = "--micro-batch 1", "micro_batch=1", "--gradient-checkpointing", "gradient_checkpointing=True"
    refused(run("--micro-batch", "3"), "not enough memory", "with 3 rows", *hints)
    assert max(sizes) == 3


def test_memory_that_does_not_hold_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 0)
    refused(run(), "not enough memory", "Shorten the longest row", "--gradient-checkpointing")
    result = run("--gradient-checkpointing")
    refused(result, "Shorten the longest row")
    assert "--gradient-checkpointing" not in result.stderr


def test_fitting_starts_again_with_half_as_many() -> None:
    asked: list[int | None] = []

    def work(rows: int | None) -> str:
        asked.append(rows)
        if (rows or 12) > 3:
            raise OutOfMemory("full", "less", rows or 12)
        return "done"

    assert fitting(work, None, shrink=True) == "done"
    assert asked == [None, 6, 3]
    with pytest.raises(OutOfMemory):
        fitting(work, 8, shrink=False)
    assert asked[3:] == [8]


# ── where it stops ───────────────────────────────────────────────────────────────────────────────────────────────────


def stop_at(step: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = training_progress.figures

    def stops(done: Any) -> Any:
        if done.step == step:
            raise error
        return figures(done)

    monkeypatch.setattr(training_progress, "figures", stops)


def test_ctrl_c_loses_nothing_and_the_same_command_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    done(run(out="whole"))
    with monkeypatch.context() as patch:
        stop_at(4, KeyboardInterrupt(), patch)
        result = run()
        assert result.stderr == "Interrupted. The same command starts again: there is no checkpoint yet.\n"
        result = run("--checkpoint-every", 1)
    assert result.exit_code == 130
    assert result.stderr == "Interrupted. The same command continues from the last checkpoint.\n"
    assert not Path("d").exists()
    assert [path.name for path in Path("d.checkpoints").iterdir()] == [FILE]
    refused(run("--lr", "1e-4"), "belongs to another training")
    steps_seen: list[int] = []
    figures = training_progress.figures
    monkeypatch.setattr(training_progress, "figures", lambda step: steps_seen.append(step.step) or figures(step))
    shown = done(run("--checkpoint-every", 1))
    assert f"Continuing from d.checkpoints/{FILE}." in shown
    assert "training: 30 prompts" in shown
    assert steps_seen[0] > 1
    assert same(read_delta(Path("d")), read_delta(Path("whole")))
    assert not Path("d.checkpoints").exists()


def test_a_full_disk_at_the_end_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        with delta_training.disk_errors(Path("d")):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(delta_training, "write_delta", fails)
        refused(run(), "No space left", "The disk is full")
    with monkeypatch.context() as patch:
        patch.setattr(steps, "response_loss", None)  # nothing is trained again
        done(run())
    assert read_delta(Path("d")).about["steps"]["done"] == 6


def test_a_folder_of_ones_own_is_kept() -> None:
    done(run("--checkpoints", "mine"))
    assert [path.name for path in Path("mine").iterdir()] == [FILE]
    Path("d").unlink()
    Path("mine", FILE).write_bytes(b"damaged")
    refused(run("--checkpoints", "mine"), "cannot be read", "Remove it")
