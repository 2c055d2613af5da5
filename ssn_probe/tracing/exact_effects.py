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
from ssn_probe.model.chat import whole_inputs
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
from ssn_probe.tracing.readout import Forcing, forced_inputs, forced_on

TOGETHER = (("q", "k"), ("v", "o"), ("ffn",))
"""Sites whose neurons run in one batch."""
KEPT = 2**28
"""Bytes that the untouched pass keeps of its layers at most, but for at least one layer; then it runs once more."""


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
    forcing, shelf = None if readout is None else forced_on(subject, readout, tokens), shelf or Memory()
    size = batch_size if isinstance(batch_size, BatchSize) else BatchSize(batch_size)
    order = sorted(range(len(neurons)), key=lambda row: _forward(neurons[row]))
    ordered = [neurons[row] for row in order]
    whole = not resumed or runs_whole(subject)
    precision = torch.float64 if subject.identity["dtype"] == "float64" else torch.float32

    def run(rows: list[int]) -> dict[str, Tensor]:
        found = torch.zeros(len(rows), len(neurons), dtype=precision)
        if ordered:
            batch = [tokens[row] for row in rows]
            found[:, order] = without_each(subject, batch, ordered, forcing, size, whole=whole)[0].to(precision)
        if not found.isfinite().all():
            raise_non_finite(subject, [tokens[row] for row in rows])
        return {"exact": found}

    run_batches(
        tokens, **prompts_together(size, len(neurons), forcing, whole=whole), run=run, shelf=shelf, advance=advance
    )
    return gather(shelf.parts(), "exact", torch.zeros(len(tokens), len(neurons), dtype=precision))


def without_each(
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    neurons: Sequence[Neuron],
    forcing: Forcing | None,
    size: BatchSize,
    *,
    whole: bool,
) -> tuple[Float[Tensor, "prompt neuron"], Float[Tensor, " prompt"] | None]:
    """What some prompts lose without each of the neurons, which are in forward order, as `exact_effects` says.

    Beside it the untouched log-odds, where they are what is read. With `whole` whole passes run, `size` sequences at a
    time; else those of one prompt begin at the neuron's layer, `size` neurons at a time.
    """
    if forcing is not None and (whole or not neurons):
        return _whole_odds(subject, prompts, neurons, forcing, size)
    one = _whole_states if whole else _resumed
    found = [one(subject, prompt, neurons, forcing, size) for prompt in prompts]
    odds = None if forcing is None else torch.cat([odds for _, odds in found if odds is not None])
    return torch.stack([effects for effects, _ in found]), odds


def prompts_together(size: BatchSize, neurons: int, forcing: Forcing | None, *, whole: bool) -> dict[str, Any]:
    """How many prompts `without_each` is given at a time: one, but for whole passes that read log-odds as many as fit,
    since on a host these are one job."""
    if whole and forcing is not None:
        return {"batch_size": size, "sequences": len(forcing.prefixes) * (neurons + 1)}
    return {"batch_size": 1}


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


def _inputs(subject: Subject, prompt: Sequence[int], forcing: Forcing | None, runs: int) -> dict[str, Any]:
    """A prompt's sequences, once for each run."""
    if forcing is not None:
        return forced_inputs(subject, [prompt] * runs, forcing)
    return whole_inputs(subject, [prompt] * runs)


def _resumed(
    subject: Subject, prompt: Sequence[int], neurons: Sequence[Neuron], forcing: Forcing | None, size: BatchSize
) -> tuple[Float[Tensor, " neuron"], Float[Tensor, " prompt"] | None]:
    from ssn_probe.tracing.bodies.resumed import trace_resumed, trace_untouched

    places, scoring = places_of(subject), None if forcing is None else forcing.scoring
    first = _inputs(subject, prompt, forcing, 1)
    found: list[Tensor] = []
    odds = None
    for layers in _layers_together(subject, neurons, first["input_ids"].numel()):
        stages, odds = run_body(subject, trace_untouched, first, places, layers, scoring)
        for layer, chosen in _batches([neuron for neuron in neurons if neuron[0] in layers]):
            start = 0
            while start < len(chosen):

                def attempt(together: int) -> Tensor:
                    some = chosen[start : start + together]  # noqa: B023 (called at once)
                    inputs = _inputs(subject, prompt, forcing, len(some) + 1)
                    stage = stages[layer]  # noqa: B023
                    return run_body(subject, trace_resumed, inputs, places, layer, some, stage, scoring)  # noqa: B023

                found.append(fitted(size, attempt).cpu())
                start += len(found[-1])
    return torch.cat(found), None if odds is None else odds.cpu()


def _layers_together(subject: Subject, neurons: Sequence[Neuron], tokens: int) -> Iterator[dict[int, set[str]]]:
    """The layers of some neurons and the sites that are wanted there, as many as `KEPT` bytes hold at a time."""
    wanted: dict[int, set[str]] = {}
    for layer, site, _ in neurons:
        wanted.setdefault(layer, set()).add(site)
    table = subject.model._module.get_input_embeddings().weight
    channels = 3 * table.shape[-1] + subject.widths["o"] + subject.widths["ffn"]
    together = max(1, KEPT // (tokens * channels * table.element_size()))
    layers = list(wanted)
    for start in range(0, len(layers), together):
        yield {layer: wanted[layer] for layer in layers[start : start + together]}


def _batches(neurons: Sequence[Neuron]) -> Iterator[tuple[int, list[tuple[str, int]]]]:
    """The neurons of every layer whose sites run together, in the order given, which is forward."""
    held: dict[tuple[int, int], list[tuple[str, int]]] = {}
    for layer, site, index in neurons:
        kind = next(number for number, sites in enumerate(TOGETHER) if site in sites)
        held.setdefault((layer, kind), []).append((site, index))
    for (layer, _), chosen in held.items():
        yield layer, chosen


def _whole_odds(
    subject: Subject, prompts: Sequence[Sequence[int]], neurons: Sequence[Neuron], forcing: Forcing, size: BatchSize
) -> tuple[Float[Tensor, "prompt neuron"], Float[Tensor, " prompt"]]:
    from ssn_probe.tracing.bodies.ablation import ablated_log_odds

    inputs = forced_inputs(subject, prompts, forcing)
    settings = (places_of(subject), list(neurons), forcing.scoring, size.size)
    odds = run_body(subject, ablated_log_odds, inputs, *settings).cpu()
    return (odds[:1] - odds[1:]).T, odds[0]


def _whole_states(
    subject: Subject, prompt: Sequence[int], neurons: Sequence[Neuron], forcing: Forcing | None, size: BatchSize
) -> tuple[Float[Tensor, " neuron"], None]:
    from ssn_probe.tracing.bodies.ablation import trace_ablations

    places, found, start = places_of(subject), [], 0
    while start < len(neurons):

        def attempt(together: int) -> Tensor:
            some = neurons[start : start + together]  # noqa: B023 (called at once)
            inputs = _inputs(subject, prompt, forcing, len(some) + 1)
            return run_body(subject, trace_ablations, inputs, places, silenced(some))

        found.append(fitted(size, attempt).cpu())
        start += len(found[-1])
    return torch.cat(found), None
