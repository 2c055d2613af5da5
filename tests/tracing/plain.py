"""The same quantities with plain torch hooks and full logits, one neuron and one prompt at a time: the oracle.

Nothing here uses the package, so that it can be wrong in other ways only.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

SITES = ("q", "k", "v", "o", "ffn")


def text_model(module: Any) -> Any:
    """The language model, which may be a part of the whole: layers between an embedding and a final norm."""
    return next(part for part in module.modules() if {"embed_tokens", "layers", "norm"} <= part._modules.keys())


def site_module(module: Any, layer: int, site: str) -> Any:
    block = text_model(module).layers[layer]
    if site == "ffn":
        return block.mlp.down_proj
    fused = site != "o" and hasattr(block.self_attn, "qkv_proj")
    return block.self_attn.qkv_proj if fused else getattr(block.self_attn, f"{site}_proj")


def channels(module: Any, site: str) -> slice:
    """Which channels of the module are the site's: all, or a third of a module for queries, keys and values."""
    found = site_module(module, 0, site)
    if site in ("o", "ffn"):
        return slice(0, found.in_features)
    if site_module(module, 0, "q") is not site_module(module, 0, "k"):
        return slice(0, found.out_features)
    config = module.config.get_text_config()
    heads, keys = config.num_attention_heads, config.num_key_value_heads
    size = found.out_features // (heads + 2 * keys)
    first = {"q": 0, "k": heads, "v": heads + keys}[site]
    return slice(first * size, (first + (heads if site == "q" else keys)) * size)


def width(module: Any, site: str) -> int:
    own = channels(module, site)
    return own.stop - own.start


