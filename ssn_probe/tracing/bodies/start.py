"""The tokens that prompts begin with run once; the rest of a batch runs behind their keys and values."""

import nnsight
import torch

from .below import fill, write_above
from .site_access import reach


def behind_start(model, inputs, places, edits, stages=None):
    """The inputs of a batch, with the cache of its starts filled where it has some; see `started`."""
    return started(model, inputs, places, edits, stages)[0]


def started(model, inputs, places, edits, stages=None):
    """The same, and the starts' states after the final norm: [prompt, token, hidden], or None where there are none.

    inputs["start"]: what the model calls a cache, the inputs of all different starts, and which of these each row of
    the batch has. Neurons are changed there, too, but for those that are carried over, which are later tokens' only.
    stages: of `below.trace_below`, for these edits.
    """
    if "start" not in inputs:
        return inputs, None
    (name, start, rows), stage = inputs["start"], stages[1] if stages else None
    with torch.no_grad(), model.trace(**start):
        write_above(model, places, [edit for edit in edits if not edit[3].startswith("carry")], stage)
        states = nnsight.save(reach(model, places["norm"]).output)
        cache = nnsight.save(getattr(model.output, name))
    fill(cache, stage)
    cache.batch_select_indices(rows)
    return {key: value for key, value in inputs.items() if key != "start"} | {name: cache}, states[rows]
