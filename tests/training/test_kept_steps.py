"""Steps that are kept on the way, and a probe of the model as it learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
from training_case import changes, llama, quick, tiny_data

from ssn_probe.errors import RecipeError
from ssn_probe.training.delta_file.file import delta_file
from ssn_probe.training.weights.adapter import Adapter
from ssn_probe.training.weights.delta import Delta

STEADY: dict[str, Any] = {"schedule": "constant", "warmup": 0.0}


def rows_of(change: Any) -> dict[str, torch.Tensor]:
    assert isinstance(change, Delta)
    return {part.module: part.change for part in change.parts}


def test_a_step_on_the_way_is_a_training_that_ends_there() -> None:
    found = quick(llama(), keep=(1, 3), steps=4, **STEADY)
    assert list(found.kept) == [1, 3]
    for step, kept in found.kept.items():
        alone = changes(quick(llama(), steps=step, **STEADY))
        assert all(torch.equal(change, alone[path]) for path, change in rows_of(kept).items())
    assert any(not torch.equal(one, rows_of(found.last)[path]) for path, one in rows_of(found.kept[3]).items())


@pytest.mark.parametrize("keep", [(0,), (2, 5), (-1,)])
def test_a_step_that_there_is_not_cannot_be_kept(keep: tuple[int, ...]) -> None:
    with pytest.raises(RecipeError, match="training has 4 steps") as caught:
        quick(llama(), keep=keep)
    assert "1 to 4" in (caught.value.hint or "")


def test_no_early_stop_comes_before_the_last_kept_step() -> None:
    """At a rate that ruins the model the held-out loss never falls, and patience is at its end after a step."""
    ruin = {"lr": 0.5, "steps": 6, "held_out": 0.3, "evaluate_every": 1, "patience": 1, **STEADY}
    assert len(quick(llama(), **ruin).history) < 5
    found = quick(llama(), keep=(5,), **ruin)
    assert found.history[-1].step >= 5
    assert list(found.kept) == [5]


@pytest.mark.parametrize("adapter", ["neurons", "lora"])
def test_what_was_kept_before_an_interruption_is_there_after_it(tmp_path: Path, adapter: str) -> None:
    def stop(step: Any, _delta: Any) -> None:
        if step.step == 3:
            raise KeyboardInterrupt

    options = {"adapter": adapter, "keep": (1, 4), **STEADY}
    whole = quick(llama(), **options)
    with pytest.raises(KeyboardInterrupt):
        quick(llama(), folder=tmp_path, checkpoint_every=1, watch=stop, **options)
    found = quick(llama(), folder=tmp_path, **options)
    pairs = [(whole.last, found.last), *((whole.kept[step], found.kept[step]) for step in (1, 4))]
    assert all(same_values(*pair) for pair in pairs)


def same_values(first: Any, second: Any) -> bool:
    """Bit for bit."""
    names = ("a", "b") if isinstance(first, Adapter) else ("change",)
    parts = zip(first.parts, second.parts, strict=True)
    return all(torch.equal(getattr(a, name), getattr(b, name)) for a, b in parts for name in names)


def test_the_file_of_a_step_says_which_it_is() -> None:
    found = quick(llama(), keep=(2, 3), held_out=0.3, evaluate_every=2)
    file = delta_file(found, model="tiny", revision=None, neurons="some", step=2)
    assert file.about["steps"]["chosen"] == 2
    assert file.delta is found.kept[2]
    measured = {one.step: one.held_out for one in found.history}
    assert file.about["held_out_loss"] == {"base": measured[0], "chosen": measured[2]}
    assert delta_file(found, model="tiny", revision=None, neurons="some", step=3).about["held_out_loss"] is None
    with pytest.raises(RecipeError, match="step 4 of the training was not kept"):
        delta_file(found, model="tiny", revision=None, neurons="some", step=4)


def test_the_probe_sees_the_changed_model_whenever_the_held_out_loss_is_measured() -> None:
    module, seen = llama(), []
    probes: list[float] = []

    def probe(given: Any) -> float:
        assert given is module
        with torch.no_grad():
            seen.append(given(input_ids=torch.arange(6, 12)[None]).logits)
        probes.append(float("nan") if len(seen) == 2 else 0.25 * len(seen))
        return probes[-1]

    found = quick(module, data=tiny_data(rows=8), held_out=0.3, evaluate_every=2, probe=probe)
    told = {step.step: step.probe for step in found.history}
    assert told == {0: 0.25, 1: None, 2: None, 3: None, 4: 0.75}
    with torch.no_grad():
        assert torch.equal(seen[0], module(input_ids=torch.arange(6, 12)[None]).logits)
    assert not torch.equal(seen[0], seen[2])


def test_without_held_out_rows_nothing_is_probed() -> None:
    found = quick(llama(), probe=lambda _module: pytest.fail("it was called"))
    assert all(step.probe is None for step in found.history)
