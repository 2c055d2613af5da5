"""A delta in the weights of a model, and out again bit for bit.

A study measures the weights that would be shipped: `written` and `applied` put base + change into the weights, rounded
to their dtype as in a saved model, and put the kept base rows back afterwards. Two checks come first. Every row must
be, bit for bit, the base row that the delta was trained on; for a delta file the whole model must also have the digest
of its base. A model that already has the delta fails both.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ssn_probe.errors import ModelError
from ssn_probe.model.computation import computation, first_difference
from ssn_probe.model.digests import module_digest
from ssn_probe.model.families import family_of
from ssn_probe.training.delta_file.file import DeltaFile
from ssn_probe.training.weights.adapter import Adapter
from ssn_probe.training.weights.delta import Delta, Part, Rounding, cost_of, rounding
from ssn_probe.training.weights.neuron_weights import read_rows, span_of, write_rows
from ssn_probe.training.weights.trainable import Change


@contextmanager
def written(module: Any, delta: Change) -> Iterator[None]:
    """Inside, the model's weights hold the change; outside they are as they were, bit for bit.

    For a change of this very model, as `train` passes to its `watch`. Raises ModelError if a row of a delta is not the
    base's; adapters keep no rows, and can be written into any model that has their matrices.
    """
    if isinstance(delta, Adapter):
        with _adapted(module, delta):
            yield
        return
    write_in(module, delta)
    try:
        yield
    finally:
        take_out(module, delta)


@contextmanager
def _adapted(module: Any, adapter: Adapter) -> Iterator[None]:
    """Whole matrices are kept aside: half precision cannot take a low-rank change out again exactly."""
    weights = {part.module: _weight(module, part.module) for part in adapter.parts}
    kept = {path: weight.detach().cpu().clone() for path, weight in weights.items()}
    with torch.no_grad():
        try:
            for part in adapter.parts:
                weights[part.module].copy_(part.merged(weights[part.module]))
            yield
        finally:
            for path, weight in weights.items():
                weight.copy_(kept[path])


@contextmanager
def applied(module: Any, file: DeltaFile) -> Iterator[None]:
    """Like `written`, for a delta file: the base is checked by digest first. Raises ModelError for another base."""
    check_base(module, file)
    with written(module, file.delta):
        yield


def unmerge(module: Any, file: DeltaFile) -> None:
    """Puts the base rows back into a merged model, and checks by digest that it is the base again, bit for bit.

    Raises:
        ModelError: a model without this delta, or with other changes besides. Nothing is changed then.
    """
    delta = file.rows
    for part in delta.parts:
        merged = part.merged(_weight(module, part.module).dtype)
        _check_rows(module, part, merged, "does not have this delta")
    take_out(module, delta)
    if _digest(module, file) != file.base_digest:
        write_in(module, delta)
        raise ModelError(
            f"Without the delta, the model is still not its base {_base(file)}: it was also changed elsewhere.",
            "Load the model that was merged, in the dtype in which it was merged.",
        )


def check_base(module: Any, file: DeltaFile) -> None:
    """Raises ModelError unless the model computes as the delta's base did: its family, its config, all its weights."""
    family = family_of(module.config).name
    if file.about["base"].get("family", family) != family:
        raise ModelError(
            f"This is not the base of the delta: it is a {family} model, the base a "
            f"{file.about['base']['family']} model.",
            f"The delta belongs to {_base(file)}.",
        )
    ours, theirs = computation(module.config), file.about["base"].get("config") or {}
    if (name := first_difference(ours, theirs)) is not None:
        raise ModelError(
            f"This is not the base of the delta: config.json has {name} {ours[name]!r:.80}, that of the base "
            f"{theirs[name]!r:.80}.",
            f"The delta belongs to {_base(file)}. With other settings, the same weights compute other numbers.",
        )
    found = _digest(module, file)
    if found != file.base_digest:
        raise ModelError(
            f"This is not the base of the delta: its weights have SHA-256 {found[:12]}…, those of "
            f"the base {file.base_digest[:12]}…",
            f"The delta belongs to {_base(file)}, unmerged and in {file.about['base'].get('dtype')} precision.",
        )


def _digest(module: Any, file: DeltaFile) -> str:
    """The digest of a model as that of a delta's base was taken: a base in float32 is the same in float64."""
    return module_digest(module, single=file.base_dtype != torch.float64)


def rounding_in(module: Any, change: Change) -> Rounding:
    """What it costs to write a change into the weights of its model, in their precision."""
    if isinstance(change, Delta):
        return rounding(change, change.dtype)
    with torch.no_grad():
        weights = ((_weight(module, part.module), part) for part in change.parts)
        return cost_of((weight, part.merged(weight), part.change(weight)) for weight, part in weights)


def write_in(module: Any, delta: Delta) -> None:
    """Writes the delta into the weights. Raises ModelError, and changes nothing, if a row is not the base's."""
    for part in delta.parts:
        _check_rows(module, part, part.base, "is not the base of this delta, or already has it")
    for part in delta.parts:
        write_rows(module, part.place, part.merged(_weight(module, part.module).dtype))


def take_out(module: Any, delta: Delta) -> None:
    """Writes the base rows back without a check."""
    for part in delta.parts:
        write_rows(module, part.place, part.base)


def _weight(module: Any, path: str) -> torch.Tensor:
    try:
        weight = module.get_submodule(path).weight
    except AttributeError as error:
        raise ModelError(f"The model has no {path}.", "Load the delta's own base.") from error
    if hasattr(weight, "full_tensor"):
        raise ModelError("A delta cannot be written into a sharded model.", "Load the model on one device.")
    return weight


def _check_rows(module: Any, part: Part, rows: torch.Tensor, otherwise: str) -> None:
    weight, place = _weight(module, part.place.module), part.place
    first, end = span_of(module, place)
    width = weight.shape[1 if place.axis == "row" else 0]
    fits = place.indices[-1] < end - first and part.change.shape[1] == width
    if not fits or not torch.equal(read_rows(module, place).cpu(), rows.to(weight.dtype)):
        raise ModelError(f"The model {otherwise}: the weights of {place.module} differ.", "Load the delta's own base.")


def _base(file: DeltaFile) -> str:
    base = file.about["base"]
    revision = f" at {base['revision']}" if base.get("revision") else ""
    return f"{base.get('name', 'a model without a name')}{revision}"
