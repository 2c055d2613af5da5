"""Exact ablations of single neurons that compute only what the neuron can change.

A neuron of layer l changes nothing below l, so a pass begins with the input that l had in the untouched pass: the
layers below are skipped. What feeds a linear map changes its output in closed form, by −a_t · W[:, i], so for ffn, o
and v the module is not run again either: its output in the untouched pass, less that, is put in its place. For q and k,
and where a module adds something to its linear map's output, the neuron is silenced in layer l as anywhere else.

Rows of a batch are run-major: run 0 is untouched, run i + 1 lacks neuron i; a run has one row per sequence of the
prompt. For a model whose weights and modules are at hand: the trusted side of the table in docs/architecture.md.
"""

import nnsight
import torch
from einops import rearrange, repeat

from .closed_form import stored_weight
from .refusal import read_out
from .site_access import layer_of, parent, put, reach, read


def trace_untouched(model, inputs, places, layers, scoring):
    """What the passes without a neuron begin with, of every wanted layer: {layer: {name: tensor}}; and the log-odds.

    layers: {layer: sites of the neurons there}, on which it depends what is kept: "input" of the layer; "o" and "ffn",
    the inputs of the linear maps; "attention" and "mlp", what those modules return, or None where that is not just what
    their linear maps return. [sequence, token, channel] each. scoring: of `trace_resumed`; with None there are no
    log-odds, and None is returned for them.
    """
    with torch.no_grad(), model.trace(**inputs):
        found, odds = {}, None
        for layer, sites in layers.items():
            envoy = layer_of(model, places, layer)
            found[layer] = {"input": envoy.input}
            wanted = [] if sites <= {"q", "k"} else [("o", "attention")]
            for site, module in wanted + [("ffn", "mlp")] * ("ffn" in sites):
                path = places["modules"][site][0]
                found[layer][site] = reach(envoy, path).input
                made, returned = reach(envoy, path).output, reach(envoy, parent(path)).output
                own = returned[0] if isinstance(returned, tuple) else returned
                found[layer][module] = own if torch.equal(own, made) else None
                found[layer][f"{module} returns"] = len(returned) if isinstance(returned, tuple) else 0
        if scoring is not None:
            odds = read_out(model, places, scoring)
        stages, odds = nnsight.save(found), nnsight.save(odds)
    return stages, odds


def trace_resumed(model, inputs, places, layer, neurons, stage, scoring):
    """What the read-out loses without each neuron of a layer: [neuron]. One forward pass from that layer on.

    neurons: [(site, index)], all of ffn, all of o and v, or all of q and k. stage: of `trace_untouched`, this layer's.
    scoring: None for ‖final state − final state without the neuron‖ at the last token, after the final norm; else how
    the log-odds are read (`refusal.read_out`), and the effect is signed.
    """
    site = neurons[0][0]
    shift = None if site in ("q", "k") else _shift(layer_of(model, places, layer), places, neurons, stage)
    runs = len(neurons) + 1
    with torch.no_grad(), model.trace(**inputs):
        for below in range(layer):
            layer_of(model, places, below).skip(_repeated(stage["input"], runs))
        envoy = layer_of(model, places, layer)
        if shift is None:
            for number, (where, index) in enumerate(neurons, start=1):
                _rows(read(envoy, places["sites"][where]), number, runs)[..., index] = 0
        elif site == "ffn":
            if stage["attention"] is not None:
                put(envoy, places["modules"]["o"][0], _repeated(stage["attention"], runs), stage["attention returns"])
            put(envoy, places["modules"]["ffn"][0], _repeated(stage["mlp"], runs) - shift, stage["mlp returns"])
        else:
            changed = _repeated(stage["attention"], runs) - shift
            put(envoy, places["modules"]["o"][0], changed, stage["attention returns"])
        if scoring is None:
            state = reach(model, places["norm"]).output[:, -1]
            state = state if state.dtype == torch.float64 else state.float()
            effects = nnsight.save((state[1:] - state[:1]).norm(dim=-1))
        else:
            odds = read_out(model, places, scoring)
            effects = nnsight.save(odds[0] - odds[1:])
    return effects


def _shift(layer, places, neurons, stage):
    """What the linear map's output loses with each run's neuron, 0 in run 0: [run × sequence, token, channel].

    Of v: what all heads of the group lose, each at the same channel. None where the module has to run.
    """
    site = neurons[0][0]
    reads, module = ("ffn", "mlp") if site == "ffn" else ("o", "attention")
    weight = stored_weight(reach(layer, places["modules"][reads][0]))
    if stage[module] is None or weight is None:
        return None
    _, rep, size = places["heads"]
    channels = [
        [(index // size * rep + head) * size + index % size for head in range(rep)] if where == "v" else [index]
        for where, index in neurons
    ]
    activation, shifts = stage[reads], []
    for several in channels:
        shifts.append(activation[..., several] @ weight[:, several].to(activation.device).T)
    lost = torch.stack([torch.zeros_like(shifts[0]), *shifts])
    return rearrange(lost, "run sequence token channel -> (run sequence) token channel")


def _repeated(value, runs):
    return repeat(value, "sequence token channel -> (run sequence) token channel", run=runs)


def _rows(activation, number, runs):
    """The rows of a run: a view."""
    rows = len(activation) // runs
    return activation[number * rows : (number + 1) * rows]
