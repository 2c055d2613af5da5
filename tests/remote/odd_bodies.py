"""Bodies that do on a host what bodies should not. This source travels: only what a host has is imported here."""

import pathlib
import sys

import nnsight
import torch

nnsight.register(sys.modules[__name__])


def logits(model):
    with model.trace(input_ids=torch.tensor([[1, 5, 6]])):
        found = nnsight.save(model.lm_head.output)
    return found  # noqa: RET504 (the name is bound when the trace has run)


def unhurried(model):
    import time

    with model.trace(input_ids=torch.tensor([[1, 5, 6]])):
        time.sleep(2)
        found = nnsight.save(model.lm_head.output)
    return found  # noqa: RET504


def failing(model):
    with model.trace(input_ids=torch.tensor([[1, 5, 6]])):
        found = nnsight.save(model.lm_head.output.reshape(7, 11, 13))
    return found  # noqa: RET504


def too_large(model):
    with model.trace(input_ids=torch.tensor([[1, 5, 6]])):
        found = nnsight.save(torch.zeros(10**14) + model.lm_head.output.sum())
    return found  # noqa: RET504


def no_tensor(model):
    with model.trace(input_ids=torch.tensor([[1, 5, 6]])):
        _ = model.lm_head.output
        found = nnsight.save(pathlib.PurePosixPath("a"))
    return found  # noqa: RET504


def endless(model):
    import time

    with model.trace(input_ids=torch.tensor([[1, 5, 6]])):
        while model is not None:
            time.sleep(0.01)
