"""Mean activations: what a neuron is set to when it is silenced without being taken out of its usual range."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ssn_probe.errors import ModelError
from ssn_probe.model.chat import pad_left
from ssn_probe.model.subject import Subject
from ssn_probe.neurons import SITES, Site
from ssn_probe.tracing.batching import BatchSize, Memory, Shelf, no_progress, run_batches
from ssn_probe.tracing.diagnose import raise_non_finite
from ssn_probe.tracing.edits import places_of


def mean_activations(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    *,
    batch_size: int | BatchSize = 64,
    shelf: Shelf | None = None,
) -> dict[Site, Float[Tensor, "layer neuron"]]:
    """The mean of every neuron's activation over all tokens of some prompts, in double precision.

    Raises:
        ModelError: no prompts, or NaN or Inf in the activations, naming layer and site.
    """
    if not tokens:
        raise ModelError("There is no mean activation over no prompts.", "Give at least one prompt.")
    shelf, places = shelf or Memory(), places_of(subject)

    def run(rows: list[int]) -> dict[str, Tensor]:
        return _sums(subject, [tokens[row] for row in rows], places)

    run_batches(tokens, batch_size, run, shelf, no_progress)
    parts = shelf.parts()
    count = sum(int(part.get("count")) for part in parts)
    return {site: torch.stack([part.get(site) for part in parts]).sum(0) / count for site in SITES}


def _sums(subject: Subject, batch: Sequence[Sequence[int]], places: Any) -> dict[str, Tensor]:
    """Sums over the tokens of a batch, per site [layer, neuron], and how many tokens there were."""
    from ssn_probe.tracing.bodies.averages import trace_sums

    inputs = pad_left(batch, subject.pad_id, subject.device)
    last = torch.tensor([inputs["input_ids"].shape[1] - 1], device=subject.device)
    sums, seen = trace_sums(subject.model, inputs | {"logits_to_keep": last, "use_cache": False}, places)
    if not all(part.isfinite().all() for part in sums.values()):
        raise_non_finite(subject, batch)
    return {site: part.cpu() for site, part in sums.items()} | {"count": torch.as_tensor(seen).cpu()}
