"""A model whose layers are on several devices measures what a whole one does."""

import dataclasses
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import two_devices
from accelerate.hooks import AlignDevicesHook
from tiny import FAMILIES, write_tiny
from two_devices import halves

from ssn_probe.errors import ModelError
from ssn_probe.model import loading
from ssn_probe.model.precision import computing_in
from ssn_probe.model.ranks import check_whole
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.tracing.capture import capture
from ssn_probe.tracing.divergence import read_texts
from ssn_probe.tracing.edits import amplification, carried_neurons, carrying, suppression
from ssn_probe.tracing.effects import (
    refusal_log_odds,
    score_ablation,
    score_final,
    score_final_ablation,
    score_local,
    score_refusal,
)
from ssn_probe.tracing.generate import greedy_tokens
from ssn_probe.tracing.means import mean_activations

from .test_divergence import NEURONS, TEXTS
from .test_effects import OPENINGS, PROMPTS

OFFLOADED = pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")


def spread(where: str, first: Any, second: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    whole = load_subject(where, device="cpu")
    return placed(where, halves(whole.model._module, whole.family, first, second), folder, monkeypatch)


def placed(where: str, devices: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    monkeypatch.setattr(loading, "spread_over", lambda: {"device_map": devices, "offload_folder": str(folder)})
    return load_subject(where, device="balanced", dtype="float32")


def patched(subject: Subject) -> dict[str, Any]:
    carry = carrying(NEURONS, "a run")
    return {"edits": carry, "carried": capture(subject, PROMPTS[::-1], carried_neurons(carry), max_new_tokens=4)}


def divergence(subject: Subject, **how: Any) -> Any:
    return read_texts(subject, TEXTS, before=read_texts(subject, TEXTS).states, **how)


CANDIDATES: Any = NEURONS
SILENCED: dict[str, Any] = {"edits": suppression(NEURONS)}
LOUDER: dict[str, Any] = {"edits": amplification(NEURONS, 2.0)}
WORKS: dict[str, Callable[[Subject], Any]] = {
    "local": lambda subject: score_local(subject, PROMPTS),
    "refusal": lambda subject: score_refusal(subject, PROMPTS, OPENINGS),
    "final": lambda subject: score_final(subject, PROMPTS, probes=2),
    "final by ablation": lambda subject: score_final_ablation(subject, PROMPTS[2:], sites=("k", "ffn")),
    "ablation": lambda subject: score_ablation(subject, PROMPTS, OPENINGS, candidates=CANDIDATES),
    "odds": lambda subject: refusal_log_odds(subject, PROMPTS, OPENINGS, **SILENCED),
    "patched odds": lambda subject: refusal_log_odds(subject, PROMPTS, OPENINGS, **patched(subject)),
    "responses": lambda subject: greedy_tokens(subject, PROMPTS, max_new_tokens=4, **LOUDER),
    "patched responses": lambda subject: greedy_tokens(subject, PROMPTS, max_new_tokens=4, **patched(subject)),
    "KL": lambda subject: divergence(subject, **LOUDER),
    "patched KL": lambda subject: divergence(subject, **patched(subject)),
    "means": lambda subject: mean_activations(subject, PROMPTS),
}
"""Every kind of work."""


def tensors(found: Any) -> list[torch.Tensor]:
    if found is None or isinstance(found, torch.Tensor):
        return [] if found is None else [found]
    parts = vars(found).values() if dataclasses.is_dataclass(found) else found
    parts = parts.values() if isinstance(parts, dict) else parts
    return [torch.as_tensor(found)] if isinstance(found, int) else [one for part in parts for one in tensors(part)]


def compare(where: str, subject: Subject, rtol: float = 0, atol: float = 0) -> None:
    """To the last bit, unless a tolerance is given."""
    whole = load_subject(where, device="cpu", dtype="float32")
    assert subject.identity == whole.identity
    for name, run in WORKS.items():
        for one, two in zip(tensors(run(whole)), tensors(run(subject)), strict=True):
            said = partial("{}: {}".format, name)
            # Layers in several places run as a whole, on one device from the silenced neuron's layer on; what comes of
            # that is a step of half precision, in which effects are kept.
            step = 2**-10 * float(one.abs().max()) if "ablation" in name and one.numel() else 0.0
            torch.testing.assert_close(two, one, equal_nan=True, msg=said, rtol=rtol, atol=max(atol, step))


@OFFLOADED
@pytest.mark.parametrize("family", FAMILIES)
def test_layers_that_stay_on_the_disk_until_they_are_needed(
    tiny_folder: Callable[[str], Path], family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = str(tiny_folder(family))
    subject = spread(where, "cpu", "disk", tmp_path, monkeypatch)
    assert (subject.device, subject.place) == ("cpu", "cpu, disk")
    compare(where, subject)
    with pytest.raises(ModelError, match="needs the whole model on one device"):
        check_whole(subject, "Training")
    with pytest.raises(ModelError, match="some are fetched from elsewhere"), computing_in(subject, "float64"):
        pass


@OFFLOADED
def test_a_backward_pass_fetches_weights_again(
    tiny_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the forward pass is over, no offloaded weight is on the device any more."""
    subject = spread(str(tiny_folder("llama")), "cpu", "disk", tmp_path, monkeypatch)
    brought: list[Any] = []
    alive: list[int] = []
    leave, differentiate = AlignDevicesHook.post_forward, torch.autograd.grad

    def leaving(hook: Any, module: Any, output: Any) -> Any:
        if hook.offload:
            brought.extend(weakref.ref(weight.untyped_storage()) for weight in module.parameters(recurse=False))
        return leave(hook, module, output)

    def differentiating(*arguments: Any, **settings: Any) -> Any:
        alive.append(sum(one() is not None for one in brought))
        return differentiate(*arguments, **settings)

    monkeypatch.setattr(AlignDevicesHook, "post_forward", leaving)
    monkeypatch.setattr(torch.autograd, "grad", differentiating)
    score_refusal(subject, PROMPTS, OPENINGS)
    assert len(brought) > 10
    assert alive == [0, 0]


@OFFLOADED
def test_tied_weights_stay_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = str(write_tiny(tmp_path / "model", "qwen3", tie_word_embeddings=True))
    subject = spread(where, "cpu", "disk", tmp_path / "offloaded", monkeypatch)
    module = subject.model._module
    assert module.lm_head.weight is module.model.embed_tokens.weight
    compare(where, subject)


@OFFLOADED
def test_a_model_whose_first_weights_have_no_room_is_refused(
    tiny_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers and nnsight put prompts where the first weights are."""
    with pytest.raises(ModelError, match="do not fit on a device"):
        spread(str(tiny_folder("llama")), "disk", "cpu", tmp_path, monkeypatch)


@pytest.mark.slow
def test_layers_on_two_devices_of_which_every_tensor_must_be_on_one(tiny_folder: Callable[[str], Path]) -> None:
    folders = [str(tiny_folder(family)) for family in ("llama", "gemma2", "qwen3")]
    tests = Path(two_devices.__file__).parent
    known = os.pathsep.join((str(tests), *sys.path))
    run = subprocess.run(
        [sys.executable, two_devices.__file__, *folders],
        env={**os.environ, "PYTHONPATH": known},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert run.stdout == "True\n", run.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_layers_on_two_gpus(
    tiny_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = str(tiny_folder("llama"))
    subject = spread(where, 0, 1, tmp_path, monkeypatch)
    assert (subject.device, subject.place) == ("cuda:0", "cuda:0, cuda:1")
    compare(where, subject, rtol=1e-3, atol=1e-5)


def test_where_there_is_one_device_the_model_is_whole() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU beside the processor")
    assert load_subject("organism", device="balanced").place == "cpu"
