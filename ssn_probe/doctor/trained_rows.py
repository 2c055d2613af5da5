"""Are the rows that are trained with a neuron of ffn those that write it?

Silencing does not need these rows, so that an error here would show in no effect: training would move other weights.
"""

from collections.abc import Sequence
from typing import Any

from ssn_probe.doctor.checks import Check, failed, passed
from ssn_probe.doctor.module_weights import projection
from ssn_probe.doctor.probing import chosen_layers, plain_logits, prompts, spread
from ssn_probe.model.families import Matrix
from ssn_probe.model.subject import Subject

NEURONS = 4


def check_trained_rows(subject: Subject) -> Check:
    """Does every matrix that reads what the MLP is given hold rows of the neurons, and change them and no others?"""
    name, matrices = "rows of ffn", subject.family.weights["ffn"][:-1]
    for layer in chosen_layers(subject):
        block = subject.family.part(subject.model._module, subject.family.layers)[layer]
        named = [subject.family.part(block, matrix.path) for matrix in matrices]
        if forgotten := [path for path, part in _beside(subject, layer) if not any(part is one for one in named)]:
            return _wrong(name, f"{forgotten[0]} of layer {layer} also writes what down_proj reads")
        for matrix, part in zip(matrices, named, strict=True):
            if matrix.part is None and part.out_features != subject.widths["ffn"]:
                rows = f"{part.out_features} rows, of which {subject.widths['ffn']} are trained"
                return _wrong(name, f"{matrix.path} of layer {layer} has {rows}")
            indices = spread(subject.widths["ffn"], NEURONS)
            moved = _moved(subject, layer, matrix, indices)
            if not moved or set(moved) - set(indices):
                others = f"the neurons {', '.join(map(str, moved[:8]))}" if moved else "no neuron"
                where = f"rows {', '.join(map(str, indices))} of {matrix.part or matrix.path} in layer {layer}"
                return _wrong(name, f"{where} change {others}")
    paths = ", ".join(dict.fromkeys(matrix.path for matrix in matrices))
    return passed(
        name, f"{NEURONS} rows of each of {paths} change these neurons and no others; nothing else writes them"
    )


def _beside(subject: Subject, layer: int) -> list[tuple[str, Any]]:
    """What the MLP has beside `down_proj`: all with a matrix, and the names."""
    down = projection(subject.model._module, layer, "ffn")
    block = subject.family.part(subject.model._module, subject.family.layers)[layer]
    mlp = next(part for part in block.modules() if any(child is down for child in part.children()))
    found = [(path, part) for path, part in mlp.named_modules() if getattr(part, "weight", None) is not None]
    return [(path, part) for path, part in found if part.weight.ndim == 2 and part is not down]


def _moved(subject: Subject, layer: int, matrix: Matrix, indices: Sequence[int]) -> list[int]:
    """The neurons whose activation is another once these rows of the matrix are doubled."""
    import torch

    family = subject.family
    block = family.part(subject.model._module, family.layers)[layer]
    start = 0 if matrix.part is None else family.bounds(block, matrix.path, matrix.part)[0]
    weight, rows = family.part(block, matrix.path).weight, torch.tensor(indices) + start
    before, kept = _written(subject, layer), weight.detach().clone()
    try:
        with torch.no_grad():
            weight[rows.to(weight.device)] *= 2
        after = _written(subject, layer)
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    return (after != before).any(0).nonzero()[:, 0].tolist()


def _written(subject: Subject, layer: int) -> Any:
    """What `down_proj` is given of the longest prompt: [token, neuron]."""
    seen: list[Any] = []
    down = projection(subject.model._module, layer, "ffn")
    hook = down.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0][0].detach().clone()))
    try:
        plain_logits(subject, [max(prompts(subject), key=len)])
    finally:
        hook.remove()
    return seen[0]


def _wrong(name: str, found: str) -> Check:
    meaning = "Training would move the weights of other neurons, or a part of those of its own."
    return failed(
        name, found, meaning, "State in the family's row which projections the MLP has (`ffn_inputs`, `fused`)."
    )
