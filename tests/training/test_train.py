"""The loop: what must not change a result, what stops it, and that the model is given back as it was."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_module
from training_case import NEURONS, changes, copies, llama, logits, quick, same, tiny_data

from ssn_probe.errors import DataError, ModelError, RecipeError
from ssn_probe.training.export.merging import written
from ssn_probe.training.loop.resuming import FILE, Step


def distance(one: Any, other: Any) -> float:
    a, b = changes(one), changes(other)
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_the_same_seed_gives_the_same_deltas_and_another_others() -> None:
    module = llama()
    first = quick(module)
    assert distance(first, quick(module)) == 0
    assert distance(first, quick(module, seed=1)) > 1e-4


def test_micro_batches_and_recomputed_activations_change_nothing_but_rounding(double: Any) -> None:
    whole = quick(double)
    assert distance(whole, quick(double, micro_batch=1)) < 1e-6
    assert distance(whole, quick(double, micro_batch=3)) < 1e-6
    assert distance(whole, quick(double, gradient_checkpointing=True)) < 1e-6


def test_activations_are_recomputed_when_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    module, seen = llama(), []
    attention = module.model.layers[0].self_attn
    attention.register_forward_pre_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    quick(module, steps=1)
    plain = len(seen)
    quick(module, steps=1, gradient_checkpointing=True)
    assert len(seen) == 3 * plain


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_model_is_given_back_as_it_was(checkpointing: bool) -> None:
    module = llama(attention_dropout=0.5).train()
    module.model.layers[0].mlp.eval()
    weights, modes = copies(module), [part.training for part in module.modules()]
    first = quick(module, gradient_checkpointing=checkpointing, held_out=0.2)
    assert same(weights, module)
    assert [part.training for part in module.modules()] == modes
    assert all(weight.requires_grad for weight in module.parameters())
    assert not any(part._forward_hooks or "forward" in vars(part) for part in module.modules())
    again = quick(module, gradient_checkpointing=checkpointing, held_out=0.2)
    assert distance(first, again) == 0, "dropout was at work"


def test_watch_sees_every_step_the_base_and_the_present_delta() -> None:
    module, steps, sayings = llama(), [], []
    base = logits(module)

    def watch(step: Step, delta: Any) -> None:
        assert torch.equal(logits(module), base)
        with written(module, delta()):
            sayings.append(logits(module))
        steps.append(step)

    trained = quick(module, watch=watch, held_out=0.2, evaluate_every=2)
    assert steps == list(trained.history)
    assert [step.step for step in steps] == [0, 1, 2, 3, 4]
    assert torch.equal(sayings[0], base)
    assert not torch.equal(sayings[1], base)
    assert [step.held_out is not None for step in steps] == [True, False, True, False, True]
    assert steps[1].lr == pytest.approx(1e-3)
    assert steps[-1].lr == pytest.approx(1e-3 / 3)
    losses = [step.loss for step in steps[1:]]
    assert all(loss is not None and math.isfinite(loss) for loss in losses)
    assert steps[0].held_out is not None
    assert steps[-1].held_out is not None
    assert steps[-1].held_out < steps[0].held_out


def test_a_bfloat16_base_is_trained_in_float32() -> None:
    """Steps far below a weight's last place in bfloat16 (2⁻⁸ of it) add up."""
    module = llama().bfloat16()
    trained = quick(module, lr=1e-5, steps=6, warmup=0.0)
    for part in trained.delta.parts:
        assert (part.change.dtype, part.base.dtype) == (torch.float32, torch.bfloat16)
        assert 0 < part.change.abs().max() < 1e-4
    assert trained.record["base"]["dtype"] == "bfloat16"


def test_early_stopping_gives_the_delta_of_the_lowest_held_out_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssn_probe.training.loop.training_steps import Course

    losses = iter([9.0, 5.0, 3.0, 4.0, 3.5, 1.0])
    monkeypatch.setattr(Course, "held_out_loss", lambda _self: next(losses))
    deltas: list[Any] = []
    trained = quick(
        llama(),
        steps=20,
        held_out=0.2,
        evaluate_every=1,
        patience=2,
        schedule="constant",
        watch=lambda _step, delta: deltas.append(delta()),
    )
    assert trained.stopped_early
    assert [step.held_out for step in trained.history] == [9.0, 5.0, 3.0, 4.0, 3.5]
    assert trained.chosen_step == 2
    best = {part.place.module: part.change for part in deltas[2].parts}
    assert all(torch.equal(best[name], change) for name, change in changes(trained).items())
    assert not torch.equal(trained.last.parts[0].change, trained.delta.parts[0].change)
    assert trained.record["steps"] == {"done": 4, "planned": 20, "chosen": 2}


