"""Under a host's autocast nothing of ours changes, and what arrives on another device than the activations is moved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ssn_probe.model.chat import whole_inputs
from ssn_probe.model.subject import load_subject
from ssn_probe.neurons import SITES
from ssn_probe.remote.packed import attempted
from ssn_probe.tracing import exact_effects
from ssn_probe.tracing.ablations import Neuron
from ssn_probe.tracing.batching import BatchSize
from ssn_probe.tracing.bodies.attention_form import allowed_pairs, score_effects
from ssn_probe.tracing.bodies.closed_form import linear_effects, unit_vectors, value_effects
from ssn_probe.tracing.bodies.local import measure_weights, trace_local_effects
from ssn_probe.tracing.bodies.next_tokens import divergence, surprisal
from ssn_probe.tracing.bodies.refusal import along, log_odds, trace_refusal_effects
from ssn_probe.tracing.bodies.site_access import change
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.readout import forced, forced_inputs

from ..test_effects import OPENINGS, PROMPTS

B, T, GROUPS, REP, SIZE = 2, 5, 2, 2, 4
WIDTH = GROUPS * REP * SIZE


def flat(found: Any) -> list[torch.Tensor]:
    if isinstance(found, torch.Tensor):
        return [found]
    return [tensor for part in (found.values() if isinstance(found, dict) else found) for tensor in flat(part)]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_call_is_computed_outside_autocast(dtype: str) -> None:
    """To the last bit, forward and backward. NDIF runs jobs under autocast of half-precision models on a GPU."""
    subject = load_subject("organism", dtype=dtype)
    places, forcing = places_of(subject), forced(OPENINGS, subject.vocabulary)
    known = measure_weights(subject.model, places)
    calls = [
        (trace_local_effects, (whole_inputs(subject, PROMPTS), places, known, "mean")),
        (trace_refusal_effects, (forced_inputs(subject, PROMPTS, forcing), places, forcing.scoring, 0.5, 0.05)),
    ]
    for body, arguments in calls:
        wanted = flat(body(subject.model, *arguments))
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            _seconds, found, failure = attempted(body, subject.model, arguments)
        assert failure is None
        assert all(one.equal(other) for one, other in zip(flat(found), wanted, strict=True))


def there(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta", dtype=torch.bfloat16)


def test_changes_that_arrive_on_the_cpu() -> None:
    """Here and below another device is the meta device: where it meets the CPU most operations fail, as on a GPU."""
    index, values = torch.tensor([1, 3]), torch.ones(2)
    change(there(B, T, 8), index, "set", values)
    change(there(B, T, 8), index, "scale", 2.0)
    carried = {"values": torch.ones(B, 3, 2), "steps": torch.tensor([1, 2]), "token": torch.tensor([-1, -2])}
    change(there(B, T, 8), index, "carry", carried)
    change(there(B, T, 8), index, "carry along", carried)


@pytest.mark.parametrize("together", [False, True])
def test_scores_of_what_arrives_on_the_cpu(together: bool) -> None:
    weight = torch.ones(B, T, dtype=torch.float64)
    known = {"gram": torch.ones(GROUPS, REP, SIZE, REP, SIZE), "matrix": torch.ones(8, WIDTH)}
    seen = {site: there(B, T, WIDTH if site == "q" else GROUPS * SIZE) for site in "qkv"}
    seen |= {f"{site}_normed": seen[site] for site in "qk"} | {"heads": (GROUPS, REP, SIZE), "together": together}
    seen |= {"cos": torch.ones(1, T, 2), "sin": torch.ones(1, T, 2), "rotation": "pairs", "turned": True}
    seen |= {"eps": 1e-6 if together else None, "scale": 0.5, "cap": 3.0, "growth": torch.ones(1, T)}
    seen |= {"pairs": allowed_pairs(None, torch.ones(B, T))}
    found = score_effects(seen, known, weight, ("q", "k"))
    found["o"] = linear_effects(there(B, T, WIDTH), torch.ones(WIDTH), weight)
    found["v"] = value_effects(there(B, T, WIDTH), torch.ones(GROUPS, SIZE, REP, REP), weight)
    assert {site: effect.device.type for site, effect in found.items()} == dict.fromkeys("qkov", "meta")


def test_read_outs_of_what_arrives_on_the_cpu() -> None:
    forcing = forced(OPENINGS, 40)
    sequences = forcing.scoring["sequences"]
    assert log_odds(there(B * sequences, forcing.kept, 40), forcing.scoring).device.type == "meta"
    assert along(there(B, T, 8), [0.5] * 8).device.type == "meta"
    head = torch.nn.Linear(8, 40, bias=False).to("meta", torch.bfloat16)
    form = (1.0, None, 40)
    assert surprisal(there(B, 8), torch.tensor([3, 4]), head, form).device.type == "meta"
    assert divergence(there(B, 8), there(B, 8), head, form).device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_effects_on_a_gpu_equal_those_here(tiny_folder: Callable[[str], Path]) -> None:
    """With inputs and weights that arrive on the CPU, and under the host's autocast."""
    here = load_subject(str(tiny_folder("qwen3")), dtype="float32", device="cpu")
    places = places_of(here)
    known = measure_weights(here.model, places)
    wanted = trace_local_effects(here.model, whole_inputs(here, PROMPTS), places, known, "mean")
    gpu = load_subject(here.path, dtype="float32", device="cuda")
    with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
        arguments = (whole_inputs(gpu, PROMPTS), places, known, "mean")
        _seconds, found, failure = attempted(trace_local_effects, gpu.model, arguments)
    assert failure is None
    assert found is not None
    for site in SITES:
        gap = (found[site][0].cpu().float() - wanted[site][0].float()).abs().max()
        assert gap < 2**-9, site


def test_results_of_brute_force_leave_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that claim to be on a GPU: what would mix devices raises."""
    subject = load_subject("organism", device="cpu")
    monkeypatch.setattr(
        exact_effects, "run_body", lambda _subject, _body, inputs, *_: gpu(len(inputs["input_ids"]) - 1)
    )
    every: list[Neuron] = [(layer, site, 1) for layer in range(2) for site in SITES]
    with FakeTensorMode():
        found, _ = exact_effects._whole_states(subject, PROMPTS[0], every, None, BatchSize(1000))
    assert (found.device.type, found.shape) == ("cpu", (1, len(every)))


def gpu(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="cuda")


def test_unit_vectors_are_small() -> None:
    found = unit_vectors(3, 7, 10, torch.float32)
    assert found.flip(0).equal(torch.eye(10)[3:7])
    assert found.untyped_storage().nbytes() == 4 * 13
