"""What the untouched model computes below the first changed neuron, kept for the next set of neurons.

All compared sets run on the same prompts. So what a batch has below a set's first neuron (`bodies.below`) is computed
once in each process and kept there until others take its place, or the run is over. It is known by the batch's inputs
and by the model's weights as they are now (`_weights_of`), and takes `KEPT` bytes at most. A pass and what is kept for
it cost together what a whole pass does, so nothing is lost where no other set comes. Where the memory runs out, all
that is kept is given back before a batch gets smaller.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from ssn_probe.model.out_of_memory import SPARE
from ssn_probe.model.subject import Subject

KEPT = 2**28
"""Bytes that are kept of a model at most."""
LEAST = 0.1
"""Share of the layers that need not run, from which on it is worth it."""
STORES: WeakKeyDictionary[Subject, "OrderedDict[Any, tuple[int, Any]]"] = WeakKeyDictionary()
"""Values and their bytes, the last used at the end."""


class Kept(NamedTuple):
    """An argument of a body: what `bodies.below.trace_below` gives of these inputs, in `size` bytes.

    It travels to other processes in place of the value, which each computes for itself.
    """

    inputs: Mapping[str, Any]
    places: Mapping[str, Any]
    layer: int
    closed: bool
    generating: bool
    size: int


def below(
    subject: Subject,
    inputs: Mapping[str, Any],
    places: Mapping[str, Any],
    edits: Sequence[Any],
    *,
    generating: bool = False,
) -> Kept | None:
    """What a batch has below its first changed neuron; None where whole passes run.

    Args:
        inputs: of a pass, with a shared start, if any.
        edits: as `edits.prepared` makes them, for the batch.
        generating: is the pass followed by others, which see keys and values of all layers?
    """
    if not edits or any(how not in ("set", "scale") for *_, how, _ in edits):
        return None
    layer = min(edit[0] for edit in edits)
    sites = {edit[1] for edit in edits if edit[0] == layer}
    closed = sites == {"ffn"} and subject.n_layers * LEAST <= 1 and _is_linear(subject, layer)
    if layer + closed < subject.n_layers * LEAST:
        return None
    size = _bytes(subject, inputs, layer, closed, generating)
    given = {name: inputs[name] for name in ("input_ids", "attention_mask", "position_ids", "start") if name in inputs}
    return Kept(given, places, layer, closed, generating, size) if size <= KEPT else None


def _is_linear(subject: Subject, layer: int) -> bool:
    """Is what reads site ffn a plain linear map, with its weights as they are?"""
    import torch

    family, module = subject.family, subject.model._module
    linear = family.part(family.part(module, family.layers)[layer], family.modules["ffn"][0])
    return type(linear) is torch.nn.Linear and linear.weight.is_floating_point()


def _bytes(subject: Subject, inputs: Mapping[str, Any], layer: int, closed: bool, generating: bool) -> int:
    table = subject.model._module.get_input_embeddings().weight
    rest, keys = inputs["input_ids"].numel(), 2 * subject.widths["k"] * (layer + closed)
    start = inputs["start"][1]["input_ids"].numel() if "start" in inputs else 0
    channels = table.shape[-1] * (3 if closed else 1) + subject.widths["ffn"] * closed
    return table.element_size() * ((rest + start) * channels + (rest * generating + start) * keys)


def value_of(subject: Subject, kept: Kept) -> Any:
    """The value of such an argument in this process, computed or found; None where whole passes have to run."""
    from ssn_probe.tracing.bodies.below import trace_below

    weights = _weights_of(subject)
    if weights is None:
        return None
    store = STORES.setdefault(subject, OrderedDict())
    how = (kept.layer, kept.closed, kept.generating)
    key = (_fixed(kept.inputs), how, weights)
    if key not in store:
        store[key] = kept.size, trace_below(subject.model, kept.inputs, kept.places, *how)
        while sum(size for size, _ in store.values()) > KEPT:
            store.popitem(last=False)
    store.move_to_end(key)
    return store[key][1]


def give_back() -> bool:
    """Drops all that is kept in this process, since the memory runs out. Was there some?"""
    found = any(STORES.values())
    STORES.clear()
    return found


SPARE.append(give_back)


@contextmanager
def forgotten(subject: Subject) -> Iterator[None]:
    """What is kept of a model inside, in this process, is dropped at the end."""
    try:
        yield
    finally:
        STORES.pop(subject, None)


def _weights_of(subject: Subject) -> Any:
    """Equal to an earlier one if no weight has changed since; None: who knows. See `measured_weights.weights_stamp`."""
    from torch.multiprocessing.reductions import StorageWeakRef

    weights = list(subject.model._module.parameters())
    if any(weight.is_inference() for weight in weights):
        return None
    return tuple((StorageWeakRef(one.untyped_storage()), one.storage_offset(), one._version) for one in weights)


def _fixed(value: Any) -> Any:
    """Plain data by its content, to be looked up by."""
    import torch

    if isinstance(value, Mapping):
        return tuple((name, _fixed(value[name])) for name in sorted(value))
    if isinstance(value, list | tuple):
        return tuple(map(_fixed, value))
    if isinstance(value, torch.Tensor):
        content = value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return str(value.dtype), tuple(value.shape), content
    return value
