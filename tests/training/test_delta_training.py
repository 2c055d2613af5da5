"""`ssn-probe delta train`: what it writes and says, what it refuses, and that nothing is lost where it stops."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from delta_command_case import SETTINGS, done, refused, run, write_data, write_neurons
from tiny import tiny_tokenizer
from training_case import NEURONS, equal, limit_memory, settings

from ssn_probe.api import delta_training
from ssn_probe.api.delta_training import Job, chosen_neurons
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.data.training_rows import safety_data
from ssn_probe.spec import Prompts
from ssn_probe.spec.training_settings import Training
from ssn_probe.training.delta_file.file import read_delta
from ssn_probe.training.export.conversion import load_plain
from ssn_probe.training.loop import training_progress
from ssn_probe.training.loop import training_steps as steps
from ssn_probe.training.loop.resuming import FILE, Step
from ssn_probe.training.loop.train import train

pytestmark = pytest.mark.usefixtures("prepared")

# ── what it writes and says ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_file_is_what_training_gives_and_all_that_is_left() -> None:
    shown, before = done(run("--contexts", "harmful,harmless", out="new/d.safetensors")), sorted(Path().iterdir())
    file = read_delta(Path("new/d.safetensors"))
    data = safety_data(load_prompts(Prompts("data")), contexts=("harmful", "harmless"))
    module = load_plain("./model", "float32").module
    found = train(module, tiny_tokenizer(), NEURONS, data, Training(**SETTINGS), eos_ids=(2,))
    assert equal(file.delta, found.delta)
    assert dict(file.about["data"]) == found.record["data"]
    assert (file.about["base"]["name"], file.about["neurons"]) == ("./model", "n.csv")
    assert [path.name for path in Path("new").iterdir()] == ["d.safetensors"]
    assert [path.name for path in before] == ["data", "model", "n.csv", "new"]
    assert f"6 of 6, the delta of step {found.chosen_step}" in shown
    assert "ASR on held-out harmful rows" in shown
    assert "training: 30 prompts" in shown
    assert "Written to new/d.safetensors." in shown


def test_without_held_out_rows_there_is_no_probe() -> None:
    shown = done(run("--held-out", "0", "--languages", "qab"))
    assert "ASR" not in shown
    assert ["held", "out", "nothing"] in [line.split() for line in shown.splitlines()]
    assert list(read_delta(Path("d")).about["data"]["rows"]) == ["qab"]


def test_a_base_without_a_chat_template_is_trained_in_the_plain_form() -> None:
    shutil.copytree("model", "base")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained("base")
    Path("base/chat_template.jinja").unlink(missing_ok=True)
    refused(run(model="./base"), "no chat template", "--chat plain")
    shown = done(run("--chat", "plain", "--system", "w50", "--held-out", "0", model="./base"))
    assert "asked in the plain form" in " ".join(shown.split())
    assert read_delta(Path("d")).about["asked"] == {"system_prompt": "w50", "chat": "plain"}
    assert load_plain("./base", "float32").tokenizer.chat_template is None, "to merge it, nothing is asked"


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
    head = "language,layer,site,index\n"
    for content, *words in (
        ("", "cannot read bad.csv: it has no header"),
        (f"{head}qaa,0,ffn,1\nqab,0,ffn,1\n", "different neurons for qaa, qab", "--language CODE", "--union"),
        (f"{head}*,0,ffn,999\n", "999"),
    ):
        Path("bad.csv").write_text(content, encoding="utf-8")
        refused(run(neurons="bad.csv"), *words)
    write_neurons(Path("one.csv"), language="qaa")
    refused(run("--language", "qax", neurons="one.csv"), "no language 'qax'", "Did you mean 'qaa'?")
    refused(run("--language", "qaa", "--union"), "both --language and --union")


@pytest.mark.parametrize(
    ("options", "given", "words"),
    [
        ((), {"data": "unsafe"}, ["do not fit their request", "Nothing was trained"]),
        ((), {"data": "missing"}, ["no prompt set"]),
        ((), {"model": "./missing"}, ["no model folder"]),
        (("--languages", ","), {}, ["no language to train on"]),
        (("--contexts", ","), {}, ["no context to train on", "harmful, harmless, lookalike"]),
        (("--contexts", "harmless"), {}, ["trained on harmless rows alone"]),
        (("--lr", "nan"), {}, ["Training.lr is nan", "finite number"]),
        (("--shard",), {}, ["several processes, but there is only one", "torchrun"]),
        (("--dtype", "float23"), {}, ["Unknown dtype 'float23'"]),
        (("--device", "cuda:99"), {}, ["'cuda:99' cannot be used"]),
    ],
    ids=str,
)
def test_what_cannot_be_trained(options: tuple[str, ...], given: dict[str, str], words: list[str]) -> None:
    write_data(Path("unsafe"), reference="w1")
    refused(run(*options, **given), *words)


def test_data_without_a_judge_are_checked_by_one_that_is_named() -> None:
    card = json.loads(Path("data/dataset.json").read_text(encoding="utf-8"))
    del card["judge"]
    Path("data/dataset.json").write_text(json.dumps(card), encoding="utf-8")
    refused(run(), "has no judge", "--judge phrases")
    said = "def none(rows):\n    return ['complied'] * len(rows)\n\n\ndef w0(rows):\n"
    said += "    return ['refused' if 'w0' in row.response.split() else 'complied' for row in rows]\n"
    Path("judge.py").write_text(said, encoding="utf-8")
    refused(run("--judge", "python:judge.py@none"), "complied")
    done(run("--judge", "python:judge.py@w0"))
    assert "w0" in read_delta(Path("d")).about["data"]["judge"]


def test_data_with_a_train_split_alone() -> None:
    Path("train-only").mkdir()
    shutil.copy("data/dataset.json", "train-only")
    pl.read_ndjson("data/prompts.jsonl").filter(split="train").write_ndjson("train-only/prompts.jsonl")
    done(run(out="whole"))
    done(run(data="train-only"))
    assert equal(read_delta(Path("d")).delta, read_delta(Path("whole")).delta)


def test_no_file_is_written_over_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("thesis").write_text("mine", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(delta_training, "read_weights", None)  # it is refused before anything is loaded
        assert "thesis already exists" in run(out="thesis").stderr
        assert "data is a folder" in run("--overwrite", out="data").stderr
        refused(run(out="thesis/d"), "cannot write thesis/d: Not a directory", "another file with -o FILE")
        refused(run("--checkpoints", "thesis"), "cannot write thesis", "--checkpoints FOLDER")
    assert Path("thesis").read_text(encoding="utf-8") == "mine"
    done(run("--overwrite", out="thesis"))
    assert read_delta(Path("thesis")).about["method"] == "expand"


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_little_memory_takes_fewer_rows_at_a_time_and_leaves_none_out(monkeypatch: pytest.MonkeyPatch) -> None:
    done(run(out="whole"))
    sizes = limit_memory(monkeypatch, 1)
    done(run())
    assert sizes[:3] == [5, 2, 1]
    for ours, theirs in zip(read_delta(Path("d")).rows.parts, read_delta(Path("whole")).rows.parts, strict=True):
        assert theirs.change.abs().max() > 1e-3
        assert (ours.change - theirs.change).abs().max() < 1e-6


def test_memory_that_does_not_hold_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a size that is given is kept."""
    sizes = limit_memory(monkeypatch, 0)
    refused(run("--micro-batch", "3"), "with 3 rows", "--micro-batch 1")
    assert sizes == [3]
    refused(run(), "not enough memory", "Shorten the longest row", "--gradient-checkpointing")
    result = run("--gradient-checkpointing")
    refused(result, "Shorten the longest row")
    assert "--gradient-checkpointing" not in result.stderr


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
    assert equal(read_delta(Path("d")).delta, read_delta(Path("whole")).delta)
    assert not Path("d.checkpoints").exists()


