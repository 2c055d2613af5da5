"""Reading and writing sites: the few lines that every body shares.

`places` is plain data: `{"layers": path, "depth": n, "head": path, "norm": path, "rotary": path, "head_norms": bool,
"score_cap": bool, "sites": {site: (path inside the layer, "input" | "output")}}`, with the sites in forward order.
"""


def reach(model, path):
    """The nnsight envoy at a dotted path below the model."""
    for name in path.split("."):
        model = getattr(model, name)
    return model


def layer_of(model, places, layer):
    """The envoy of one decoder layer."""
    return reach(model, places["layers"])[layer]


def read(layer, place):
    """The activation at a site: [prompt, token, neuron]. Works inside a trace only, and in forward order."""
    path, side = place
    module = reach(layer, path)
    return module.input if side == "input" else module.output


def write(model, places, edits):
    """Overwrite neurons at every token of the current forward.

    edits: (layer, site, index tensor, a number or one value per index), in forward order.
    """
    for layer, site, index, value in edits:
        overwrite(read(layer_of(model, places, layer), places["sites"][site]), index, value)


def overwrite(activation, index, value):
    """Set some neurons of an activation [prompt, token, neuron] at every token, in place."""
    activation[..., index] = value if isinstance(value, float) else value.to(activation.dtype)


def token_mask(model):
    """Which positions hold a token of the prompt and not padding: [prompt, token], bool."""
    return model.inputs[1]["attention_mask"].bool()
