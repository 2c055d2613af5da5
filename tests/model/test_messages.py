"""What processes tell each other arrives as it was sent."""

import pickle

import pytest
import torch

from ssn_probe.model.messages import on_device, packed

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64),
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (2, 3, 4)], ids=str)
def test_tensors_arrive_bit_for_bit_and_may_be_changed(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    sent = (torch.rand(shape) * 8 - 4).to(dtype)
    (found,) = pickle.loads(packed([sent]))
    assert found.dtype == dtype
    assert found.shape == sent.shape
    assert found.reshape(-1).view(torch.uint8).equal(sent.reshape(-1).view(torch.uint8)) or not sent.numel()
    found.zero_()


def test_tensors_of_any_layout_arrive() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    layouts = [
        base.T,
        base[:, ::2],
        base[1:],
        base.expand(2, 3, 4),
        torch.view_as_complex(base.reshape(3, 2, 2)).conj(),
    ]
    layouts.append(base.clone().requires_grad_())
    for sent, found in zip(layouts, pickle.loads(packed(layouts)), strict=True):
        assert found.equal(sent)
        assert found.requires_grad == sent.requires_grad


def test_special_numbers_arrive() -> None:
    sent = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-45])
    assert pickle.loads(packed(sent)).view(torch.int32).equal(sent.view(torch.int32))


def test_a_part_of_a_large_tensor_travels_alone() -> None:
    assert len(packed(on_device({"part": (torch.zeros(10**6)[:3],)}, "cpu"))) < 1000
