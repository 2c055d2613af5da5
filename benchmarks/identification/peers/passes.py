"""Passes in plain torch: activations of every neuron, and gradients of a read-out, while neurons are multiplied.

Peers' definitions are computed through this and not through the package's tracing, so that both can be wrong in other
ways only. For models whose q, k and v have a module each, and for openings of one token: a prompt is one sequence.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.hooks import Place, hooked, module_at
from ssn_probe.errors import ModelError
from ssn_probe.model.chat import pad_left
from ssn_probe.model.openings import Openings
from ssn_probe.model.subject import Subject
from ssn_probe.neurons import Site

Change = Callable[[Place, Tensor], Tensor]
"""Place and activation [prompt, token, neuron] → what the model goes on with."""
Reading = Callable[[Tensor], Tensor]
"""Logits at a prompt's last token [prompt, vocabulary] → what is read [prompt]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """One batch: activations and gradients by place [prompt, token, neuron], the real tokens, and what was read."""

    activations: Mapping[Place, Tensor]
    gradients: Mapping[Place, Tensor]
    mask: Tensor
    read: Tensor


def log_odds(openings: Openings) -> Reading:
    """r(x): logsumexp of the logits of refusal openings − that of compliant ones. Raises ModelError for longer ones."""
    refusal, compliant = (_one_token(side) for side in (openings.refusal, openings.compliant))
    return lambda logits: logits[:, refusal].logsumexp(-1) - logits[:, compliant].logsumexp(-1)


def refusal_loss(openings: Openings) -> Reading:
    """The loss of a refusal: −log of the probability of the refusal openings, in nats."""
    refusal = _one_token(openings.refusal)
    return lambda logits: logits.logsumexp(-1) - logits[:, refusal].logsumexp(-1)


def _one_token(side: Sequence[Sequence[int]]) -> list[int]:
    if any(len(opening) != 1 for opening in side):
        raise ModelError("An opening has several tokens.", "Compare methods on models with openings of one token.")
    return [opening[0] for opening in side]


def places_of(subject: Subject, sites: Sequence[Site]) -> list[Place]:
    """Every layer and site, in forward order."""
    return [(layer, site) for layer in range(subject.n_layers) for site in sites]


def module_of(subject: Subject, place: Place) -> Any:
    """The module whose input or output a site is."""
    return module_at(subject.model._module, subject.family, place)[0]


def passed(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    places: Sequence[Place],
    read: Reading | None = None,
    change: Change | None = None,
) -> Pass:
    """One forward pass of all prompts, with `read` one backward pass too.

    `activations` are those before `change`, `gradients` those of the sum of what is read with respect to what the
    model went on with. The weights are frozen; the embeddings' output is where the graph begins.
    """
    inputs = pad_left(tokens, subject.pad_id, subject.device)
    seen: dict[Place, Tensor] = {}
    used: dict[Place, Tensor] = {}

    def at(place: Place, activation: Tensor) -> Tensor:
        seen[place] = activation.detach()
        used[place] = activation if change is None else change(place, activation)
        return used[place]

    last = torch.tensor([inputs["input_ids"].shape[1] - 1], device=subject.device)
    changes, module = {place: partial(at, place) for place in places}, subject.model._module
    with (
        torch.set_grad_enabled(read is not None),
        hooked(module, subject.family, changes),
        _grown(subject, here=read is not None),
    ):
        logits = module(**inputs, use_cache=False, logits_to_keep=last).logits[:, -1].float()
        value = torch.zeros(len(tokens)) if read is None else read(logits)
        found = () if read is None else torch.autograd.grad(value.sum(), [used[place] for place in places])
    gradients = dict(zip(places, found, strict=False))
    return Pass(
        activations=seen, gradients=gradients, mask=inputs["attention_mask"].bool()[..., None], read=value.detach()
    )


@contextmanager
def _grown(subject: Subject, *, here: bool) -> Iterator[None]:
    """Inside, the graph of a pass begins at what the embeddings give, if it is to grow at all."""
    if not here:
        yield
        return
    first = subject.model._module.get_input_embeddings()
    handle = first.register_forward_hook(lambda _m, _given, made: made.detach().requires_grad_(True))
    try:
        yield
    finally:
        handle.remove()


def shares(activations: Mapping[Place, Tensor], gradients: Mapping[Place, Tensor], mask: Tensor) -> dict[Place, Tensor]:
    """Σ over tokens of gradient × activation: [prompt, neuron] by place."""
    return {place: (mask * activations[place] * gradients[place]).sum(1) for place in gradients}


def candidates_of(effects: Mapping[Place, Tensor], share: float) -> dict[Place, Tensor]:
    """Which neurons of each prompt and place are the `share` whose effects are largest in size: [prompt, neuron]."""
    found = {}
    for place, effect in effects.items():
        size = effect.abs()
        least = size.topk(max(1, -int(-share * size.shape[-1] // 1))).values[:, -1:]
        found[place] = (size >= least) & (size > 0)
    return found
