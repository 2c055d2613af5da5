"""Steps that are kept on the way, and a probe of the model as it learns."""

from typing import Any

import pytest
import torch
from training_case import equal, llama, logits, quick, tiny_data

from ssn_probe.errors import RecipeError
from ssn_probe.training.delta_file.file import delta_file
from ssn_probe.training.export.merging import written

STEADY: dict[str, Any] = {"schedule": "constant", "warmup": 0.0}


def test_a_step_on_the_way_is_a_training_that_ends_there() -> None:
    found = quick(llama(), keep=(1, 3), steps=4, **STEADY)
    assert list(found.kept) == [1, 3]
    for step, kept in found.kept.items():
        assert equal(kept, quick(llama(), steps=step, **STEADY).delta)
    assert not equal(found.kept[3], found.last)


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
    """It changes nothing in the training; NaN is no figure."""
    module, seen = llama(), []
    options = {"data": tiny_data(rows=8), "held_out": 0.3, "evaluate_every": 2}

    def probe(given: Any) -> float:
        assert given is module
        seen.append(logits(given))
        return float("nan") if len(seen) == 2 else 0.25 * len(seen)

    found = quick(module, probe=probe, **options)
    assert {step.step: step.probe for step in found.history} == {0: 0.25, 1: None, 2: None, 3: None, 4: 0.75}
    assert torch.equal(seen[0], logits(module))
    with written(module, found.last):
        assert torch.allclose(seen[2], logits(module), atol=1e-5)
    assert (seen[0] - seen[2]).abs().max() > 1e-3
    assert equal(found.last, quick(module, **options).last)
    quick(module, probe=lambda _module: pytest.fail("there are no rows that are held out"))
