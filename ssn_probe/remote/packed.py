"""Several calls as one traced block. This source travels to the host."""

import time
import traceback

import nnsight
import torch


def run_packed(model, backend, calls):
    """For each (body, arguments): seconds, what `body(model, *arguments)` gave, and its error if it failed."""
    with model.session(backend=backend):
        results = nnsight.save([])
        for body, arguments in calls:
            results.append(attempted(body, model, arguments))


def attempted(body, model, arguments):
    """One call, whose error is not that of the others.

    Computed as here, outside autocast, under which a host runs half-precision models on a GPU. In a host's sandbox an
    error ends the job: the other half of a trace runs in another process, which would wait for this one for ever.
    """
    began = time.perf_counter()
    try:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            value, failure = body(model, *arguments), None
    except Exception as error:
        if in_sandbox(model):
            raise
        value, failure = None, "".join(traceback.format_exception_only(error)).strip()
    if failure is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return time.perf_counter() - began, value, failure


def in_sandbox(model):
    """Is there nothing of the model in this process but an outline, or not even that?"""
    return model._module is None or all(weight.device.type == "meta" for weight in model._module.parameters())
