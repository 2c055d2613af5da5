"""The tokens that prompts begin with run once; the rest of a batch runs behind their keys and values."""

import nnsight
import torch

from .site_access import reach, write


def behind_start(model, inputs, places, edits):
    """The inputs of a batch, with the cache of its starts filled where it has some; see `started`."""
    return started(model, inputs, places, edits)[0]


def started(model, inputs, places, edits):
    """The same, and the starts' states after the final norm: [prompt, token, hidden], or None where there are none.

    inputs["start"]: what the model calls a cache, the inputs of all different starts, and which of these each row of
    the batch has. Neurons are changed there, too, but for those that are carried over, which are later tokens' only.
    """
    if "start" not in inputs:
        return inputs, None
    name, start, rows = inputs["start"]
    with torch.no_grad(), model.trace(**start):
        write(model, places, [edit for edit in edits if not edit[3].startswith("carry")])
        states = nnsight.save(reach(model, places["norm"]).output)
        cache = nnsight.save(getattr(model.output, name))
    cache.batch_select_indices(rows)
    return {key: value for key, value in inputs.items() if key != "start"} | {name: cache}, states[rows]
