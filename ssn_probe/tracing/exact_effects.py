"""What chosen neurons do to every prompt, exactly: the model runs once without each of them, and only where it must.

One prompt's ablations run together; a pass begins at the neuron's own layer, with what the untouched pass had there,
and what a neuron takes from a linear map is subtracted (`bodies.resumed`). That equals plain ablation to rounding.
Where modules or weights are elsewhere (a host, several processes, offloaded layers), whole passes run.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ssn_probe.errors import ModelError
from ssn_probe.model.chat import pad_left
from ssn_probe.model.openings import Direction, Openings
from ssn_probe.model.subject import Subject
from ssn_probe.neurons import SITES
from ssn_probe.tracing.ablations import Neuron, silenced
from ssn_probe.tracing.batching import (
    Advance,
    BatchSize,
    Memory,
    Shelf,
    fitted,
    gather,
    no_progress,
    run_batches,
)
from ssn_probe.tracing.diagnose import raise_non_finite
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.execution import run_body, runs_whole
from ssn_probe.tracing.readout import Forcing, forced

TOGETHER = (("q", "k"), ("v", "o"), ("ffn",))
"""Sites whose neurons run in one batch."""


def exact_effects(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    neurons: Sequence[Neuron],
    readout: Openings | Direction | None = None,
    *,
    batch_size: int | BatchSize = 64,
    shelf: Shelf | None = None,
    advance: Advance = no_progress,
    resumed: bool = True,
) -> Float[Tensor, "prompt neuron"]:
    """What every prompt loses without each of the neurons, by ablation at all tokens of the prompt.

    Without a `readout`, ‖z − z without the neuron‖, z the final state at the last token, after the final norm; with
    one, the signed change of its log-odds in nats, r(x) − r(x without the neuron), also at the tokens of the
    teacher-forced openings. In the precision that the model computes in, single at least.

    Args:
        tokens: prompts as token ids.
        neurons: (layer, site, index), in any order; columns of the result are in theirs.
        batch_size: neurons that run together.
        resumed: begin at the neuron's layer where that is possible; else always run whole passes.

    Raises:
        ModelError: a neuron that the model does not have, or NaN or Inf, naming layer and site.
    """
    check_known(subject, neurons)
    forcing, shelf = None if readout is None else forced(readout, subject.vocabulary), shelf or Memory()
    size = batch_size if isinstance(batch_size, BatchSize) else BatchSize(batch_size)
    order = sorted(range(len(neurons)), key=lambda row: _forward(neurons[row]))
    ordered = [neurons[row] for row in order]
    run_prompt = _whole if not resumed or runs_whole(subject) else _resumed
    precision = torch.float64 if subject.identity["dtype"] == "float64" else torch.float32

    def run(rows: list[int]) -> dict[str, Tensor]:
        found = torch.zeros(len(rows), len(neurons), dtype=precision)
        for place, row in enumerate(rows):
            if ordered:
                found[place, order] = run_prompt(subject, tokens[row], ordered, forcing, size).to(precision)
            if not found[place].isfinite().all():
                raise_non_finite(subject, [tokens[row]])
        return {"exact": found}

    run_batches(tokens, 1, run, shelf, advance)
    return gather(shelf.parts(), "exact", torch.zeros(len(tokens), len(neurons), dtype=precision))


def check_known(subject: Subject, neurons: Sequence[Neuron]) -> None:
    """Raises ModelError for a neuron that the model does not have."""
    for layer, site, index in neurons:
        known = site in SITES and 0 <= layer < subject.n_layers and 0 <= index < subject.widths[site]
        if not known:
            raise ModelError(
                f"{subject.name} has no neuron {index} at site {site} of layer {layer}.",
                f"It has {subject.n_layers} layers, with {subject.widths} neurons.",
            )


def _forward(neuron: Neuron) -> tuple[int, int, int]:
    layer, site, index = neuron
    return layer, SITES.index(site), index


def _rows_of(subject: Subject, prompt: Sequence[int], forcing: Forcing | None) -> tuple[list[list[int]], int]:
    """The sequences of one run, and how many last positions need logits."""
    if forcing is None:
        return [list(prompt)], 1
    return [[*prompt, *prefix] for prefix in forcing.prefixes], forcing.kept


def _inputs(subject: Subject, prompt: Sequence[int], forcing: Forcing | None, runs: int) -> dict[str, Any]:
    """A prompt's sequences, once for each run."""
    rows, kept = _rows_of(subject, prompt, forcing)
    inputs = pad_left(rows * runs, subject.pad_id, subject.device)
    width = inputs["input_ids"].shape[1]
    return inputs | {"logits_to_keep": torch.arange(width - kept, width, device=subject.device), "use_cache": False}


def _resumed(
    subject: Subject, prompt: Sequence[int], neurons: Sequence[Neuron], forcing: Forcing | None, size: BatchSize
) -> Float[Tensor, " neuron"]:
    from ssn_probe.tracing.bodies.resumed import trace_resumed, trace_untouched

    places = places_of(subject)
    layers = list(dict.fromkeys(layer for layer, _, _ in neurons))
    stages = run_body(subject, trace_untouched, _inputs(subject, prompt, forcing, 1), places, layers)
    scoring = None if forcing is None else forcing.scoring
    found: list[Tensor] = []
    for layer, chosen in _batches(neurons):
        start = 0
        while start < len(chosen):

            def attempt(together: int) -> Tensor:
                some = chosen[start : start + together]  # noqa: B023 (called at once)
                inputs = _inputs(subject, prompt, forcing, len(some) + 1)
                return run_body(subject, trace_resumed, inputs, places, layer, some, stages[layer], scoring)  # noqa: B023

            found.append(fitted(size, attempt).cpu())
            start += len(found[-1])
    return torch.cat(found)


def _batches(neurons: Sequence[Neuron]) -> Iterator[tuple[int, list[tuple[str, int]]]]:
    """The neurons of every layer whose sites run together, in the order given, which is forward."""
    held: dict[tuple[int, int], list[tuple[str, int]]] = {}
    for layer, site, index in neurons:
        kind = next(number for number, sites in enumerate(TOGETHER) if site in sites)
        held.setdefault((layer, kind), []).append((site, index))
    for (layer, _), chosen in held.items():
        yield layer, chosen


def _whole(
    subject: Subject, prompt: Sequence[int], neurons: Sequence[Neuron], forcing: Forcing | None, size: BatchSize
) -> Float[Tensor, " neuron"]:
    from ssn_probe.tracing.bodies.ablation import ablated_log_odds, trace_ablations

    places, found, start = places_of(subject), [], 0
    if forcing is not None:
        inputs = _inputs(subject, prompt, forcing, 1)
        together = max(1, size.size) * len(forcing.prefixes)
        odds = run_body(subject, ablated_log_odds, inputs, places, list(neurons), forcing.scoring, together).cpu()
        return odds[0, 0] - odds[1:, 0]
    while start < len(neurons):

        def attempt(together: int) -> Tensor:
            some = neurons[start : start + together]  # noqa: B023 (called at once)
            inputs = _inputs(subject, prompt, None, len(some) + 1)
            return run_body(subject, trace_ablations, inputs, places, silenced(some), "last")

        found.append(fitted(size, attempt).cpu())
        start += len(found[-1])
    return torch.cat(found)
