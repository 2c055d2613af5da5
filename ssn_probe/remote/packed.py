"""Several calls as one traced block. This source travels to the host."""

import time
import traceback

import nnsight
import torch


def run_packed(model, backend, calls):
    """For each (body, arguments): seconds, what `body(model, *arguments)` gave, and why it failed if it did."""
    with model.session(backend=backend):
        results = nnsight.save([])
        for body, arguments in calls:
            results.append(attempted(body, model, arguments))


def attempted(body, model, arguments):
    """One call, whose error is not that of the others.

    Computed as here, outside autocast, under which a host runs half-precision models on a GPU.
    """
    began = time.perf_counter()
    try:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            value, failure = body(model, *arguments), None
    except Exception as error:
        value, failure = None, described(error)
    if failure is not None and failure["memory"] and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return time.perf_counter() - began, value, failure


def described(error):
    """An error as plain data: what it says, and whether the memory ran out."""
    text = "".join(traceback.format_exception_only(error)).strip()
    memory = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "out of memory" in text
    return {"text": text, "memory": memory}
