"""What `show` says of memory: of a model without weights here, and of one that is spread over GPUs."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_module

from ssn_probe.errors import ModelError
from ssn_probe.model.placement import memory_beside
from ssn_probe.model.subject import load_subject
from ssn_probe.spec import ASR, Prompts, Recipe, SafetyNeurons, Suppress
from ssn_probe.study.forecast import forecast


@pytest.mark.parametrize(("dtype", "width"), [("bfloat16", 2), ("float16", 2), ("float32", 4)])
def test_a_folder_without_weights_shows_what_they_would_take(
    tiny_folder: Callable[[str], Path], tmp_path: Path, dtype: str, width: int
) -> None:
    folder = Path(shutil.copytree(tiny_folder("gemma3"), tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["dtype"] = dtype
    (folder / "config.json").write_text(json.dumps(config | {"dtype": dtype}), encoding="utf-8")
    prompts = Prompts("lighthouses")
    recipe = Recipe(arms={"ss": Suppress(SafetyNeurons(prompts))}, measures=(ASR(prompts),), model=str(folder))
    lines = forecast(recipe, out=tmp_path / "results", calibrated=True).lines
    parameters = sum(weight.numel() for weight in tiny_module("gemma3").parameters())
    said = re.search(r"weights (\d+) kB", " ".join(lines))
    assert said is not None
    assert -0.5 <= int(said[1]) - width * parameters / 1000 < 1.5  # buffers, and rounding
    assert any("the weights are not on this machine" in line for line in lines)
    with pytest.raises(ModelError, match="has no"):
        load_subject(str(folder))


def test_of_a_spread_model_every_gpu_holds_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {0: 80, 1: 48, "cuda:0": 80}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda name: SimpleNamespace(total_memory=cards[name]))
    assert memory_beside(61, "balanced", 24) == (48, 31, 2)
    assert memory_beside(61, "cuda:0", 24) == (80, 61, 1)
    assert memory_beside(61, "cpu", 24) == (24, 61, 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert memory_beside(600, "balanced", 24) == (80, 72, 1), "the rest waits in the processor's memory"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert memory_beside(600, "balanced", 24) == (24, 600, 0)
