"""On a GPU every family gives the numbers that it gives on the CPU: effects, log-odds, responses, training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import training_case
from tiny import FAMILIES

from ssn_probe.model.precision import computing_in
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES
from ssn_probe.tracing.batching import BatchSize
from ssn_probe.tracing.capture import capture
from ssn_probe.tracing.edits import amplification, carried_neurons, carrying, suppression
from ssn_probe.tracing.effects import (
    Scores,
    decode,
    refusal_log_odds,
    score_ablation,
    score_final,
    score_final_ablation,
    score_local,
    score_refusal,
)
from ssn_probe.tracing.generate import greedy_tokens
from ssn_probe.training.export.merging import written

from .test_effects import OPENINGS, PROMPTS

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
Pair = tuple[Subject, Subject]
NEURONS = [(layer, site, index) for layer in (0, 1) for site in SITES for index in (1, 5, 7)]
EDITS = {
    "silenced": suppression(NEURONS),
    "amplified": amplification(NEURONS, 2.0),
    "carried over": carrying(NEURONS, "a run"),
}
SCORERS: dict[str, Callable[..., Scores]] = {
    "local": score_local,
    "final": score_final,
    "final by ablation": lambda subject, tokens, **rest: score_final_ablation(subject, tokens[2:], **rest),
    "refusal": lambda subject, tokens, **rest: score_refusal(subject, tokens, OPENINGS, **rest),
    "ablation": lambda subject, tokens, **rest: score_ablation(subject, tokens, OPENINGS, candidates=NEURONS, **rest),
}


@pytest.fixture(params=FAMILIES)
def pair(request: pytest.FixtureRequest, tiny_folder: Callable[[str], Path]) -> Pair:
    """A family's tiny model in single precision on the CPU, and on the GPU."""
    where = str(tiny_folder(request.param))
    here, there = (load_subject(where, dtype="float32", device=device) for device in ("cpu", "cuda"))
    return here, there


def carried(subject: Subject) -> Any:
    return capture(subject, PROMPTS[::-1], carried_neurons(EDITS["carried over"]), max_new_tokens=4)


def options(subject: Subject, name: str) -> dict[str, Any]:
    return {"edits": EDITS[name]} | ({"carried": carried(subject)} if name == "carried over" else {})


def test_models_stay_where_they_were_loaded(pair: Pair) -> None:
    for subject in pair:
        assert {weight.device.type for weight in subject.model._module.parameters()} == {subject.device}
    assert pair[0].identity == pair[1].identity


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=SCORERS)
def test_effects(pair: Pair, scorer: Callable[..., Scores]) -> None:
    wanted, found = (scorer(subject, PROMPTS) for subject in pair)
    for site in SITES:
        assert found.values[site].device.type == "cpu"
        scale = decode(wanted, site).abs().amax(-1, keepdim=True).clamp_min(1e-9)
        assert ((decode(found, site) - decode(wanted, site)) / scale).abs().max() < 2e-3, site


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("scorer", [SCORERS["local"], SCORERS["refusal"]], ids=["local", "refusal"])
def test_half_precision_weights_are_scored_in_float32_as_on_the_cpu(
    tiny_folder: Callable[[str], Path], dtype: str, scorer: Callable[..., Scores]
) -> None:
    pair = [load_subject(str(tiny_folder("llama")), dtype=dtype, device=device) for device in ("cpu", "cuda")]
    found = []
    for subject in pair:
        before = [weight.clone() for weight in subject.model._module.parameters()]
        with computing_in(subject, "float32") as wide:
            found.append(scorer(wide, PROMPTS))
        assert all(map(torch.equal, before, subject.model._module.parameters()))
    for site in SITES:
        here, there = (decode(scores, site) for scores in found)
        assert ((there - here) / here.abs().amax(-1, keepdim=True).clamp_min(1e-9)).abs().max() < 2e-3, site


@pytest.mark.parametrize("name", EDITS)
def test_log_odds_and_responses_under_edits(pair: Pair, name: str) -> None:
    wanted, found = (refusal_log_odds(subject, PROMPTS, OPENINGS, **options(subject, name)) for subject in pair)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    wanted, found = (greedy_tokens(subject, PROMPTS, max_new_tokens=6, **options(subject, name)) for subject in pair)
    assert found == wanted


def test_batches_that_do_not_fit_are_halved(pair: Pair) -> None:
    _, there = pair
    tokens, size = PROMPTS * 3000, BatchSize(9000, auto=True)
    wanted = refusal_log_odds(there, tokens, OPENINGS, batch_size=300)
    torch.cuda.empty_cache()
    most = torch.cuda.memory_reserved() + 64 * 2**20
    torch.cuda.set_per_process_memory_fraction(most / torch.cuda.get_device_properties(0).total_memory)
    try:
        found = refusal_log_odds(there, tokens, OPENINGS, batch_size=size)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert size.size < 9000
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("adapter", ["neurons", "lora"])
def test_training(adapter: str) -> None:
    here, there = training_case.llama(), training_case.llama().to("cuda")
    before = training_case.copies(there)
    wanted, found = (training_case.quick(module, adapter=adapter) for module in (here, there))
    assert training_case.same(before, there)
    assert [step.loss for step in found.history] == pytest.approx([step.loss for step in wanted.history], rel=1e-4)
    with written(here, wanted.last), written(there, found.last), torch.no_grad():
        ids = torch.arange(6, 62)[None]
        torch.testing.assert_close(there(ids.cuda()).logits.cpu(), here(ids).logits, rtol=1e-3, atol=1e-3)
    assert training_case.same(before, there)
