"""Sparse Weight Editing (Liang et al. 2026, arXiv 2602.22554): a rival that trains nothing.

In one layer, the rows of gate and up of a few safety neurons are changed by a matrix in closed form, so that a harmful
request in any language moves them as the same request in the anchor does, and harmless requests move them as before.

Source: the abstract ("we formulate the cross-lingual alignment problem as a constrained linear transformation", "a
closed-form solution to optimally map the harmful representations of LRLs to the robust safety subspaces of HRLs, while
preserving general utility via a null-space projection constraint") and summaries by others, which have the rows of
up_proj and gate_proj in a single layer, a null-space *regularisation*, Cholesky and a truncated SVD, harmful and
harmless anchor prompts, both of which are needed, and a rank from 4 at which more changes nothing. The text that we
have has no formula. Ours: equation (1) below, and that targets are the anchor's parallel prompts, one by one; that
representations are read at the last prompt token; that the layer is the one with most of the neurons; and the values
of `keep` and `ridge`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ssn_probe.data.training_rows import Example, SafetyData, rows_to_map
from ssn_probe.errors import ModelError, RecipeError
from ssn_probe.model.chat import pad_left
from ssn_probe.model.computation import computation
from ssn_probe.model.digests import module_digest
from ssn_probe.model.families import family_of
from ssn_probe.model.plain_text import encode_messages
from ssn_probe.spec.node import to_json
from ssn_probe.spec.training_settings import Training
from ssn_probe.training.delta_file.record import EDIT
from ssn_probe.training.loop.frozen_model import evaluating
from ssn_probe.training.loop.train import Trained
from ssn_probe.training.weights.delta import Delta, Part
from ssn_probe.training.weights.neuron_weights import Neuron, Place, places_of, read_rows
from ssn_probe.training.weights.parameter_counts import fraction
from ssn_probe.training.weights.tied import tied_places

TOGETHER = 64
"""Prompts in a forward pass."""


def edited_rows(
    harmful: Float[Tensor, "prompt input"],
    wanted: Float[Tensor, "prompt neuron"],
    harmless: Float[Tensor, "other input"],
    *,
    rank: int,
    keep: float,
    ridge: float,
) -> Float[Tensor, "neuron input"]:
    """The Δ of rank at most `rank` that minimises, in double precision,

        ‖harmful Δᵀ − wanted‖² / prompts + keep · ‖harmless Δᵀ‖² / others + ridge · s · ‖Δ‖²,                    (1)

    s the mean square of the inputs, so that `ridge` has no unit. With C = L Lᵀ the matrix of the quadratic form, the
    minimum without a bound on the rank is Δ* = wantedᵀ harmful C⁻¹ / prompts, and with one it is the truncated SVD of
    Δ* L, times L⁻¹. The larger `keep`, the nearer is Δ to the null space of the harmless inputs.

    Raises:
        RecipeError: a rank above that of Δ*, or a ridge that leaves C singular.
        ModelError: NaN or Inf.
    """
    x, y, z = harmful.double(), wanted.double(), harmless.double()
    if not all(bool(one.isfinite().all()) for one in (x, y, z)):
        raise ModelError("The representations of some prompts are not finite.", "Load the model in float32.")
    size = torch.cat([x, z]).square().mean()
    metric = x.T @ x / len(x) + keep * z.T @ z / len(z) + ridge * size * torch.eye(x.shape[1], dtype=x.dtype)
    factor, failed = torch.linalg.cholesky_ex(metric)
    if int(failed):
        raise RecipeError(f"ridge={ridge:g} leaves the map of representations open", "Give a larger ridge.")
    whole = torch.cholesky_solve(x.T @ y / len(x), factor).T
    left, sizes, right = torch.linalg.svd(whole @ factor, full_matrices=False)
    most = int((sizes > 1e-10 * sizes[0]).sum()) if sizes[0] > 0 else 0
    if rank > most:
        raise RecipeError(f"the edit has rank {most:,}, and rank {rank:,} was asked for", "Ask for a lower rank.")
    cut = (left[:, :rank] * sizes[:rank]) @ right[:rank]
    return torch.linalg.solve_triangular(factor.T, cut.T, upper=True).T


def sparse_edit(
    module: Any,
    tokenizer: Any,
    neurons: Iterable[Neuron],
    data: SafetyData,
    *,
    anchor: str | None,
    rank: int,
    keep: float,
    ridge: float,
) -> Trained:
    """The edit as a change like that of a training: a `Delta` of rows of gate and up, without a step or a history.

    Raises:
        RecipeError: neurons that are not at ffn, no anchor, or a rank above what the data have.
        DataError: no harmless prompts, or no harmful prompt in two languages.
        ModelError: NaN or Inf.
    """
    chosen = _one_layer(neurons)
    places = tied_places(places_of(module, chosen))
    pairs, harmless = rows_to_map(data.name, data.examples, anchor)
    rows = [*(own for own, _ in pairs), *(other for _, other in pairs), *harmless]
    states = _states(module, tokenizer, rows, places)
    parts = []
    for place in places:
        own, target, kept = states[place.module].split([len(pairs), len(pairs), len(harmless)])
        base = read_rows(module, place).cpu()
        wanted = (target - own).double() @ base.double().T
        change = edited_rows(own, wanted, kept, rank=rank, keep=keep, ridge=ridge).float()
        parts.append(Part(place=place, base=base, change=change))
    delta = Delta(parts=tuple(parts))
    record = {
        "method": EDIT,
        "base": {
            "sha256": module_digest(module),
            "family": family_of(module.config).name,
            "config": computation(module.config),
            "dtype": str(delta.dtype).removeprefix("torch."),
        },
        "training": to_json(Training()),
        "edit": {"rank": rank, "keep": keep, "ridge": ridge, "layer": places[0].layer, "anchor": anchor},
        "data": data.describe(),
        "steps": {"done": 0, "planned": 0, "chosen": 0},
        "held_out_loss": None,
        "parameters": fraction(module, delta).to_dicts(),
    }
    return Trained(delta=delta, last=delta, kept={}, chosen_step=0, history=(), stopped_early=False, record=record)


def _one_layer(neurons: Iterable[Neuron]) -> list[Neuron]:
    """The neurons of the layer that has most of them, the first of several."""
    found = sorted(set(neurons))
    if not found:
        raise RecipeError("the set of neurons to edit is empty", "Raise top, or subtract less from it.")
    layer = Counter(layer for layer, _, _ in found).most_common(1)[0][0]
    return [neuron for neuron in found if neuron[0] == layer]


def _states(module: Any, tokenizer: Any, rows: Sequence[Example], places: Sequence[Place]) -> dict[str, Tensor]:
    """What the modules of some places read at the last prompt token: path → [row, input], on the CPU."""
    tokens = encode_messages(tokenizer, [row.text for row in rows])
    order = sorted(range(len(rows)), key=lambda row: len(tokens[row]))
    paths = dict.fromkeys(place.module for place in places)
    seen: dict[str, list[Tensor]] = {path: [] for path in paths}
    pad, device = tokenizer.pad_token_id or 0, str(module.get_input_embeddings().weight.device)

    def keep(path: str) -> Any:
        return lambda _module, given, _made: seen[path].append(given[0][:, -1].detach().float().cpu())

    handles = [module.get_submodule(path).register_forward_hook(keep(path)) for path in paths]
    try:
        with torch.no_grad(), evaluating(module):
            for start in range(0, len(order), TOGETHER):
                batch = pad_left([tokens[row] for row in order[start : start + TOGETHER]], pad, device)
                module(**batch, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    back = torch.tensor(order).argsort()
    return {path: torch.cat(parts)[back] for path, parts in seen.items()}
