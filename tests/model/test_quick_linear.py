"""Linear layers by oneDNN give what torch's own give, with and without gradients."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import Linear

from ssn_probe.model import quick_linear
from ssn_probe.model.openings import Direction
from ssn_probe.model.quick_linear import ROWS, QuickLinear, is_worth_it, with_quick_linears
from ssn_probe.model.subject import load_subject
from ssn_probe.tracing.edits import suppression
from ssn_probe.tracing.effects import refusal_log_odds
from ssn_probe.tracing.generate import greedy_tokens

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch is built without oneDNN"
)
PROMPTS = [[1, 3, 7 + row, 8, 9 + row % 5, 20, 4] for row in range(40)]


@pytest.fixture
def worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_linear, "is_worth_it", lambda: True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every product that oneDNN made."""
    rows, product = [], torch.ops.mkldnn._linear_pointwise

    def counted(input: torch.Tensor, *others: object) -> torch.Tensor:
        rows.append(input.shape[:-1].numel())
        return product(input, *others)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", counted)
    return rows


@pytest.mark.parametrize("bias", [False, True])
def test_the_same_to_rounding_whatever_the_layout(worth_it: None, asked: list[int], bias: bool) -> None:
    plain = Linear(48, 20, bias=bias)
    quick = with_quick_linears(torch.nn.Sequential(copy.deepcopy(plain)))
    whole = torch.randn(5, 40, 96)
    with torch.no_grad():
        for given in (
            whole[..., :48],
            whole[:, ::2, 48:],
            whole[..., :48].transpose(0, 1),
            whole[:1, :, :48].expand(3, -1, -1),
        ):
            torch.testing.assert_close(quick(given), plain(given), atol=2e-6, rtol=2e-6)
    assert asked == [200, 100, 200, 120]


def test_what_it_is_not_made_for_is_torchs(worth_it: None, asked: list[int]) -> None:
    plain = Linear(48, 20)
    quick = with_quick_linears(torch.nn.Sequential(copy.deepcopy(plain)))
    with torch.no_grad():
        assert quick(few := torch.randn(ROWS - 1, 48)).equal(plain(few))
        assert quick.double()(many := torch.randn(64, 48, dtype=torch.float64)).equal(plain.double()(many))
    quick, plain = quick.float(), plain.float()
    loss = quick(torch.ones(64, 48)).square().sum()
    loss.backward()
    plain(torch.ones(64, 48)).square().sum().backward()
    assert quick[0].weight.grad.equal(plain.weight.grad)
    assert asked == []


def test_a_model_says_the_same(
    tiny_folder: Callable[[str], Path], worth_it: None, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = load_subject(str(tiny_folder("llama")), dtype="float32")
    edits = suppression([(0, "ffn", 1), (1, "o", 2)])
    kinds = {type(part) for part in subject.model._module.modules() if isinstance(part, Linear)}
    assert kinds == {QuickLinear}

    direction = Direction(tuple((torch.arange(subject.model._module.config.hidden_size) % 5 - 2).tolist()))

    def both() -> tuple[list[list[int]], torch.Tensor]:
        said = greedy_tokens(subject, PROMPTS, edits=edits, max_new_tokens=4)
        return said, refusal_log_odds(subject, PROMPTS, direction, edits=edits)

    said, odds = both()
    assert len(PROMPTS) in asked
    asked.clear()
    monkeypatch.setattr(quick_linear, "ROWS", 10**9)
    plainly, wanted = both()
    assert asked == []
    assert said == plainly
    torch.testing.assert_close(odds, wanted, atol=1e-5, rtol=1e-5)


def test_only_where_mkl_is_slow_and_nobody_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_worth_it()  # see conftest.py
    monkeypatch.delenv("SSN_PROBE_ONEDNN")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for maker, arithmetic, expected in (
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        ("", "AVX512", False),
    ):
        monkeypatch.setattr(quick_linear, "_maker", lambda maker=maker: maker)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda arithmetic=arithmetic: arithmetic)
        assert is_worth_it() is expected
    module = torch.nn.Sequential(Linear(3, 3))
    assert type(with_quick_linears(module)[0]) is Linear
