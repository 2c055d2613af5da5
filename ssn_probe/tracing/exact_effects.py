"""What chosen neurons do to every prompt, exactly: the model runs once without each of them, and only where it must.

A pass begins at the neuron's own layer, with what the untouched pass had there, and what a neuron takes from a linear
map is subtracted (`bodies.resumed`). What prompts begin with, the chat template above all, runs once without each
neuron for a block of prompts, and each of them runs behind its keys and values. That equals plain ablation to rounding.
Where modules or weights are elsewhere (a host, several processes, offloaded layers), whole passes run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
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
    covered,
    fitted,
    gather,
    no_progress,
    run_batches,
)
from ssn_probe.tracing.diagnose import raise_non_finite
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.execution import run_body, runs_whole
from ssn_probe.tracing.readout import Forcing, forced_inputs, forced_on
from ssn_probe.tracing.shared_start import WHOLE, SharedStart, shared_start

TOGETHER = (("q", "k"), ("v", "o"), ("ffn",))
"""Sites whose neurons run in one batch."""
KEPT = 2**28
"""Bytes that the untouched pass keeps of its layers at most, but for at least one layer; then it runs once more."""
BLOCK = 8
"""Prompts that a start is shared by, or more where all layers of more are kept at once: what a start costs each of them
then is an eighth of it, and the untouched pass runs a few times more."""


def exact_effects(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    neurons: Sequence[Neuron],
    readout: Openings | Direction | None = None,
    *,
    among: Sequence[Sequence[int]] | None = None,
    batch_size: int | BatchSize = 64,
    shelf: Shelf | None = None,
    advance: Advance = no_progress,
    resumed: bool = True,
    shared: bool = True,
) -> Float[Tensor, "prompt neuron"]:
    """What every prompt loses without each of the neurons, by ablation at all tokens of the prompt.

    Without a `readout`, ‖z − z without the neuron‖, z the final state at the last token, after the final norm; with
    one, the signed change of its log-odds in nats, r(x) − r(x without the neuron), also at the tokens of the
    teacher-forced openings. In the precision that the model computes in, single at least.

    Whole passes, resumed ones, and those behind shared starts differ by rounding, and that as much from one another: in
    single precision by 2e-5 of the prompt's largest effect at most in tiny models of every family; in SmolLM2, whose
    effects are far smaller than its final state z, by 2e-6 of ‖z‖, up to 1e-4 of the largest effect.

    On the `shelf` are "exact", and "ran": the tokens that a prompt's passes ran, its part of the starts' among them,
    over those of the whole prompt.

    Args:
        tokens: prompts as token ids.
        neurons: (layer, site, index), in any order; columns of the result are in theirs.
        among: the measurement's prompts, of which `tokens` are some: it is these that say with how long a start prompts
            run. None: `tokens`.
        batch_size: neurons that run together, or neurons times prompts where fewer are left.
        resumed: begin at the neuron's layer where that is possible; else always run whole passes.
        shared: run what prompts begin with once where that is less to compute; else every prompt by itself.

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
    together = prompts_together(size, len(neurons), forcing, whole=whole)
    start = WHOLE
    if shared and not whole and ordered and not covered(shelf, len(tokens)):
        start, together["batch_size"] = shared_by(subject, tokens, among or tokens, ordered, forcing, size)

    def run(rows: list[int]) -> dict[str, Tensor]:
        found = torch.zeros(len(rows), len(neurons), dtype=precision)
        if ordered:
            batch = [tokens[row] for row in rows]
            effects, _ = without_each(subject, batch, ordered, forcing, size, whole=whole, start=start)
            found[:, order] = effects.to(precision)
        if not found.isfinite().all():
            raise_non_finite(subject, [tokens[row] for row in rows])
        alone, ran = (tokens_run([tokens[row] for row in rows], one, forcing) for one in (WHOLE, start))
        return {"exact": found, "ran": torch.full((len(rows),), ran / alone, dtype=torch.float64)}

    run_batches(tokens, **together, run=run, shelf=shelf, advance=advance)
    return gather(shelf.parts(), "exact", torch.zeros(len(tokens), len(neurons), dtype=precision))


def tokens_run(prompts: Sequence[Sequence[int]], start: SharedStart, forcing: Forcing | None) -> int:
    """How many tokens run without a neuron, for prompts that share their starts: those once, and the rest of each."""
    starts = {tuple(prompt[: start.length]) for prompt in prompts} if start.length else set()
    added = [0] if forcing is None else [len(prefix) for prefix in forcing.prefixes]
    behind = sum(len(start.rest(prompt)) + more for prompt in prompts for more in added)
    return start.length * len(starts) + behind


