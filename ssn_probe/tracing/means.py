"""Mean activations: what a neuron is set to when it is silenced without being taken out of its usual range."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ssn_probe.errors import ModelError
from ssn_probe.model.chat import whole_inputs
from ssn_probe.model.subject import Subject
from ssn_probe.neurons import Site
from ssn_probe.tracing.batching import BatchSize, Memory, Shelf, no_progress, run_batches
from ssn_probe.tracing.diagnose import raise_non_finite
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.execution import run_body
from ssn_probe.tracing.kept_values import mean_activations_of


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
        from ssn_probe.tracing.bodies.averages import trace_sums

        batch = [tokens[row] for row in rows]
        sums, seen = run_body(subject, trace_sums, whole_inputs(subject, batch), places)
        if not all(part.isfinite().all() for part in sums.values()):
            raise_non_finite(subject, batch)
        return {site: part.cpu() for site, part in sums.items()} | {"count": torch.as_tensor(seen).cpu()}

    run_batches(tokens, batch_size, run, shelf, no_progress)
    return {site: torch.from_numpy(values) for site, values in mean_activations_of(shelf.parts()).items()}
