"""What kind of place a model runs in, and whether rows of a batch depend on each other there: a few tokens each."""

import platform
from importlib.metadata import version

import nnsight
import torch

from .site_access import reach

PACKAGES = ("torch", "transformers", "nnsight")


def trace_host(model, inputs, places):
    """A dict of plain data: see `host_facts.HostFacts`.

    In the sandbox of a host a module is None or on the meta device, and a state that is read is a copy on no graph.
    """
    with torch.enable_grad(), model.trace(**inputs):
        embedding = reach(model, places["embedding"])
        first = embedding.output
        first.requires_grad_(True)
        weight, config = getattr(embedding, "weight", None), getattr(model, "config", None)
        settings = getattr(model, "generation_config", None)
        last = reach(model, places["norm"]).output
        found = nnsight.save(
            {
                "gradients": last.grad_fn is not None,
                "weights": weight is not None and weight.device.type != "meta",
                "dtype": str(last.dtype).removeprefix("torch."),
                "device": last.device.type,
                "attention": getattr(config, "_attn_implementation", None),
                "generation": None if settings is None else settings.to_diff_dict(),
                "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            }
        )
    return found  # noqa: RET504 (the name is bound when the trace has run)


def trace_dependence(model, alone, beside):
    """How far a prompt's logits beside a longer one, and after it, are from those alone, and the largest of those.

    alone, beside: inputs of the prompt, and of the prompt and a longer one.
    """
    first, second, third = (first_row(model, inputs) for inputs in (alone, beside, alone))
    gaps = {"beside": second - first, "after": third - first, "largest": first}
    return {name: float(gap.abs().max()) for name, gap in gaps.items()}


def first_row(model, inputs):
    """The last logits of the first row of a batch [word], in double precision."""
    with torch.no_grad(), model.trace(**inputs):
        logits = nnsight.save(model.output.logits[0, -1].double())
    return logits  # noqa: RET504 (the name is bound when the trace has run)
