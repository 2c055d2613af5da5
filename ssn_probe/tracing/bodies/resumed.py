"""Exact ablations of single neurons that compute only what the neuron can change.

A neuron of layer l changes nothing below l, so a pass begins with the input that l had in the untouched pass: the
layers below are skipped. What feeds a linear map changes its output in closed form, by −a_t · W[:, i], so for ffn, o
and v the module is not run again either: its output in the untouched pass, less that, is put in its place. For q and k,
and where a module adds something to its linear map's output, the neuron is silenced in layer l as anywhere else.
What prompts begin with runs once without each neuron, from l on, too, and the rest of every prompt behind its keys and
values, as in `start`.

Rows of a batch are run-major: run 0 is untouched, run i + 1 lacks neuron i; a run has one row per sequence of every
prompt. For a model whose weights and modules are at hand: the trusted side of the table in docs/architecture.md.
"""

import copy

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
    their linear maps return. [row, token, channel] each; "start": the same of the rows' starts, where they have some.
    scoring: of `trace_resumed`; with None there are no log-odds, None is returned for them, and what follows the last
    wanted layer does not run.
    """
    last = max(layers) if scoring is None else places["depth"] - 1
    if "start" not in inputs:
        stages, odds, _ = _untouched(model, inputs, places, layers, last, scoring)
        return stages, odds
    name, start, rows = inputs["start"]
    first, _, cache = _untouched(model, start, places, layers, last, None, name)
    cache = _behind(_with_lengths(cache, start, places), rows)
    stages, odds, _ = _untouched(model, _for_model(inputs) | {name: cache}, places, layers, last, scoring)
    for layer, stage in stages.items():
        for part in ("attention", "mlp"):  # both are put in place, or neither
            both = [one for one in (stage, first[layer]) if part in one]
            if any(one[part] is None for one in both):
                stage[part] = first[layer][part] = None
        stage["start"] = first[layer]
    return stages, odds


def _untouched(model, inputs, places, layers, last, scoring, name=None):
    """`trace_untouched` of a batch without starts, or of starts, whose cache has a `name`: stages, log-odds, cache.

    No layer runs after the `last`.
    """
    with torch.no_grad(), model.trace(**inputs):
        found, odds, cache = {}, None, None
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
        for above in range(last + 1, places["depth"]):
            layer_of(model, places, above).skip(found[max(layers)]["input"])
        if scoring is not None:
            odds = read_out(model, places, scoring)
        if name is not None:
            cache = getattr(model.output, name)
        stages, odds, cache = nnsight.save(found), nnsight.save(odds), nnsight.save(cache)
    return stages, odds, cache


def trace_resumed(model, batches, places, layer, neurons, stage, scoring):
    """What the read-out loses without each neuron of a layer, on every prompt: [neuron, prompt].

    One forward pass from that layer on for each batch of inputs, and one for their starts, if they have some, which are
    those of all batches. The batches' rows are those of the untouched pass, one batch after the other; inputs["runs"]
    is how often they run, 1 + neuron.

    neurons: [(site, index)], all of ffn, all of o and v, or all of q and k. stage: of `trace_untouched`, this layer's.
    scoring: None for ‖final state − final state without the neuron‖ at the last token, after the final norm; else how
    the log-odds are read (`refusal.read_out`), and the effect is signed.
    """
    found, done, cache = [], 0, None
    for inputs in batches:
        if cache is None and "start" in inputs:
            name, start, _ = inputs["start"]
            cache = _changed_start(model, name, start, places, layer, neurons, stage["start"])
        rows, width = inputs["input_ids"].shape
        part = {key: value[done : done + rows, -width:] if torch.is_tensor(value) else value
                for key, value in stage.items()}  # fmt: skip
        done += rows
        found.append(_lost(model, inputs, cache, places, layer, neurons, part, scoring))
    return torch.cat(found, 1)


def _changed_start(model, name, start, places, layer, neurons, stage):
    """Keys and values of the starts without each neuron, run-major, as a cache."""
    runs = len(neurons) + 1
    shift = _shift(layer_of(model, places, layer), places, neurons, stage)
    with torch.no_grad(), model.trace(**_times(start, runs)):
        _ablate(model, places, layer, neurons, stage, shift)
        cache = nnsight.save(getattr(model.output, name))
    return _with_lengths(cache, start, places)


def _lost(model, inputs, cache, places, layer, neurons, stage, scoring):
    """`trace_resumed` of one batch."""
    runs = inputs["runs"]
    shift = _shift(layer_of(model, places, layer), places, neurons, stage)
    given = _times(_for_model(inputs), runs)
    if "start" in inputs:
        name, start, rows = inputs["start"]
        given[name] = _behind(cache, _of_runs(rows, len(start["input_ids"]), runs))
    with torch.no_grad(), model.trace(**given):
        _ablate(model, places, layer, neurons, stage, shift)
        if scoring is None:
            state = reach(model, places["norm"]).output[:, -1]
            state = state if state.dtype == torch.float64 else state.float()
            state = rearrange(state, "(run prompt) channel -> run prompt channel", run=runs)
            effects = nnsight.save((state[1:] - state[:1]).norm(dim=-1))
        else:
            odds = rearrange(read_out(model, places, scoring), "(run prompt) -> run prompt", run=runs)
            effects = nnsight.save(odds[:1] - odds[1:])
    return effects


def _ablate(model, places, layer, neurons, stage, shift):
    """The running pass begins at a layer, with each run's neuron silent."""
    runs, site = len(neurons) + 1, neurons[0][0]
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


def _shift(layer, places, neurons, stage):
    """What the linear map's output loses with each run's neuron, 0 in run 0: [run × row, token, channel].

    Of v: what all heads of the group lose, each at the same channel. None where the module has to run, as for q and k.
    """
    site = neurons[0][0]
    if site in ("q", "k"):
        return None
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
    return rearrange(lost, "run row token channel -> (run row) token channel")


def _with_lengths(cache, start, places):
    """The cache of starts; layers that did not run get a single channel, since masks are as long as these seem."""
    ids = start["input_ids"]
    nothing = torch.zeros(1, 1, ids.shape[1], 1, device=ids.device)
    for layer in range(places["depth"]):
        if not cache.get_seq_length(layer):
            cache.update(nothing, nothing, layer)
    return cache


def _behind(cache, rows):
    """A cache with some rows of another, which stays as it is."""
    mine = copy.copy(cache)
    mine.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in mine.layers:
        if layer.keys.shape[-1] > 1:  # the others did not run, nor will they
            layer.batch_select_indices(rows)
    return mine


def _of_runs(rows, starts, runs):
    """In which row of the changed starts' pass the start of every row of all runs is."""
    return torch.cat([rows + run * starts for run in range(runs)])


def _for_model(inputs):
    return {name: value for name, value in inputs.items() if name not in ("start", "runs")}


def _times(inputs, runs):
    """A batch's rows once for each run."""
    return {
        name: value.repeat(runs, *[1] * (value.ndim - 1)) if torch.is_tensor(value) and value.ndim > 1 else value
        for name, value in inputs.items()
    }


def _repeated(value, runs):
    return repeat(value, "row token channel -> (run row) token channel", run=runs)


def _rows(activation, number, runs):
    """The rows of a run: a view."""
    rows = len(activation) // runs
    return activation[number * rows : (number + 1) * rows]
