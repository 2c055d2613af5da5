"""Neurons silenced or scaled in the weights while a batch is generated, where that computes the same to the last bit.

An edit inside a trace is paid at every place in every step; weights are changed once. What reads a silent neuron of o
or ffn is its column of o_proj or down_proj, what writes one of q, k or v is its row and its bias: set to zero, every
sum has the terms that it has when the activation is. So it has with a factor that is a power of two, such as a dose of
½: it changes no digit of a product. Nothing is folded where the weights are not plain ones of this
process alone: over several devices, quantized, shared between modules or processes, adapted; nor on hosts. What was
there comes back bit for bit, whatever happens in between; it never leaves the memory.
"""

import math
from collections import Counter
from contextlib import contextmanager

import torch

from .generation import trace_generation

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
NARROW = (torch.float16,)
"""Of so few exponents that a factor may take digits from a weight."""


def trace_folded(model, inputs, places, edits, *rest):
    """`generation.trace_generation` of a model of this process, with what can be folded in the weights."""
    with folded(model, places, edits) as done:
        made = trace_generation(model, inputs, places, [] if done else edits, *rest)
    _, finite, *_ = made
    # a silent neuron is zero where it would be Inf, and Inf times a weight of zero is not
    return trace_generation(model, inputs, places, edits, *rest) if done and not finite else made


@contextmanager
def folded(model, places, edits):
    """Inside, the weights are those with the neurons in `edits` changed, and it gives True; else False, as they are.

    places: `edits.places_of` with all sites. edits: as `edits.prepared` makes them.
    """
    slots, kept = slots_of(model, places, edits), []
    try:
        for weight, axis, index, factor in slots:
            # in the processor's memory, so that a GPU needs none; and kept before it is changed
            old = weight.index_select(axis, index)
            kept.append(((weight, axis, index), old.cpu()))
            weight.index_copy_(axis, index, old * factor if factor else torch.zeros_like(old))
        yield bool(slots)
    finally:
        restore(kept)


def restore(kept):
    """Puts everything back, and only then lets an interruption through: kept has places of slots and what was there."""
    interruption = None
    while kept:
        try:
            (weight, axis, index), old = kept[-1]
            weight.index_copy_(axis, index, old.to(weight.device))
            kept.pop()
        except KeyboardInterrupt as error:
            interruption = error
    if interruption is not None:
        raise interruption


def slots_of(model, places, edits):
    """What is changed: weights or biases, the axis of their neurons, which of them, and by which factor. Nothing where
    not every edit can be folded, or a weight is not this process's alone.

    The tensors are those of `weight.data`: what is back when the call ends is no change of the weights, and torch,
    which counts changes, would have what is known of them measured anew (`measured_weights.weights_stamp`).
    """
    if not edits or any(factor_of(how, value) is None for *_, how, value in edits):
        return []
    module, slots = model._module, []
    owners = Counter(
        one.untyped_storage().data_ptr()
        for _, one in module.named_parameters(remove_duplicate=False)
        if not one.is_meta
    )
    for layer, site, index, how, value in edits:
        path, side, *span = places["modules"][site]
        linear = module.get_submodule(f"{places['layers']}.{layer}.{path}")
        parts = [(linear.weight, 1)] if side == "input" else [(linear.weight, 0), (linear.bias, 0)]
        parts = [(part, axis) for part, axis in parts if part is not None] if type(linear) is torch.nn.Linear else []
        factor = factor_of(how, value)
        alone = all(is_plain(part) and owners[part.untyped_storage().data_ptr()] == 1 for part, _ in parts)
        if not parts or not alone or (factor and any(part.dtype in NARROW for part, _ in parts)):
            return []
        slots += [(part.data, axis, index.to(part.device) + (span[0] if span else 0), factor) for part, axis in parts]
    return slots


def factor_of(how, value):
    """By what a weight is multiplied: 0 for silence, else a power of two; None for any other change."""
    if not isinstance(value, float):
        return None
    if how == "set":
        return 0.0 if value == 0 else None
    return value if how == "scale" and abs(math.frexp(value)[0]) == 0.5 else None


def is_plain(weight):
    """Is it a weight as it was trained, in this process's memory alone?"""
    return (
        type(weight) is torch.nn.Parameter
        and weight.dtype in DTYPES
        and not (weight.is_meta or weight.is_inference() or (weight.is_shared() and not weight.is_cuda))
    )
