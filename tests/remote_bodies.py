"""Bodies that tests run on a host. Only what a host has is imported here: this source travels."""

import sys

import nnsight
import torch

nnsight.register(sys.modules[__name__])


def device_of_weights(model):
    """Where a weight is, to whoever reads it in a traced block."""
    with model.trace(input_ids=torch.tensor([[1, 5]])):
        where = nnsight.save(str(model.model.layers[0].mlp.down_proj.weight.device))
    return where  # noqa: RET504 (the name is bound when the trace has run)


def failing(model):
    with model.trace(input_ids=torch.tensor([[1, 5]])):
        found = nnsight.save(model.lm_head.output.reshape(7, 11, 13))
    return found  # noqa: RET504


def endless(model):
    """A job that no host lets run to its end."""
    import time

    with model.trace(input_ids=torch.tensor([[1, 5]])):
        while model is not None:
            time.sleep(0.01)
