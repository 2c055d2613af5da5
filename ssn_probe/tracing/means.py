"""Mean activations: what a neuron is set to when it is silenced without being taken out of its usual range."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ssn_probe.errors import ModelError
from ssn_probe.neurons import Site
from ssn_probe.subject import Subject, pad_left
from ssn_probe.tracing.batching import by_length
from ssn_probe.tracing.diagnose import raise_non_finite
from ssn_probe.tracing.edits import places_of


def mean_activations(
    subject: Subject, tokens: Sequence[Sequence[int]], *, batch_size: int = 64
) -> dict[Site, Float[Tensor, "layer neuron"]]:
    """The mean of every neuron's activation over all tokens of some prompts, in double precision.

    Raises:
        ModelError: no prompts, or NaN or Inf in the activations, naming layer and site.
    """
    from ssn_probe.tracing.remote.means import trace_sums

    if not tokens:
        raise ModelError("There is no mean activation over no prompts.", "Give at least one prompt.")
    places, count = places_of(subject), 0
    total: dict[Site, Tensor] = {}
    for rows in by_length(tokens, batch_size):
        batch = [tokens[row] for row in rows]
        inputs = pad_left(batch, subject.pad_id, subject.device)
        last = torch.tensor([inputs["input_ids"].shape[1] - 1], device=subject.device)
        sums, seen = trace_sums(subject.model, inputs | {"logits_to_keep": last, "use_cache": False}, places)
        if not all(part.isfinite().all() for part in sums.values()):
            raise_non_finite(subject, batch)
        total = {site: part.cpu() + total.get(site, 0.0) for site, part in sums.items()}
        count += int(seen)
    return {site: part / count for site, part in total.items()}
