"""Greedy generation with neurons overwritten at every token of the prompt and of the response."""

import nnsight
import torch

from .places import reach, write


def trace_generation(model, inputs, places, edits, settings):
    """The generated ids with the padded prompt in front [prompt, token], and whether all logits were finite.

    The result is read in a second, empty invoke: what follows an open loop in the same invoke never runs. The loop
    must read something in every step, or it would not notice that the model has stopped: the logits, which have to
    be finite anyway. Their sum is finite where they are, and takes a twentieth of the time of asking each.
    """
    with torch.no_grad(), model.generate(**settings) as tracer:
        with tracer.invoke(**inputs):
            seen = nnsight.save({"finite": True})
            for _step in tracer.iter[:]:
                write(model, places, edits)
                total = reach(model, places["head"]).output[:, -1].sum(dtype=torch.float32)
                seen["finite"] = total.isfinite() & seen["finite"]
        with tracer.invoke():
            tokens = nnsight.save(tracer.result)
    return tokens, bool(seen["finite"])
