"""The effect of every neuron on every prompt: three read-outs, one form of result.

- `score_local`: how far the neuron's own module would move its output; closed form, one forward pass.
- `score_refusal`: what it adds to the refusal log-odds, signed, first order; one forward and one backward pass.
- `score_final`: how far the final state moves; by ablation, one forward pass per neuron: slow, and the truth to
  compare with.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ssn_probe.errors import ModelError
from ssn_probe.neurons import SITES, Site
from ssn_probe.subject import Direction, Openings, Subject, pad_left
from ssn_probe.tracing.batching import Advance, by_length, no_progress
from ssn_probe.tracing.carry import Carried, check_carried, for_batch
from ssn_probe.tracing.diagnose import raise_non_finite
from ssn_probe.tracing.edits import NO_EDITS, Edits, places_of, prepared
from ssn_probe.tracing.openings import Forcing, forced
from ssn_probe.tracing.scores import Scores, concatenate, decode, encoded, load, mean, save

__all__ = [
    "Scores",
    "concatenate",
    "decode",
    "load",
    "mean",
    "refusal_log_odds",
    "save",
    "score_final",
    "score_local",
    "score_refusal",
]

Position = Literal["mean", "last"]


def score_local(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    *,
    position: str = "mean",
    sites: Sequence[str] = SITES,
    batch_size: int = 64,
    advance: Advance = no_progress,
) -> Scores:
    """How far each neuron's own module would move its output if the neuron were silent: ‖Δ y_t‖₂, exact.

    y is the output of o_proj (q, k, v, o) or of down_proj (ffn), before any norm that follows it (Gemma-2 has one).
    Costs one forward pass, and for q and k a softmax per channel, quadratic in the length. Where a group has one
    query head, v equals o.

    Args:
        tokens: prompts as token ids.
        position: "mean" over a prompt's tokens, or its "last" one.
        sites: any of q, k, v, o, ffn; likewise in the other effects.

    Raises:
        ModelError: NaN or Inf in the activations, naming layer and site.
    """
    from ssn_probe.tracing.remote.local import measure_weights, trace_local_effects

    places = places_of(subject, sites)
    known = measure_weights(subject.model, places)

    def run(batch: Sequence[Sequence[int]]) -> tuple[dict[Site, Tensor], None]:
        inputs = _whole_inputs(subject, batch)
        return trace_local_effects(subject.model, inputs, places, known, _checked(position)), None

    return _scored(subject, tokens, places["sites"], run, batch_size, advance)


def score_final(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    *,
    position: str = "last",
    sites: Sequence[str] = SITES,
    batch_size: int = 64,
    advance: Advance = no_progress,
) -> Scores:
    """How far the final hidden state, after the final norm, moves when each neuron is silenced at every token: ‖Δ z‖₂.

    Brute force, one prompt at a time: row i of a batch runs without neuron i. One forward pass per neuron and
    prompt: the slow truth.

    Args:
        tokens: prompts as token ids.
        position: read at the "last" token, or the "mean" over the prompt's tokens of the norm.
        batch_size: neurons that run together.

    Raises:
        ModelError: NaN or Inf in the activations, naming layer and site.
    """
    places = places_of(subject, sites)

    def run(batch: Sequence[Sequence[int]]) -> tuple[dict[Site, Tensor], None]:
        return _ablated(subject, batch[0], places, _checked(position), batch_size), None

    return _scored(subject, tokens, places["sites"], run, 1, advance)


def score_refusal(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    readout: Openings | Direction,
    *,
    sites: Sequence[str] = SITES,
    batch_size: int = 64,
    advance: Advance = no_progress,
) -> Scores:
    """What each neuron adds to the refusal log-odds r(x): positive where it supports refusal.

    effect = Σ_t ∂r/∂a_t · a_t ≈ r(x) − r(x without the neuron), where a is the neuron's activation at every token of
    the prompt and of the teacher-forced openings: attribution patching against zero (Nanda 2023; Kramár et al. 2024,
    2403.00745), signed. r(x) = logsumexp over refusal openings of log p(opening | x) − the same over compliant ones,
    at the last token of the prompt; along a `Direction` it is the final state's component there instead.

    Args:
        tokens: prompts as token ids, up to where the response begins.
        batch_size: sequences that run together; a prompt has one per distinct maximal proper prefix of an opening.

    Raises:
        ModelError: openings outside the vocabulary, or NaN or Inf, naming layer and site.
    """
    from ssn_probe.tracing.remote.refusal import trace_refusal_effects

    forcing, places = forced(readout, _vocabulary(subject)), places_of(subject, sites)

    def run(batch: Sequence[Sequence[int]]) -> tuple[dict[Site, Tensor], Tensor]:
        inputs = _forced_inputs(subject, batch, forcing)
        return trace_refusal_effects(subject.model, inputs, places, subject.anatomy.embedding, forcing.scoring)

    size = max(1, batch_size // len(forcing.prefixes))
    return _scored(subject, tokens, places["sites"], run, size, advance)


def refusal_log_odds(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    readout: Openings | Direction,
    *,
    edits: Edits = NO_EDITS,
    carried: Carried | None = None,
    batch_size: int = 64,
    advance: Advance = no_progress,
) -> Float[Tensor, " prompt"]:
    """r(x) of every prompt while the neurons in `edits` are changed. See `score_refusal`; forward passes only.

    Neurons that are set or scaled are so at every token of the prompt and of the teacher-forced openings. Those that
    are carried over from another run (`carried`, see `generate`) take its step 0 at the prompt's last token, and
    nothing else: where r(x) is read the response has not begun, and the tokens of an opening are not that run's.
    """
    from ssn_probe.tracing.remote.refusal import trace_log_odds

    forcing, places = forced(readout, _vocabulary(subject)), places_of(subject)
    check_carried(edits, carried, len(tokens))
    ready, odds = prepared(subject, edits), torch.zeros(len(tokens), dtype=torch.float32)
    for rows in by_length(tokens, max(1, batch_size // len(forcing.prefixes))):
        batch = [tokens[row] for row in rows]
        inputs = _forced_inputs(subject, batch, forcing)
        mine = for_batch(subject, ready, carried, rows, forcing.prefixes)
        found = trace_log_odds(subject.model, inputs, places, mine, forcing.scoring)
        if not found.isfinite().all():
            raise_non_finite(subject, batch, ready=for_batch(subject, ready, carried, rows))
        odds[rows] = found.float().cpu()
        advance(len(rows))
    return odds


def final_states(
    subject: Subject, tokens: Sequence[Sequence[int]], *, batch_size: int = 64
) -> Float[Tensor, "prompt hidden"]:
    """The final state of every prompt at its last token, after the final norm, in single precision."""
    from ssn_probe.tracing.remote.refusal import trace_states

    places, found = places_of(subject), {}
    for rows in by_length(tokens, batch_size):
        batch = [tokens[row] for row in rows]
        states = trace_states(subject.model, _whole_inputs(subject, batch), places).float().cpu()
        if not states.isfinite().all():
            raise_non_finite(subject, batch)
        found.update(zip(rows, states, strict=True))
    return torch.stack([found[row] for row in range(len(tokens))])


def _vocabulary(subject: Subject) -> int:
    return subject.model._module.config.vocab_size


def _checked(position: str) -> Position:
    if position == "mean" or position == "last":
        return position
    raise ModelError(f"Unknown position {position!r}.", "Positions: mean, last.")


def _whole_inputs(subject: Subject, tokens: Sequence[Sequence[int]]) -> dict[str, Any]:
    """One batch without logits, but for one position: whoever asks for these reads states only."""
    inputs = pad_left(tokens, subject.pad_id, subject.device)
    last = torch.tensor([inputs["input_ids"].shape[1] - 1], device=subject.device)
    return inputs | {"logits_to_keep": last, "use_cache": False}


def _ablated(
    subject: Subject, prompt: Sequence[int], places: Any, position: Position, batch_size: int
) -> dict[Site, Float[Tensor, "prompt layer neuron"]]:
    """The final effect of every neuron on one prompt, `batch_size` neurons a forward pass."""
    from ssn_probe.tracing.remote.final import trace_ablations

    neurons = [
        (layer, site, index)
        for layer in range(subject.n_layers)
        for site in places["sites"]
        for index in range(subject.widths[site])
    ]
    effects = {
        site: torch.zeros(1, subject.n_layers, subject.widths[site], dtype=torch.float64) for site in places["sites"]
    }
    for start in range(0, len(neurons), batch_size):
        chosen = neurons[start : start + batch_size]
        silenced: dict[tuple[int, Site], tuple[list[int], list[int]]] = {}
        for row, (layer, site, index) in enumerate(chosen, start=1):
            rows, indices = silenced.setdefault((layer, site), ([], []))
            rows.append(row)
            indices.append(index)
        inputs = _whole_inputs(subject, [prompt] * (len(chosen) + 1))
        norm = subject.anatomy.norm
        moved = trace_ablations(subject.model, inputs, places, norm, silenced, position)
        for (layer, site, index), effect in zip(chosen, moved.tolist(), strict=True):
            effects[site][0, layer, index] = effect
    return effects


def _forced_inputs(subject: Subject, tokens: Sequence[Sequence[int]], forcing: Forcing) -> dict[str, Any]:
    """One batch of prompts × prefixes, prompt-major, with logits kept at the scored positions only.

    `logits_to_keep` is a tensor, which also makes nnsight pass the batch on as it is instead of splitting it into
    rows.
    """
    rows = [[*row, *prefix] for row in tokens for prefix in forcing.prefixes]
    inputs = pad_left(rows, subject.pad_id, subject.device)
    width = inputs["input_ids"].shape[1]
    kept = torch.arange(width - forcing.kept, width, device=subject.device)
    return inputs | {"logits_to_keep": kept, "use_cache": False}


def _scored(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    sites: Iterable[Site],
    run: Callable[[Sequence[Sequence[int]]], tuple[dict[Site, Tensor], Tensor | None]],
    batch_size: int,
    advance: Advance,
) -> Scores:
    """Run every batch and store its effects; memory grows with the score array only."""
    shape = (len(tokens), subject.n_layers)
    values: dict[Site, Tensor] = {
        site: torch.zeros(*shape, subject.widths[site], dtype=torch.float16) for site in sites
    }
    scale: dict[Site, Tensor] = {site: torch.zeros(shape) for site in sites}
    log_odds = None
    for rows in by_length(tokens, batch_size):
        batch = [tokens[row] for row in rows]
        effects, odds = run(batch)
        for site, effect in effects.items():
            values[site][rows], scale[site][rows] = encoded(effect)
            if not scale[site][rows].isfinite().all():
                raise_non_finite(subject, batch)
        if odds is not None:
            log_odds = torch.zeros(len(tokens)) if log_odds is None else log_odds
            log_odds[rows] = odds.float().cpu()
        advance(len(rows))
    return Scores(values=values, scale=scale, log_odds=log_odds)