def test_without_patience_it_runs_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssn_probe.training.loop.training_steps import Course

    losses = iter(range(100))
    monkeypatch.setattr(Course, "held_out_loss", lambda _self: float(next(losses)))
    trained = quick(llama(), steps=5, held_out=0.2, evaluate_every=1, patience=None)
    assert (len(trained.history), trained.chosen_step, trained.stopped_early) == (6, 1, False)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    """Deltas whose next loss is not finite are in no checkpoint, though they were finite themselves."""
    module = llama()

    def spoil(step: Step, _delta: Any) -> None:
        if step.step == 3:
            module.lm_head.weight.data[0, 0] = math.nan

    with pytest.raises(ModelError, match=r"The loss is nan at step 4 of 8") as caught:
        quick(module, steps=8, folder=tmp_path, checkpoint_every=1, watch=spoil)
    assert f"of step 2, is {tmp_path / FILE}" in str(caught.value.hint)
    assert "Lower lr (it is 0.001)" in str(caught.value.hint)
    assert not any(part._forward_hooks for part in module.modules())
    with pytest.raises(ModelError, match="There is no checkpoint") as caught:
        quick(module)
    assert "The untrained model gives the same" in str(caught.value.hint)


def test_a_gradient_that_is_not_finite_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *args: clip(*args) * math.inf)
    with pytest.raises(ModelError, match="The gradient is inf at step 1"):
        quick(llama())


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory: 3 bytes")])
def test_out_of_memory_says_what_to_lower(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    module = llama()

    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(module, "forward", full)
    with pytest.raises(ModelError, match="not enough memory") as caught:
        quick(module, batch=8)
    assert caught.value.hint == (
        "Take fewer rows at a time (micro_batch=4; --micro-batch 4, in a run --batch-size 4), or give "
        "gradient_checkpointing=True (--gradient-checkpointing)."
    )
    with pytest.raises(ModelError) as caught:
        quick(module, micro_batch=1, gradient_checkpointing=True)
    assert caught.value.hint == "Shorten the longest row."


def test_another_error_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    module = llama()
    monkeypatch.setattr(module, "forward", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        quick(module)


def test_what_cannot_be_trained() -> None:
    module = llama()
    with pytest.raises(ModelError, match="float16") as caught:
        quick(llama().half())
    assert "bfloat16" in (caught.value.hint or "")
    with pytest.raises(RecipeError, match="empty"):
        quick(module, neurons=[])
    with pytest.raises(ModelError, match="no layer 7"):
        quick(module, neurons=[*NEURONS, (7, "ffn", 0)])
    with pytest.raises(RecipeError, match="micro_batch is 0"):
        quick(module, micro_batch=0)
    with pytest.raises(RecipeError, match="checkpoint_every is 0"):
        quick(module, checkpoint_every=0)
    with pytest.raises(DataError, match="too few rows to hold out"):
        quick(module, data=tiny_data(1), held_out=0.5)


def test_harmless_rows_beside_the_harmful_are_learned_too() -> None:
    module, seen = llama(), []
    module.register_forward_pre_hook(lambda _m, _a, given: seen.append(given["input_ids"]), with_kwargs=True)
    quick(module, data=tiny_data(4, ("harmful", "harmless")), batch=16, steps=1)
    assert (torch.cat(seen) == 7).any(), "w1, the opening of an answer, was never seen"


def test_tied_embeddings_are_not_touched() -> None:
    module = tiny_module("llama", tie_word_embeddings=True).float()
    before = copies(module)
    assert "lm_head.weight" not in before
    trained = quick(module)
    with written(module, trained.delta):
        assert module.lm_head.weight is module.model.embed_tokens.weight
        assert torch.equal(module.lm_head.weight, before["model.embed_tokens.weight"])
        assert not same(before, module)
    assert same(before, module)
