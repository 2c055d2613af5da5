"""The same weights in a wider dtype: exact both ways whatever is computed with them, and refused otherwise."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import EVERY_FAMILY

from ssn_probe.errors import ModelError
from ssn_probe.model.openings import Openings
from ssn_probe.model.precision import computing_in, tensors
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.tracing.effects import Scores, decode, score_local, score_refusal

PROMPTS = [[1, 3, 7, 8, 9, 20, 4], [1, 3, 10, 11, 12, 13, 14, 15, 30, 31, 4], [1, 3, 9, 4]]
OPENINGS = Openings(refusal=((10, 11), (12,)), compliant=((13, 14, 15), (17,)))
QUICK = (("llama", "float16"), ("gemma2", "bfloat16"), ("phi3", "bfloat16"))
EFFECTS: dict[str, Callable[[Subject], Scores]] = {
    "local": lambda subject: score_local(subject, PROMPTS),
    "refusal": lambda subject: score_refusal(subject, PROMPTS, OPENINGS),
}


def weights(subject: Subject) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors(subject.model)}


def gap(found: Scores, wanted: Scores) -> float:
    """The largest difference, as a share of the largest effect of a layer, over all sites."""
    both = [(decode(found, site), decode(wanted, site)) for site in wanted.values]
    return max(float(((one - two).abs() / two.abs().amax(-1, keepdim=True)).max()) for one, two in both)


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        pytest.param(family, dtype, marks=() if (family, dtype) in QUICK else pytest.mark.slow)
        for family in EVERY_FAMILY
        for dtype in ("bfloat16", "float16")
    ],
)
def test_effects_are_those_of_the_rounded_weights_in_single_precision(
    tiny_folder: Callable[[str], Path],
    single: Callable[[str], Subject],
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    dtype: str,
) -> None:
    half, truth = load_subject(str(tiny_folder(family)), dtype=dtype), single(family)
    before = weights(half)
    for name, tensor in tensors(truth.model):
        monkeypatch.setattr(tensor, "data", before[name].float())
    for name, score in EFFECTS.items():
        rough = score(half)
        with computing_in(half, "float32") as wide:
            assert wide.identity == half.identity | {"dtype": "float32"}
            exact = score(wide)
        wanted = score(truth)
        assert gap(exact, wanted) < 2**-10, name  # one step of the form in which effects are stored
        # rounding to that form alone is half a step at most; the least that was measured is 1.98 of these halves
        assert gap(rough, wanted) > 1.5 * 2**-11, name
    after = weights(half)
    assert all(torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items())


def test_weights_are_as_before_after_an_error(tiny_folder: Callable[[str], Path]) -> None:
    half = load_subject(str(tiny_folder("llama")), dtype="bfloat16")
    before = weights(half)
    with pytest.raises(KeyError), computing_in(half, "float32"):
        raise KeyError
    assert all(torch.equal(value, before[name]) for name, value in weights(half).items())


def test_memory_that_does_not_hold_them(tiny_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    half = load_subject(str(tiny_folder("llama")), dtype="bfloat16")
    before, to, count = weights(half), torch.Tensor.to, iter(range(1000))

    def failing(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if dtype == torch.float32 and next(count) == 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return to(tensor, dtype)

    monkeypatch.setattr(torch.Tensor, "to", failing)
    with pytest.raises(ModelError, match="does not hold the weights") as error, computing_in(half, "float32"):
        pass
    assert "Leave scoring_dtype out" in str(error.value.hint)
    assert all(value.dtype == torch.bfloat16 for value in half.model._module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in weights(half).items())


def test_only_a_wider_dtype(single: Callable[[str], Subject]) -> None:
    subject = single("llama")
    for dtype in (None, "float32"):
        with computing_in(subject, dtype) as same:
            assert same is subject
    with pytest.raises(ModelError, match="float64, which is wider"), computing_in(in_double(subject), "float32"):
        pass


def in_double(subject: Subject) -> Subject:
    return replace(subject, identity=subject.identity | {"dtype": "float64"})
