"""The tokens that all prompts begin with run once; the rest of a batch runs behind their keys and values."""

import nnsight
import torch

from .site_access import write


def behind_start(model, inputs, places, edits):
    """The inputs of a batch, with the cache of its start filled where it has one.

    inputs["start"]: what the model calls a cache, and the inputs of the start. Neurons are changed there, too, but for
    those that are carried over, which are later tokens' only.
    """
    if "start" not in inputs:
        return inputs
    name, start = inputs["start"]
    with torch.no_grad(), model.trace(**start):
        write(model, places, [edit for edit in edits if not edit[3].startswith("carry")])
        cache = nnsight.save(getattr(model.output, name))
    cache.batch_repeat_interleave(len(inputs["input_ids"]))
    return {key: value for key, value in inputs.items() if key != "start"} | {name: cache}