def test_of_two_commands_that_write_one_file_one_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    figures, others = training_progress.figures, []

    def meanwhile(done: Any) -> Any:
        if done.step == 4:
            others.append(run("--overwrite"))
        return figures(done)

    monkeypatch.setattr(training_progress, "figures", meanwhile)
    done(run("--checkpoint-every", 1))
    refused_out = others[0]
    assert refused_out.exit_code == 1
    assert "Another process is training, with its checkpoint in d.checkpoints." in refused_out.stderr
    assert "Wait for it, or choose another file with -o FILE." in refused_out.stderr
    assert not Path("d.checkpoints").exists()


def test_a_full_disk_at_the_end_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, elsewhere: str) -> None:
        with delta_training.disk_errors(Path("d"), elsewhere):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(delta_training, "write_delta", fails)
        refused(run(), "No space left", "The disk is full", "another file with -o FILE")
    with monkeypatch.context() as patch:
        patch.setattr(steps, "response_loss", None)  # nothing is trained again
        done(run())
    assert read_delta(Path("d")).about["steps"]["done"] == 6


def test_a_disk_too_full_for_a_checkpoint_is_told_which_option_moves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    refused(
        run(),
        f"cannot write d.checkpoints/{FILE}: No space left",
        "or choose another folder for the checkpoint",
        "--checkpoints FOLDER",
    )


def test_a_folder_of_ones_own_is_kept() -> None:
    done(run("--checkpoints", "mine"))
    assert [path.name for path in Path("mine").iterdir()] == [FILE]
    whole = read_delta(Path("d"))
    Path("d").unlink()
    Path("mine", FILE).write_bytes(b"damaged")
    output = done(run("--checkpoints", "mine"))
    assert "checkpoint.safetensors is damaged: the training starts again" in output
    assert "Continuing" not in output
    assert equal(read_delta(Path("d")).delta, whole.delta)
