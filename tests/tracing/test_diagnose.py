"""NaN and Inf are named by layer and site, whoever meets them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from ssn_probe.errors import ModelError
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES
from ssn_probe.tracing.capture import capture
from ssn_probe.tracing.edits import suppression
from ssn_probe.tracing.effects import refusal_log_odds, score_final, score_final_ablation, score_local, score_refusal
from ssn_probe.tracing.generate import generate

from .test_effects import OPENINGS, PROMPTS, module_of

CAPTURED = [(layer, site, index) for layer in range(2) for site in SITES for index in (1, 6)]
RUNS: dict[str, Callable[[Subject], object]] = {
    "local": lambda subject: score_local(subject, PROMPTS),
    "refusal": lambda subject: score_refusal(subject, PROMPTS, OPENINGS),
    "final": lambda subject: score_final(subject, PROMPTS, probes=2),
    "final by ablation": lambda subject: score_final_ablation(subject, PROMPTS, sites=["k"]),
    "log odds": lambda subject: refusal_log_odds(subject, PROMPTS, OPENINGS),
    "capture": lambda subject: capture(subject, PROMPTS, CAPTURED),
    "capture of responses": lambda subject: capture(subject, PROMPTS, CAPTURED, max_new_tokens=3),
    "generate": lambda subject: generate(subject, PROMPTS, max_new_tokens=3),
}

NO_LOGITS = ("local", "final", "final by ablation", "capture")


@contextmanager
def broken(subject: Subject, path: str, value: float) -> Iterator[None]:
    """One weight of the model spoilt."""
    weight = module_of(subject).get_parameter(path)
    kept = weight[3, 3].item()
    weight[3, 3] = value
    try:
        yield
    finally:
        weight[3, 3] = kept


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("model.layers.1.self_attn.q_proj.weight", "site q of layer 1"),
        ("model.layers.0.self_attn.k_proj.weight", "site k of layer 0"),
        ("model.layers.1.self_attn.v_proj.weight", "site v of layer 1"),
        ("model.layers.0.mlp.up_proj.weight", "site ffn of layer 0"),
        ("model.layers.0.mlp.down_proj.weight", "site q of layer 1"),
        ("lm_head.weight", "the logits"),
    ],
)
def test_nan_is_named_by_layer_and_site(
    llama: Subject, run: Callable[[Subject], object], path: str, place: str
) -> None:
    with broken(llama, path, float("nan")):
        if path == "lm_head.weight" and run in [RUNS[name] for name in NO_LOGITS]:
            run(llama)  # none of them reads logits
            return
        with pytest.raises(ModelError, match=place):
            run(llama)


def test_infinity_is_named(llama: Subject) -> None:
    path = "model.layers.1.mlp.gate_proj.weight"
    with broken(llama, path, float("inf")), pytest.raises(ModelError, match="site ffn of layer 1"):
        score_local(llama, PROMPTS)


def test_what_overflows_in_half_precision_is_computed_in_a_wider_range(tiny_folder: Callable[[str], Path]) -> None:
    half, wide = (load_subject(str(tiny_folder("llama")), dtype=dtype) for dtype in ("float16", "bfloat16"))
    for subject in (half, wide):
        module_of(subject).model.layers[0].mlp.up_proj.weight.fill_(6e4)
    with pytest.raises(ModelError, match="site ffn of layer 0") as error:
        score_local(half, PROMPTS)
    assert error.value.hint == "float16 holds no number above 65,504: use --dtype bfloat16 or float32."
    assert torch.isfinite(score_local(wide, PROMPTS).scale["ffn"]).all()


def test_what_is_suppressed_does_not_count(llama: Subject) -> None:
    """With the spoilt neuron silenced, the model is sound, and runs."""
    with broken(llama, "model.layers.1.self_attn.v_proj.weight", float("nan")):
        edits = suppression([(1, "v", 3)])
        assert refusal_log_odds(llama, PROMPTS, OPENINGS, edits=edits).isfinite().all()
        assert generate(llama, PROMPTS, edits=edits, max_new_tokens=3)


def test_what_is_suppressed_is_not_named(llama: Subject) -> None:
    with (
        broken(llama, "model.layers.0.self_attn.v_proj.weight", float("nan")),
        broken(llama, "model.layers.1.self_attn.k_proj.weight", float("nan")),
        pytest.raises(ModelError, match="site k of layer 1"),
    ):
        refusal_log_odds(llama, PROMPTS, OPENINGS, edits=suppression([(0, "v", 3)]))


def test_gemma_in_double_precision_says_what_to_do(tiny_folder: Callable[[str], Path]) -> None:
    """transformers' eager softmax is in single precision, and the mask of padding overflows: an error, not a number."""
    gemma = load_subject(str(tiny_folder("gemma2")), dtype="float64")
    with pytest.raises(ModelError, match=r"float64(.|\n)*--dtype float32"):
        score_local(gemma, PROMPTS)
    assert torch.isfinite(score_local(gemma, PROMPTS[:1]).scale["q"]).all()


def test_padding_in_double_precision_overflows_in_gemma_2(tiny_subject: Callable[[str], Subject]) -> None:
    """In transformers' own attention, which the fixture `subject` replaces; without padding nothing does."""
    gemma = tiny_subject("gemma2")
    with pytest.raises(ModelError, match="dtype float64") as caught:
        score_local(gemma, PROMPTS)
    assert caught.value.hint is not None
    assert "--batch-size 1" in caught.value.hint
    assert len(score_local(gemma, PROMPTS, batch_size=1)) == len(PROMPTS)
