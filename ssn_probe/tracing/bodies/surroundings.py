"""What kind of place a model runs in, found out with a few tokens."""

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
