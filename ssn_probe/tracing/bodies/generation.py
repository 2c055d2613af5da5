"""Greedy generation with neurons changed on the prompt and on the response, or with what they did read out."""

import nnsight
import torch

from .refusal import along, log_odds
from .site_access import last_values, reach, write


def trace_generation(model, inputs, places, edits, wanted, settings, scorings=()):
    """Generated ids [prompt, step], whether all logits were finite, values [prompt, step, neuron], and r(x) [prompt].

    The values are those of the neurons in `wanted` at the last token of every step: step t is the forward that predicts
    response token t. Only these neurons leave the model.

    scorings: how r(x) is read off the pass over the prompts, see `bodies.refusal`: of openings of one token each, and
    along directions; the last values are a list with r(x) of each.

    The result is read in a second, empty invoke: what follows an open loop in the same invoke never runs. The loop
    must read something in every step, or it would not notice that the model has stopped: the logits, which have to
    be finite anyway. Their sum is finite where they are, and takes a twentieth of the time of asking each.
    """
    with torch.no_grad(), model.generate(**settings) as tracer:
        with tracer.invoke(**inputs):
            seen = nnsight.save({"values": [], "finite": True, "odds": []})
            for step in tracer.iter[:]:
                write(model, places, edits, step)
                if wanted:
                    seen["values"].append(last_values(model, places, wanted))
                begins = step == 0 and scorings
                states = reach(model, places["norm"]).output[:, -1:] if begins else None
                total = reach(model, places["head"]).output[:, -1].sum(dtype=torch.float32)
                seen["finite"] = total.isfinite() & seen["finite"]
                logits = model.output.logits[:, -1:] if begins else None
                for scoring in scorings if begins else ():
                    is_along = "direction" in scoring
                    odds = along(states, scoring["direction"]) if is_along else log_odds(logits, scoring)
                    seen["odds"].append(odds)
        with tracer.invoke():
            tokens = nnsight.save(tracer.result)
    new = tokens[:, inputs["input_ids"].shape[1] :]
    values = torch.stack(seen["values"], 1) if wanted else torch.zeros(0)
    return new.int(), bool(seen["finite"]), values, list(seen["odds"])


def trace_last_values(model, inputs, places, wanted):
    """The values of some neurons at the last token of every prompt: [prompt, neuron]."""
    with torch.no_grad(), model.trace(**inputs):
        values = nnsight.save(last_values(model, places, wanted))
    return values  # noqa: RET504 (the name is bound when the trace has run)
