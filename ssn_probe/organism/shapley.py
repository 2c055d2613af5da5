"""Shapley values of planted neurons: how much each neuron contributes to what the safety stage taught.

A coalition S of planted neurons is on, the others are silenced, and v(S) is the mean refusal log-odds on prompts that
nothing else sees. With all of them silenced the model is the pretrained one, so v(all) − v(none) is what the safety
stage taught, and the Shapley values divide exactly that among the neurons: each gets its mean contribution over
random orders of joining. (Shapley 1953; antithetic permutation pairs after Mitchell et al. 2022, 2104.12199.)

A single ablation would not suffice: where neurons can replace each other, silencing one of them changes little.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ssn_probe.errors import RecipeError
from ssn_probe.neurons import Site
from ssn_probe.organism.planting import reader

Neuron = tuple[int, Site, int]
Report = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Prompts of equal length, and what is read at the last token of each.

    r(x) is the logit of the refusal opening minus that of the compliant opening; with a single opening of one token on
    each side this is the difference of their log-probabilities.
    """

    tokens: Int[Tensor, "prompt token"]
    refusal: Int[Tensor, " prompt"]
    compliant: Int[Tensor, " prompt"]
    weights: Float[Tensor, "prompt question"]
    """v(S) of question q is the sum over prompts of weight × r."""


@dataclass(frozen=True, kw_only=True)
class Shapley:
    """Values of the neurons in their order, their standard errors over permutation pairs, and v of none and of all."""

    values: Float[Tensor, "neuron question"]
    errors: Float[Tensor, "neuron question"]
    none: Float[Tensor, " question"]
    all: Float[Tensor, " question"]
    pairs: int


class Coalitions:
    """The model with some planted neurons on and the rest silenced; layers below a change are not computed again.

    For every layer it stores the residual stream before and after attention, and what `down_proj` reads. The last
    layer continues with the last token only.
    """

    def __init__(self, model: Any, neurons: Sequence[Neuron], questions: Questions):
        self.model, self.neurons, self.questions = model, neurons, questions
        self.read = model.lm_head.weight[questions.refusal] - model.lm_head.weight[questions.compliant]
        places: set[tuple[int, Site]] = {(layer, site) for layer, site, _ in neurons}
        self.kept = {place: torch.ones(reader(model, *place).in_features) for place in places}
        self.entering = [model.model.embed_tokens(questions.tokens)] * (len(model.model.layers) + 1)
        self.attended, self.activations = list(self.entering), list(self.entering)
        self.rotation = model.model.rotary_emb(self.entering[0], torch.arange(questions.tokens.shape[1])[None])

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Inside, the model loses the neurons that are off."""
        with ExitStack() as hooks:
            for place, kept in self.kept.items():
                hooks.enter_context(reader(self.model, *place).register_forward_pre_hook(partial(_keep, kept)))
            yield

    def turn(self, on: bool) -> Float[Tensor, " question"]:
        """Turn all neurons on or off; v of that."""
        for layer, site, channel in self.neurons:
            self.kept[layer, site][channel] = float(on)
        return self._value(0, "o")

    def join(self, number: int) -> Float[Tensor, " question"]:
        """Turn one neuron on; v of the larger coalition."""
        layer, site, channel = self.neurons[number]
        self.kept[layer, site][channel] = 1.0
        return self._value(layer, site)

    def _value(self, changed: int, site: Site) -> Float[Tensor, " question"]:
        """v, when nothing has changed below this site of this layer."""
        layers = self.model.model.layers
        for layer in range(changed, len(layers)):
            if layer > changed or site == "o":
                self._attend(layer)
            self.entering[layer + 1] = self.attended[layer] + layers[layer].mlp.down_proj(self.activations[layer])
        last = self.model.model.norm(self.entering[-1][:, -1])  # [prompt, width]
        return ((last * self.read).sum(-1, keepdim=True) * self.questions.weights).double().sum(0)

    def _attend(self, layer: int) -> None:
        block, entering = self.model.model.layers[layer], self.entering[layer]
        # Without a mask the attention is causal, which is sufficient for prompts of equal length.
        written, _ = block.self_attn(
            block.input_layernorm(entering), position_embeddings=self.rotation, attention_mask=None
        )
        attended = entering + written
        if layer == len(self.model.model.layers) - 1:
            attended = attended[:, -1:]
        read = block.post_attention_layernorm(attended)
        self.attended[layer] = attended
        self.activations[layer] = block.mlp.act_fn(block.mlp.gate_proj(read)) * block.mlp.up_proj(read)


def _keep(kept: Tensor, _module: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0] * kept,)


@torch.no_grad()
def shapley(
    model: Any, neurons: Sequence[Neuron], questions: Questions, *, pairs: int, seed: int, report: Report
) -> Shapley:
    """Shapley values of the neurons, from `pairs` random orders of joining, each also taken in reverse.

    A neuron's two contributions in a pair count as a single draw, so that the standard errors are over independent
    draws. Raises RecipeError for fewer than two pairs, which have no standard error. `report(done, pairs)` is called
    after every pair.
    """
    if pairs < 2:
        raise RecipeError(f"Standard errors need at least two permutation pairs, not {pairs}.", "Give 2 or more.")
    generator = Generator().manual_seed(seed)
    coalitions, draws = Coalitions(model, neurons, questions), []
    with coalitions.hooked():
        everyone, nobody = coalitions.turn(True), coalitions.turn(False)
        for done in range(1, pairs + 1):
            order = torch.randperm(len(neurons), generator=generator)
            walks = [_walk(coalitions, joining) for joining in (order, order.flip(0))]
            draws.append(torch.stack(walks).mean(0))
            report(done, pairs)
    drawn = torch.stack(draws)  # [pair, neuron, question]
    return Shapley(values=drawn.mean(0), errors=drawn.std(0) / pairs**0.5, none=nobody, all=everyone, pairs=pairs)


def _walk(coalitions: Coalitions, order: Int[Tensor, " neuron"]) -> Float[Tensor, "neuron question"]:
    """What every neuron adds when the neurons join in this order."""
    before = coalitions.turn(False)
    added = torch.zeros(len(order), len(before), dtype=before.dtype)
    for number in order.tolist():
        after = coalitions.join(number)
        added[number] = after - before
        before = after
    return added