@contextmanager
def changed(module: Any, layer: int, site: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A site's activation replaced by a function of it."""
    target, own = site_module(module, layer, site), channels(module, site)
    if site in ("o", "ffn"):
        hook = target.register_forward_pre_hook(lambda _m, args: (change(args[0]),))
    else:
        hook = target.register_forward_hook(
            lambda _m, _args, out: torch.cat([out[..., : own.start], change(out[..., own]), out[..., own.stop :]], -1)
        )
    try:
        yield
    finally:
        hook.remove()


def without(index: int, activation: Tensor) -> Tensor:
    activation = activation.clone()
    activation[..., index] = 0
    return activation


@contextmanager
def silenced(module: Any, neurons: Sequence[tuple[int, str, int]]) -> Iterator[None]:
    with ExitStack() as stack:
        for layer, site, index in neurons:
            stack.enter_context(changed(module, layer, site, partial(without, index)))
        yield


def output_of(module: Any, target: Any, prompt: Sequence[int]) -> Tensor:
    """What a submodule puts out on one prompt: [token, channel]."""
    seen: list[Tensor] = []
    hook = target.register_forward_hook(lambda _m, _args, output: seen.append(output[0]))
    try:
        module(torch.tensor([list(prompt)]), use_cache=False)
    finally:
        hook.remove()
    return seen[0]


def ablated_local(module: Any, prompt: Sequence[int], layer: int, site: str) -> Tensor:
    """‖Δ output of the own module‖ at every token, neuron by neuron: [token, neuron]."""
    return _ablated(module, prompt, layer, site, site_module(module, layer, "ffn" if site == "ffn" else "o"))


def ablated_final(module: Any, prompt: Sequence[int], layer: int, site: str) -> Tensor:
    """‖Δ final state‖ at every token, neuron by neuron: [token, neuron]."""
    return _ablated(module, prompt, layer, site, text_model(module).norm)


@torch.no_grad()
def _ablated(module: Any, prompt: Sequence[int], layer: int, site: str, target: Any) -> Tensor:
    before, moved = output_of(module, target, prompt), []
    for index in range(width(module, site)):
        with silenced(module, [(layer, site, index)]):
            moved.append((output_of(module, target, prompt) - before).norm(dim=-1))
    return torch.stack(moved, -1)


def opening_log_prob(module: Any, prompt: Sequence[int], opening: Sequence[int]) -> Tensor:
    """log p(opening | prompt), teacher-forced, from the logits of the whole sequence."""
    ids = torch.tensor([[*prompt, *opening]])
    log_probs = module(ids, use_cache=False).logits[0].log_softmax(-1)
    return sum(log_probs[len(prompt) + step - 1, token] for step, token in enumerate(opening))  # type: ignore[return-value]


def log_odds(module: Any, prompt: Sequence[int], refusal: Any, compliant: Any) -> Tensor:
    """r(x), by its definition."""
    sides = [torch.stack([opening_log_prob(module, prompt, o) for o in side]) for side in (refusal, compliant)]
    return sides[0].logsumexp(0) - sides[1].logsumexp(0)


def gradient_shares(module: Any, prompt: Sequence[int], refusal: Any, compliant: Any) -> dict[str, Tensor]:
    """dr/dα for gates (1 + α) on every neuron, α = 0: {site: [layer, neuron]}."""
    gates = {
        site: torch.zeros(len(text_model(module).layers), width(module, site), dtype=module.dtype, requires_grad=True)
        for site in SITES
    }
    with ExitStack() as stack:
        for site, gate in gates.items():
            for layer in range(len(gate)):
                stack.enter_context(
                    changed(module, layer, site, lambda a, gate=gate, layer=layer: a * (1 + gate[layer]))
                )
        odds = log_odds(module, prompt, refusal, compliant)
    return dict(zip(gates, torch.autograd.grad(odds, list(gates.values())), strict=True))


Inside = Callable[[Sequence[int]], AbstractContextManager[None]]
Place = tuple[int, str]


def slopes_at(module: Any, odds: Callable[[Inside], Tensor], factors: dict[Place, Tensor]) -> dict[Place, Tensor]:
    """dr/dα of every neuron, where its untouched activation is added α times while all are multiplied.

    odds: r, each sequence of it run inside the context that it is given for that sequence. factors: (layer, site) →
    what its neurons are multiplied by.
    """
    gates = {place: torch.zeros_like(factor, requires_grad=True) for place, factor in factors.items()}

    @contextmanager
    def inside(ids: Sequence[int]) -> Iterator[None]:
        own = seen_at(module, ids, factors)

        def gated(place: Place, activation: Tensor) -> Tensor:
            return activation * factors[place] + gates[place] * own[place]

        with ExitStack() as stack:
            for place in factors:
                stack.enter_context(changed(module, *place, partial(gated, place)))
            yield

    return dict(zip(gates, torch.autograd.grad(odds(inside), list(gates.values())), strict=True))


@contextmanager
def weights_scaled(module: Any, neurons: Sequence[tuple[int, str, int]], factor: float = 0.0) -> Iterator[None]:
    """The weights of these neurons multiplied: columns of o_proj and down_proj, rows and biases of q, k and v."""
    kept = {name: parameter.clone() for name, parameter in module.named_parameters()}
    with torch.no_grad():
        for layer, site, index in neurons:
            target = site_module(module, layer, site)
            if site in ("o", "ffn"):
                target.weight[:, index] *= factor
                continue
            row = channels(module, site).start + index
            target.weight[row] *= factor
            if target.bias is not None:
                target.bias[row] *= factor
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(kept[name])


Neurons = Sequence[tuple[int, str, int]]


@torch.no_grad()
def greedy(module: Any, prompt: Sequence[int], steps: int, ends: int = 2) -> list[int]:
    """The greedy response without a cache: the whole sequence runs anew for every token."""
    response: list[int] = []
    while len(response) < steps and ends not in response:
        response.append(module(torch.tensor([[*prompt, *response]]), use_cache=False).logits[0, -1].argmax().item())
    return response


@torch.no_grad()
def seen_at(module: Any, tokens: Sequence[int], places: Iterable[Place]) -> dict[Place, Tensor]:
    """The activations of some places at every token: (layer, site) → [token, neuron]."""
    seen: dict[Place, Tensor] = {}

    def note(place: Place, activation: Tensor) -> Tensor:
        seen[place] = activation[0].clone()
        return activation

    with ExitStack() as stack:
        for place in places:
            stack.enter_context(changed(module, *place, partial(note, place)))
        module(torch.tensor([list(tokens)]), use_cache=False)
    return seen


def activations(module: Any, tokens: Sequence[int], neurons: Neurons) -> Tensor:
    """What some neurons are at every token: [token, neuron]."""
    seen = seen_at(module, tokens, {(layer, site) for layer, site, _ in neurons})
    return torch.stack([seen[layer, site][:, index] for layer, site, index in neurons], -1)


@contextmanager
def placed(module: Any, neurons: Neurons, values: Tensor, first: int) -> Iterator[None]:
    """Neurons given values [step, neuron] from token `first` on, of a single sequence that runs whole."""

    def put(activation: Tensor, index: int, column: int) -> Tensor:
        activation = activation.clone()
        reach = min(len(values), activation.shape[1] - first)
        activation[0, first : first + reach, index] = values[:reach, column]
        return activation

    with ExitStack() as stack:
        for column, (layer, site, index) in enumerate(neurons):
            stack.enter_context(
                changed(module, layer, site, lambda a, index=index, column=column: put(a, index, column))
            )
        yield


def patched_responses(
    module: Any,
    prompts: Sequence[Sequence[int]],
    sources: Sequence[Sequence[int]],
    neurons: Neurons,
    steps: int,
    most: int,
) -> list[list[int]]:
    """Responses with the values of each source's own greedy run put in place: `most` steps of it, none past its end."""
    found = []
    for prompt, source in zip(prompts, sources, strict=True):
        own = greedy(module, source, steps)
        # Response token t is predicted at position len(source) - 1 + t; the last token is predicted and never fed.
        values = activations(module, [*source, *own[:-1]], neurons)[len(source) - 1 :][:most]
        with placed(module, neurons, values, len(prompt) - 1):
            found.append(greedy(module, prompt, steps))
    return found


def pushed_final(
    module: Any,
    prompt: Sequence[int],
    layer: int,
    site: str,
    silent: slice = slice(None),
    read: slice = slice(-1, None),
) -> Tensor:
    """‖J Δ‖ of every neuron, √ of the mean of squares over the read tokens: [neuron].

    Δ is how the input of o_proj or down_proj changes once the neuron is silent at the silent tokens, exactly; J is the
    derivative of the final state by that input.
    """
    target = site_module(module, layer, "ffn" if site == "ffn" else "o")
    [before] = input_of(module, target, prompt)
    entering = before.clone().requires_grad_()
    hook = target.register_forward_pre_hook(lambda _m, _args: (entering[None],))
    try:
        states = output_of(module, text_model(module).norm, prompt)[read]
    finally:
        hook.remove()
    rows = [torch.autograd.grad(one, entering, retain_graph=True)[0].flatten() for one in states.flatten()]
    changes = changes_entering(module, prompt, layer, site, silent)
    return (torch.stack(rows) @ changes.flatten(1).T).norm(dim=0) / len(states) ** 0.5


def changes_entering(module: Any, prompt: Sequence[int], layer: int, site: str, silent: slice = slice(None)) -> Tensor:
    """How the input of o_proj or down_proj changes once a neuron is silent: [neuron, token, channel]."""
    target, every = site_module(module, layer, "ffn" if site == "ffn" else "o"), torch.arange(width(module, site))

    def each_quiet(activation: Tensor) -> Tensor:
        activation = activation.clone()
        activation[every, silent, every] = 0
        return activation

    with torch.no_grad():
        before = input_of(module, target, prompt)
        with changed(module, layer, site, each_quiet):
            return input_of(module, target, prompt, len(every)) - before


def lost_at_o(
    module: Any, odds: Callable[[Inside], Tensor], factors: dict[Place, Tensor], layer: int, site: str
) -> Tensor:
    """−Σ g · Δ of every neuron: [neuron]. Δ as in `changes_entering`, of the model as it is; g is r's derivative there.

    odds, factors: as of `slopes_at`; g is taken where all are multiplied.
    """
    entering: list[tuple[Sequence[int], Tensor]] = []

    @contextmanager
    def inside(ids: Sequence[int]) -> Iterator[None]:
        nothing = torch.zeros(len(ids), width(module, "o"), dtype=module.dtype, requires_grad=True)
        entering.append((ids, nothing))

        def scaled(place: Place, activation: Tensor) -> Tensor:
            return activation * factors[place] + (nothing if place == (layer, "o") else 0)

        with ExitStack() as stack:
            for place in factors:
                stack.enter_context(changed(module, *place, partial(scaled, place)))
            yield

    slopes = torch.autograd.grad(odds(inside), [nothing for _, nothing in entering])
    changes = [changes_entering(module, ids, layer, site) for ids, _ in entering]
    return -sum((slope * change).sum((1, 2)) for slope, change in zip(slopes, changes, strict=True))


def input_of(module: Any, target: Any, prompt: Sequence[int], rows: int = 1) -> Tensor:
    """What enters a submodule on one prompt, in so many rows: [row, token, channel]."""
    seen: list[Tensor] = []
    hook = target.register_forward_pre_hook(lambda _m, args: seen.append(args[0].detach()))
    try:
        module(torch.tensor([list(prompt)] * rows), use_cache=False)
    finally:
        hook.remove()
    return seen[0]
