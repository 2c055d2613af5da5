"""What the probe is compared with, each in the way its own documentation shows: the same work, or the benchmark ends.

A module of this package has `works(case, inputs)`: what the tool does of "ffn", "attribution", "log_odds" and
"responses", on the same weights and the same batches.

- "ffn": ‖Δ output of down_proj‖ without a neuron, mean over a prompt's tokens, {(layer, "ffn"): [prompt, neuron]}.
- "attribution": Σ over tokens of ∂r/∂a · a, {(layer, site): [prompt, neuron]}; r by openings of one token.
- "log_odds": r(x) [prompt], and "responses": greedy, as texts; both while the case's neurons are silent.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.hooks import Place, module_at
from benchmarks.models import Case
from benchmarks.speed.plain import Inputs
from ssn_probe.neurons import SITES

Work = Literal["ffn", "attribution", "log_odds", "responses"]
Works = Mapping[Work, Callable[[], Any]]

NOT_INSTALLED = "not installed"
PEERS = {
    "torch hooks": ("torch", "hooks"),
    "nnsight": ("nnsight", "by_nnsight"),
    "pyvene": ("pyvene", "by_pyvene"),
    "TransformerLens": ("transformer_lens", "by_transformer_lens"),
}
"""Name in the table → what must be installed, and the module here. The last two are optional: see README.md."""


def works_of(case: Case, inputs: Inputs) -> dict[str, Works | str]:
    """What every peer does, or why it does nothing."""
    return {
        name: import_module(f"{__name__}.{module}").works(case, inputs) if find_spec(package) else NOT_INSTALLED
        for name, (package, module) in PEERS.items()
    }


def all_places(case: Case) -> list[Place]:
    """Every layer and site, in forward order."""
    return [(layer, site) for layer in range(case.subject.n_layers) for site in SITES]


def silenced(case: Case) -> dict[Place, Tensor]:
    """The indices of the case's neurons, by place."""
    return {(layer, site): torch.tensor(indices, device=case.subject.device) for layer, site, indices, _ in case.edits}


def silence(index: Tensor, activation: Tensor) -> None:
    """Sets neurons to zero, in place, without a GPU having to wait for the CPU."""
    activation.index_fill_(-1, index, 0)


def log_odds(case: Case, logits: Tensor) -> Tensor:
    """r(x) [prompt] of openings of one token, from the last position's logits [prompt, vocabulary]."""
    refusal, compliant = ([word for (word,) in side] for side in (case.single.refusal, case.single.compliant))
    logits = logits.float()
    return logits[:, refusal].logsumexp(-1) - logits[:, compliant].logsumexp(-1)


def column_norms(case: Case, layer: int) -> Tensor:
    """‖column‖ of down_proj, in single precision: [neuron]."""
    return module_at(case.plain, case.subject.family, (layer, "ffn"))[0].weight.float().norm(dim=0)


def mean_size(activation: Tensor, norms: Tensor, mask: Tensor) -> Tensor:
    """|a| · ‖column‖, mean over real tokens: [prompt, neuron]. mask: [prompt, token]."""
    weight = mask / mask.sum(-1, keepdim=True)
    return torch.einsum("btn,bt->bn", activation.abs().float(), weight.float()) * norms


def product(activation: Tensor, gradient: Tensor, mask: Tensor) -> Tensor:
    """Σ over real tokens of gradient × activation: [prompt, neuron]."""
    return (activation.detach().float() * gradient.float() * mask[..., None]).sum(1)


def joined(parts: list[dict[Place, Tensor]]) -> dict[Place, Tensor]:
    """The results of several batches as one."""
    return {place: torch.cat([part[place] for part in parts]) for place in parts[0]}