def shared_by(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    among: Sequence[Sequence[int]],
    neurons: Sequence[Neuron],
    forcing: Forcing | None,
    size: BatchSize,
) -> tuple[SharedStart, BatchSize]:
    """With what start prompts run without each of some neurons, and how many of them share one; one where none is."""
    longest = max(map(len, among)) + (0 if forcing is None else max(map(len, forcing.prefixes)))
    rows = 1 if forcing is None else len(forcing.prefixes)
    layers = len({layer for layer, _, _ in neurons})
    at_once = KEPT // (longest * rows * _kept_per_token(subject))  # prompts of which a layer is kept
    block = min(len(tokens), size.size, max(at_once // layers, min(BLOCK, at_once)))
    batches = [-(-len(chosen) // size.size) for _, chosen in _batches(neurons)]
    runs = 1 + len(neurons) // sum(batches)
    start = shared_start(subject, among, max(1, block), added=longest - max(map(len, among)), times=runs)
    return start, replace(size, size=block) if start.length else BatchSize(1)


def without_each(
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    neurons: Sequence[Neuron],
    forcing: Forcing | None,
    size: BatchSize,
    *,
    whole: bool,
    start: SharedStart = WHOLE,
) -> tuple[Float[Tensor, "prompt neuron"], Float[Tensor, " prompt"] | None]:
    """What some prompts lose without each of the neurons, which are in forward order, as `exact_effects` says.

    Beside it the untouched log-odds, where they are what is read. With `whole` whole passes run, `size` sequences at a
    time; else those of one prompt begin at the neuron's layer, `size` neurons at a time, or those of all prompts behind
    their `start`.
    """
    if forcing is not None and (whole or not neurons):
        return _whole_odds(subject, prompts, neurons, forcing, size)
    if start.length:
        return _resumed(subject, prompts, neurons, forcing, size, start)
    one = _whole_states if whole else _alone
    found = [one(subject, prompt, neurons, forcing, size) for prompt in prompts]
    odds = None if forcing is None else torch.cat([odds for _, odds in found if odds is not None])
    return torch.cat([effects for effects, _ in found]), odds


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


def _alone(
    subject: Subject, prompt: Sequence[int], neurons: Sequence[Neuron], forcing: Forcing | None, size: BatchSize
) -> tuple[Float[Tensor, "1 neuron"], Float[Tensor, " 1"] | None]:
    return _resumed(subject, [prompt], neurons, forcing, size, WHOLE)


def _resumed(
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    neurons: Sequence[Neuron],
    forcing: Forcing | None,
    size: BatchSize,
    start: SharedStart,
) -> tuple[Float[Tensor, "prompt neuron"], Float[Tensor, " prompt"] | None]:
    """Passes that begin at the neurons' layers: of so many neurons, and of all prompts, as many at once as fit beside
    these."""
    from ssn_probe.tracing.bodies.resumed import trace_resumed, trace_untouched

    def inputs_of(some: Sequence[Sequence[int]]) -> dict[str, Any]:
        rests = [start.rest(prompt) for prompt in some]
        inputs = whole_inputs(subject, rests) if forcing is None else forced_inputs(subject, rests, forcing)
        return start.before(inputs, some, prompts)

    places, scoring = places_of(subject), None if forcing is None else forcing.scoring
    first = inputs_of(prompts)
    found: list[Tensor] = []
    odds = None
    for layers in _layers_together(subject, neurons, first["input_ids"].numel()):
        # the log-odds are those of the first pass: none but it runs to the end
        stages, read = run_body(subject, trace_untouched, first, places, layers, scoring if odds is None else None)
        odds = read if odds is None else odds
        for layer, chosen in _batches([neuron for neuron in neurons if neuron[0] in layers]):
            done = 0
            while done < len(chosen):

                def attempt(together: int) -> Tensor:
                    some = chosen[done : done + together]  # noqa: B023 (called at once)
                    few = max(1, (together + 1) // (len(some) + 1))
                    parts = [prompts[row : row + few] for row in range(0, len(prompts), few)]
                    batches = [inputs_of(part) | {"runs": len(some) + 1} for part in parts]
                    stage = stages[layer]  # noqa: B023
                    return run_body(subject, trace_resumed, batches, places, layer, some, stage, scoring)  # noqa: B023

                found.append(fitted(size, attempt).cpu())
                done += len(found[-1])
    return torch.cat(found).T, None if odds is None else odds.cpu()


def _layers_together(subject: Subject, neurons: Sequence[Neuron], tokens: int) -> Iterator[dict[int, set[str]]]:
    """The layers of some neurons and the sites that are wanted there, as many as `KEPT` bytes hold at a time."""
    wanted: dict[int, set[str]] = {}
    for layer, site, _ in neurons:
        wanted.setdefault(layer, set()).add(site)
    together = max(1, KEPT // (tokens * _kept_per_token(subject)))
    layers = list(wanted)
    for start in range(0, len(layers), together):
        yield {layer: wanted[layer] for layer in layers[start : start + together]}


def _kept_per_token(subject: Subject) -> int:
    """Bytes that the untouched pass keeps of a layer for each token."""
    table = subject.model._module.get_input_embeddings().weight
    return (3 * table.shape[-1] + subject.widths["o"] + subject.widths["ffn"]) * table.element_size()


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
) -> tuple[Float[Tensor, "1 neuron"], None]:
    from ssn_probe.tracing.bodies.ablation import trace_ablations

    places, found, start = places_of(subject), [], 0
    while start < len(neurons):

        def attempt(together: int) -> Tensor:
            some = neurons[start : start + together]  # noqa: B023 (called at once)
            inputs = whole_inputs(subject, [prompt] * (len(some) + 1))
            return run_body(subject, trace_ablations, inputs, places, silenced(some))

        found.append(fitted(size, attempt).cpu())
        start += len(found[-1])
    return torch.cat(found)[None], None
