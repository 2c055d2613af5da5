"""Settings of torch that make numbers coarser are a part of a model's identity; others, and its own ones, are not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ssn_probe.model import coarse_products as settings
from ssn_probe.model.coarse_products import _loses_digits, as_recorded, coarse_products, without_coarse
from ssn_probe.model.known import find_subject, is_open, keep_facts
from ssn_probe.model.row_independence import rounded_to
from ssn_probe.model.subject import load_subject
from ssn_probe.model.torch_settings import computing_plainly
from ssn_probe.study.model_notes import notes_on_model


@pytest.fixture
def precision() -> Iterator[Any]:
    before = torch.get_float32_matmul_precision()
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def loses_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every device does what a setting allows."""
    monkeypatch.setattr(settings, "_loses_digits", lambda _device, _setting: True)


def test_torchs_own_settings_are_no_part_of_an_identity(loses_digits: None, precision: Any) -> None:
    plain = load_subject("organism", weights=False).identity
    assert coarse_products("cpu", "float32") == coarse_products("cuda", "float16") == {}
    precision("highest")
    assert load_subject("organism", weights=False).identity == plain == without_coarse(plain)


@pytest.mark.parametrize(
    ("level", "device", "expected"), [("high", "cpu", "tf32"), ("medium", "cpu", "bf16"), ("high", "cuda:1", "tf32")]
)
def test_coarser_products_are(loses_digits: None, precision: Any, level: str, device: str, expected: str) -> None:
    precision(level)
    for dtype in ("float32", "bfloat16", "float16"):  # of half precision effects are computed in float32
        assert coarse_products(device, dtype) == {"float32_products": expected}
    assert coarse_products(device, "float64") == coarse_products("meta", "float32") == {}


def test_a_setting_that_does_nothing_here_is_not(monkeypatch: pytest.MonkeyPatch, precision: Any) -> None:
    monkeypatch.setattr(settings, "_loses_digits", lambda _device, _setting: False)
    precision("high")
    assert coarse_products("cpu", "float32") == {}


def test_what_a_device_does_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = _loses_digits.__wrapped__
    assert not tried("cpu", "none")

    def in_half_precision(self: torch.nn.Linear, input: torch.Tensor) -> torch.Tensor:
        return (input.bfloat16().float() @ self.weight.bfloat16().float().T).float()

    monkeypatch.setattr("ssn_probe.model.products.use_faster_products", lambda _module: None)
    assert not tried("cpu", "none")
    monkeypatch.setattr(torch.nn.Linear, "forward", in_half_precision)
    assert tried("cpu", "bf16")


def test_sums_of_float16_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"cuda.matmul.allow_fp16_accumulation": True}
    monkeypatch.setattr(settings, "torch_settings", lambda: found)
    assert coarse_products("cuda", "float16") == {"float16_sums": "float16"}
    assert coarse_products("cuda", "bfloat16") == coarse_products("cpu", "float16") == {}


def test_a_model_whose_facts_are_kept_has_the_settings_of_now(
    tmp_path: Path, loses_digits: None, precision: Any
) -> None:
    first = find_subject("organism", cache=tmp_path)
    assert is_open(first)
    keep_facts(first, "auto")
    precision("medium")
    second = find_subject("organism", cache=tmp_path)
    assert not is_open(second)
    assert second.identity == first.identity | {"float32_products": "bf16"} == load_subject("organism").identity
    assert second.model is not None, "opened, it is what was known of it"
    assert as_recorded(second.identity, first.identity) == first.identity
    assert as_recorded(first.identity, second.identity) == second.identity
    assert (rounded_to(first), rounded_to(second)) == ("float32", "bfloat16")
    assert not any("torch" in note for note in notes_on_model(first))
    assert any("round products of float32 to bf16" in note for note in notes_on_model(second))


def test_inside_torch_computes_plainly() -> None:
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode(), computing_plainly():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert product.dtype == torch.float32
        assert not product.is_inference()
    with torch.no_grad(), computing_plainly():
        assert not torch.is_grad_enabled()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"), computing_plainly():
            made = torch.ones(2)
        assert (made.dtype, made.device.type) == (torch.float32, "cpu")
        assert torch.get_default_dtype() == torch.bfloat16
    finally:
        torch.set_default_dtype(torch.float32)
