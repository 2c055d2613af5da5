"""Reading and writing sites: the few lines that every body shares.

`places` is plain data: the fields of the model's `Family`, "depth", the number of layers, and "sites", those of its
"modules" that are wanted, `{site: (path inside the layer, "input" | "output")}`, in forward order; where a module
holds several sites, the first and the end of the site's channels follow. What else a body must know of a module is in
`places`, too: in a host's sandbox it can be called, and not be looked at.

Values that a body is given may lie on another device than the activations, which may themselves lie on several.
"""

from functools import partial

import torch


def reach(model, path):
    """The nnsight envoy at a dotted path below the model."""
    for name in path.split("."):
        model = getattr(model, name)
    return model


def layer_of(model, places, layer):
    """The envoy of one decoder layer."""
    return reach(model, places["layers"])[layer]


def parent(path):
    """The path of the module that a module is in."""
    return path.rpartition(".")[0]


def put(layer, path, value, returns):
    """The module around a linear map returns `value` without running; the rest of what it returns is None.

    returns: how many things it returns; 0 where that is one tensor by itself.
    """
    reach(layer, parent(path)).skip((value, *[None] * (returns - 1)) if returns else value)


def read(layer, place):
    """The activation at a site: [prompt, token, neuron]. Works inside a trace only, and in forward order."""
    return part_of(read_whole(layer, place), place)


def read_whole(layer, place):
    """The activation of a site's module, with what else it holds."""
    module = reach(layer, place[0])
    return module.input if place[1] == "input" else module.output


def part_of(whole, place):
    """A site's channels of its module's activation, or of the gradient of one: a view."""
    return whole if len(place) == 2 else whole[..., place[2] : place[3]]


def weight_of(module):
    """A module's weight, put together if it is sharded over processes; None where a job may not read it."""
    weight = getattr(module, "weight", None)
    return weight if weight is None or not hasattr(weight, "full_tensor") else weight.full_tensor()


def multiply(layer, place, factor, sequences):
    """Put an activation's product with [prompt, neuron] in its place; a prompt has so many rows. Gradients flow on."""
    module, activation = reach(layer, place[0]), read_whole(layer, place)
    rows = factor.repeat_interleave(sequences, 0)[:, None]
    if len(place) > 2:  # what else the module holds stays as it is
        rows = torch.nn.functional.pad(rows, (place[2], activation.shape[-1] - place[3]), value=1.0)
    product = activation * rows.to(activation.device, activation.dtype)
    if place[1] == "input":
        module.input = product
    else:
        module.output = product


def write(model, places, edits, step=0):
    """Change neurons in the current forward; `step` counts the forwards of a generation, 0 is the prompt's.

    edits: (layer, site, index tensor, how, value), in forward order; see `change`.
    """
    for layer, site, index, how, value in edits:
        change(read(layer_of(model, places, layer), places["sites"][site]), index, how, value, step)


def write_narrowed(model, places, edits, kept):
    """`write`, and the last layer's output projection and ffn run at the positions in `kept` alone.

    Nothing after the last layer's attention mixes positions, so what is read there stays the same. Elsewhere the
    layer adds nothing. places["narrow"]: the path of the ffn as a whole; without it everything runs everywhere.
    """
    last = places["depth"] - 1
    late = [edit for edit in edits if edit[0] == last and edit[1] in ("o", "ffn")]
    if not places.get("narrow") or any(edit[3].startswith("carry") for edit in late):
        write(model, places, edits)
        return
    write(model, places, [edit for edit in edits if edit[0] < last or edit[1] not in ("o", "ffn")])
    layer = layer_of(model, places, last)
    for site, path in (("o", places["sites"]["o"][0]), ("ffn", places["narrow"])):
        own = [edit for edit in late if edit[1] == site]
        run_narrowed(layer, path, kept, partial(write, model, places, own))


def run_narrowed(layer, path, kept, within=None):
    """Has a module of a layer run at the positions in `kept` alone, and `within` called when it runs; elsewhere it puts
    out 0."""
    module = reach(layer, path)
    given = module.input
    module.input = given[:, kept.to(given.device)]
    if within is not None:
        within()
    made = module.output
    whole = made.new_zeros(*given.shape[:2], made.shape[-1])
    whole[:, kept.to(made.device)] = made
    module.output = whole


def change(activation, index, how, value, step=0):
    """Change some neurons of an activation [prompt, token, neuron] in place.

    how: "set" them to a number or to one value per index, or "scale" them by a number, at every token; or "carry" what
    another run's neurons did at this step to one token of each prompt, see `carry`; "carry along" does so at all steps,
    each at its own token, counted from the one that is given for the first. With
    "silence", index[i] is zero in row value[i].
    """
    if how == "carry":
        carry(activation, index, value, step)
    elif how == "carry along":
        for later in range(min(value["values"].shape[1], activation.shape[1])):
            # past a prompt's steps nothing changes, wherever that is
            carry(activation, index, value | {"token": (value["token"] + later).clamp_max(-1)}, later)
    elif how == "silence":
        activation[value, :, index] = 0
    elif how == "scale":
        activation[..., index.to(activation.device)] *= value
    elif isinstance(value, float):
        activation.index_fill_(-1, index.to(activation.device), value)  # assigned, it would make a GPU wait for the CPU
    else:
        activation[..., index.to(activation.device)] = value.to(activation.device, activation.dtype)


def carry(activation, index, carried, step):
    """Put another run's values in place at one token of each prompt; past that run's end nothing changes.

    carried: {"values": [prompt, step, neuron], "steps": how many of them each prompt has, "token": where, counted from
    the end: -1, or further back where a forced opening follows the prompt}.
    """
    if step >= carried["values"].shape[1]:
        return
    device = activation.device
    row = torch.arange(len(activation), device=device)[:, None]
    place = (row, carried["token"].to(device)[:, None], index.to(device))
    own, other = activation[place], carried["values"][:, step].to(device, activation.dtype)
    activation[place] = torch.where(carried["steps"].to(device)[:, None] > step, other, own)


def last_values(model, places, wanted):
    """What some neurons are at the last token of the current forward: [prompt, neuron], in the order of `wanted`.

    wanted: (layer, site, index tensor), in forward order.
    """
    found = []
    for layer, site, index in wanted:
        last = read(layer_of(model, places, layer), places["sites"][site])[:, -1]
        found.append(last[:, index.to(last.device)])
    return torch.cat([one.to(found[0].device) for one in found], -1)


def token_mask(model):
    """Which positions hold a token of the prompt and not padding: [prompt, token], bool."""
    mask = model.inputs[1]["attention_mask"]
    if mask.ndim == 2:
        return mask.bool()
    sees = (mask if mask.dtype == torch.bool else mask == 0)[:, 0]
    # padding sees the first position; what is no padding sees it only where that is a token, as the last one does
    return sees[:, -1:, 0] | ~sees[:, :, 0]
