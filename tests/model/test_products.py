"""Products by oneDNN: those of torch up to rounding, with their gradients, in layers that stay what they are."""

import copy
import pickle

import pytest
import torch

from ssn_probe.model import products

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def layer(bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(512, 96, bias=bias)


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(40,), (4, 10), (2, 4, 10)])
def test_the_product_is_torchs_up_to_rounding(shape, bias):
    one, values = layer(bias), torch.randn(*shape, 512)
    found = products.linear(one, values)
    torch.testing.assert_close(found, one(values), rtol=1e-5, atol=1e-5)
    assert found.shape == (*shape, 96)


def test_rows_that_are_not_next_to_each_other_are_multiplied_as_they_are():
    one, values = layer(), torch.randn(30, 7, 512).transpose(0, 1)[:, 3:]
    torch.testing.assert_close(products.linear(one, values), one(values.contiguous()), rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_torch():
    one, start = layer(), torch.randn(3, 20, 512)
    found = []
    for forward in (one, lambda values: products.linear(one, values)):
        values = start.clone().requires_grad_()
        forward(values).sin().sum().backward()
        found.append((values.grad, one.weight.grad.clone(), one.bias.grad.clone()))  # pyright: ignore[reportOptionalMemberAccess]
        one.zero_grad()
    for by_torch, by_onednn in zip(*found, strict=True):
        torch.testing.assert_close(by_onednn, by_torch, rtol=1e-4, atol=1e-5)


def test_a_bias_alone_learns():
    one, values = layer(), torch.randn(40, 512)
    one.weight.requires_grad_(False)
    products.linear(one, values).sum().backward()
    assert one.bias.grad is not None
    torch.testing.assert_close(one.bias.grad, torch.full((96,), 40.0))


def test_a_frozen_layer_passes_gradients_on_and_keeps_no_input():
    one, values = layer().requires_grad_(False), torch.randn(40, 512, requires_grad=True)
    kept: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tuple(tensor.shape)) or tensor, lambda x: x
    ):
        result = products.linear(one, values)
    result.sum().backward()
    assert (40, 512) not in kept
    torch.testing.assert_close(values.grad, one.weight.sum(0).expand(40, -1), rtol=1e-5, atol=1e-5)


def second(f, values):
    start = values.clone().requires_grad_()
    (first,) = torch.autograd.grad(f(start).sin().sum(), start, create_graph=True)
    return torch.autograd.grad(first.pow(2).sum(), start)[0]


def batched(f, values):
    start = values.clone().requires_grad_()
    along = torch.ones(2, 40, 96) / torch.tensor([1.0, 2.0])[:, None, None]
    return torch.autograd.grad(f(start), start, along, is_grads_batched=True)[0]


def forward_mode(f, values):
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(values, values)
        return torch.autograd.forward_ad.unpack_dual(f(dual)).tangent


DERIVED = {
    "second derivative": second,
    "Hessian times vector": lambda f, x: torch.autograd.functional.hvp(lambda y: f(y).sin().sum(), x, x)[1],
    "batch of gradients": batched,
    "forward mode": forward_mode,
    "forward mode without gradients": lambda f, x: torch.no_grad()(forward_mode)(f, x),
    "func.grad": lambda f, x: torch.func.grad(lambda y: f(y).sin().sum())(x),
    "func.jvp": lambda f, x: torch.func.jvp(f, (x,), (x,))[1],
    "func.vmap": lambda f, x: torch.func.vmap(f)(x.reshape(2, 20, 512)),
    "func.hessian": lambda f, x: torch.func.hessian(lambda scale: f(x * scale).sin().sum())(torch.ones(())),
    "traced": lambda f, x: torch.jit.trace(f, x)(x),
}
"""What is made of a layer in other ways than by a pass and a gradient, by users' own scores, say."""


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("way", DERIVED)
def test_what_torch_derives_of_a_layer_is_the_same(way, faster):
    one, values = layer(), torch.randn(40, 512)
    wanted = DERIVED[way](one, values)
    products.use_faster_products(one)
    torch.testing.assert_close(DERIVED[way](one, values), wanted, rtol=1e-4, atol=1e-4)


def test_a_layer_is_pickled_with_its_weights(faster):
    one, values = layer(), torch.randn(40, 512)
    products.use_faster_products(one)
    torch.testing.assert_close(pickle.loads(pickle.dumps(one))(values), one(values), rtol=0, atol=0)


def test_layers_of_float32_keep_their_type_and_their_weights(faster):
    module = torch.nn.Sequential(layer(), layer().double())
    products.use_faster_products(module)
    first, second = module
    assert type(first) is torch.nn.Linear
    assert "forward" in vars(first)
    assert "forward" not in vars(second)
    products.use_torchs_products(module)
    assert "forward" not in vars(first)
    assert module.state_dict().keys() == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_a_copy_multiplies_by_its_own_weights(faster):
    first, values = layer(), torch.randn(40, 512)
    products.use_faster_products(first)
    other = copy.deepcopy(first)
    with torch.no_grad():
        other.weight.zero_()
        torch.testing.assert_close(other(values), other.bias.expand(40, -1))
    assert first(values).abs().max() > 1


@pytest.mark.parametrize("change", ["few rows", "switched off", "another type"])
def test_what_onednn_is_not_for_is_torchs_to_the_bit(change, monkeypatch):
    one, values = layer(), torch.randn(40, 512)
    if change == "few rows":
        values = values[: products.FEWEST_ROWS - 1]
    elif change == "switched off":
        before = torch._C._get_mkldnn_enabled()
        torch._C._set_mkldnn_enabled(False)
    else:
        one, values = one.double(), values.double()
    monkeypatch.setattr(products, "_product", lambda *_: pytest.fail("multiplied by oneDNN"))
    try:
        found = products.linear(one, values)
    finally:
        if change == "switched off":
            torch._C._set_mkldnn_enabled(before)
    assert torch.equal(found, one(values))


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_f": True, "cpu_name": "AMD EPYC 9B45"}, True),
        ({"avx512_f": False, "cpu_name": "AMD EPYC 7B13"}, False),
        ({"avx512_f": True, "cpu_name": "Intel(R) Xeon(R)"}, False),
        ({}, False),
    ],
)
def test_it_is_faster_on_amds_processors_with_avx512(capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert products.onednn_is_faster() is expected
