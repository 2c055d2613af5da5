"""A set changes nothing before its first neuron: what the untouched model has there is computed once for all sets.

The layers below the first changed one are skipped. Where that one's changes are `closed`, of neurons of site ffn alone,
its modules are skipped, too: the MLP's output changes by (new − untouched activation) · W[:, neurons]ᵀ, and its norms
and residual connections run as they are. So of changes that set or scale neurons at every token, and not of those that
carry another run's values over.
"""

import nnsight
import torch

from .closed_form import exact
from .site_access import change, layer_of, parent, put, reach, write, write_narrowed


def trace_below(model, inputs, places, layer, closed, generating):
    """What passes begin with that change neurons from `layer` on, for the rows of a batch, and their starts if any.

    A list of {"layer", "closed"; "input" of that layer [row, token, hidden]; where it is closed "ffn", its activations,
    and what its modules return, "attention" and "mlp", with how many other things; "cache": keys and values of the
    layers that are skipped, of starts, and for `generating` of the rows}. None where the untouched model has NaN or Inf
    there, or its MLP returns anything but what down_proj does: then whole passes run.
    """
    at, found, inputs = (layer, closed), [], dict(inputs)
    if "start" in inputs:  # see `start.started`
        name, start, rows = inputs.pop("start")
        first, cache = _untouched(model, start, places, *at, caching=True)
        cache.batch_select_indices(rows)
        found, inputs = [first], inputs | {name: cache}
    rest, _ = _untouched(model, inputs | {"use_cache": bool(found) or generating}, places, *at, caching=generating)
    found = [rest, *found]
    tensors = [part for stage in found for part in stage.values() if torch.is_tensor(part)]
    return found if all(bool(part.isfinite().all()) for part in tensors) else None


def _untouched(model, inputs, places, layer, closed, *, caching):
    """What is kept of a pass that skips what is above, and its cache."""
    top, width = layer + closed, inputs["input_ids"].shape[1]
    inputs = inputs | {"logits_to_keep": torch.zeros(1, dtype=torch.int64, device=inputs["input_ids"].device)}
    with torch.no_grad(), model.trace(**inputs):
        envoy = layer_of(model, places, layer)
        found = {"layer": layer, "closed": closed, "input": envoy.input}
        if closed:
            attention, mlp = (parent(places["modules"][site][0]) for site in ("o", "ffn"))
            found["attention"], found["attention returns"] = _returned(reach(envoy, attention).output)
            found["ffn"] = reach(envoy, places["modules"]["ffn"][0]).input
            made = reach(envoy, places["modules"]["ffn"][0]).output
            found["mlp"], found["mlp returns"] = _returned(reach(envoy, mlp).output)
            found["mlp"] = torch.where(found["mlp"] == made, made, torch.nan)
        for above in range(top, places["depth"]):
            layer_of(model, places, above).skip(found["input"])
        made = model.output
        stage = nnsight.save(found)
        cache = nnsight.save(made["cache" if "cache" in made else "past_key_values"] if inputs["use_cache"] else None)
    layers = cache.layers[:top] if caching else []
    stage["cache"] = [tuple(part[:, :, -width:].contiguous() for part in (one.keys, one.values)) for one in layers]
    return stage, cache


def _returned(output):
    """A module's own output, and how many things it returns; 0 where that is just this tensor."""
    return (output[0], len(output)) if isinstance(output, tuple) else (output, 0)


def write_above(model, places, edits, stage, kept=None):
    """`write`, or with `kept` `write_narrowed`, behind what `stage` has; None: everything runs."""
    if stage is not None:
        layer, closed = stage["layer"], stage["closed"]
        for below in range(layer):
            layer_of(model, places, below).skip(stage["input"])
        if closed:
            own, edits = [edit for edit in edits if edit[0] == layer], [edit for edit in edits if edit[0] > layer]
            envoy = layer_of(model, places, layer)
            put(envoy, places["modules"]["o"][0], stage["attention"], stage["attention returns"])
            put(envoy, places["modules"]["ffn"][0], _changed(envoy, places, own, stage), stage["mlp returns"])
            kept = None if layer == places["depth"] - 1 else kept
    if kept is None:
        write(model, places, edits)
    else:
        write_narrowed(model, places, edits, kept)


def _changed(layer, places, edits, stage):
    """What the MLP of a layer returns once its neurons are changed, rounded once: [row, token, hidden]."""
    weight = reach(layer, places["modules"]["ffn"][0]).weight
    index = torch.cat([edit[2] for edit in edits]).unique().to(stage["ffn"].device)
    new = stage["ffn"].clone()
    for _, _, some, how, value in edits:
        change(new, some, how, value)
    moved, columns = exact(new[..., index]) - exact(stage["ffn"][..., index]), exact(weight[:, index])
    return (exact(stage["mlp"]) + moved @ columns.T).to(stage["mlp"].dtype)


def fill(cache, stage):
    """Puts keys and values of the layers that were skipped into a cache, as if they had run."""
    for layer, (keys, values) in enumerate([] if stage is None else stage["cache"]):
        cache.update(keys, values, layer)
