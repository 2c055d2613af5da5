"""The effect of every neuron on every prompt: four read-outs and those of users, one form of result.

`score` computes whichever effect a recipe names, by the function that is registered for it with `@scores`:

- `score_local`: how far the neuron's own module would move its output; closed form, one forward pass.
- `score_refusal`: what it adds to the refusal log-odds, signed; two forward and two backward passes.
- `score_ablation`: the same, exact, for candidates; one forward pass per candidate.
- `score_final`: how far the final state moves, estimated for all neurons by a backward pass per random read-out of it.
- `score_final_ablation`: the same by ablation, one forward pass per neuron: slow, and the truth to compare with.
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ssn_probe.errors import RecipeError
from ssn_probe.model.chat import whole_inputs
from ssn_probe.model.openings import Direction, Openings
from ssn_probe.model.subject import Subject
from ssn_probe.neurons import SITES
from ssn_probe.spec import Ablation, Effect, Language, Local, Peak, Refusal, scores
from ssn_probe.spec.effect_registry import SCORERS, FirstOrder
from ssn_probe.tracing.ablations import Neuron, placed
from ssn_probe.tracing.batching import (
    Advance,
    BatchSize,
    Memory,
    Shelf,
    covered,
    gather,
    no_progress,
    run_batches,
)
from ssn_probe.tracing.carried import Carried, check_carried, for_batch
from ssn_probe.tracing.diagnose import raise_non_finite
from ssn_probe.tracing.edits import NO_EDITS, Edits, places_of, places_reading_last, prepared
from ssn_probe.tracing.effect_store import Scores, decode, mean
from ssn_probe.tracing.exact_effects import prompts_together, without_each
from ssn_probe.tracing.execution import run_body, runs_whole
from ssn_probe.tracing.final_effects import score_final, score_final_ablation
from ssn_probe.tracing.kept_passes import below
from ssn_probe.tracing.kept_values import highest
from ssn_probe.tracing.known_weights import known_weights
from ssn_probe.tracing.readout import forced_inputs, forced_on
from ssn_probe.tracing.score_batches import checked_position, run_scores
from ssn_probe.tracing.shared_start import keeps_layers, shared_start

__all__ = [
    "Scores",
    "decode",
    "mean",
    "refusal_log_odds",
    "run_scores",
    "score",
    "score_ablation",
    "score_final",
    "score_final_ablation",
    "score_local",
    "score_refusal",
    "whole_inputs",
]


def score(
    effect: Effect,
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    *,
    reads: Openings | Direction | None = None,
    candidates: Sequence[Neuron] | None = None,
    responses: Sequence[Sequence[int]] | None = None,
    sites: Sequence[str] = SITES,
    batch_size: int | BatchSize = 64,
    shelf: Shelf | None = None,
    advance: Advance = no_progress,
) -> Scores:
    """The effect of every neuron on every prompt, by the function that is registered for it.

    Args:
        tokens: prompts as token ids.
        reads: how refusal is read, for effects that need openings; None for all others.
        candidates: the neurons that an effect with a `screen` is computed for; None: chosen on these prompts.
        responses: the untouched model's response to each prompt as token ids, for an effect that `reads_responses`.
        sites: any of q, k, v, o, ffn.
        batch_size: sequences that run together; of an effect with a pass per neuron, neurons.

    Raises:
        RecipeError: no function is registered for the effect, or it reads responses and is given none.
        ModelError: NaN or Inf, naming layer and site.
    """
    if effect.name not in SCORERS:
        hint = f"Put @scores({type(effect).__name__}) on the function that does: see docs/extend/score.md."
        raise RecipeError(f"no function computes the effect {effect.name!r}", hint)
    options: dict[str, Any] = {"sites": sites, "batch_size": batch_size, "shelf": shelf, "advance": advance}
    if effect.screen is not None:
        options["candidates"] = _screened(*effect.screen, subject, tokens, sites) if candidates is None else candidates
    if effect.reads_responses:
        if responses is None:
            raise RecipeError(f"the effect {effect.name} is read along responses, and is given none", "Give responses.")
        options["responses"] = responses
    return SCORERS[effect.name](effect, subject, tokens, reads=reads, **options)


def _screened(effect: Effect, share: float, subject: Subject, tokens: Any, sites: Sequence[str]) -> list[Neuron]:
    found = score(effect, subject, tokens, sites=sites)
    return highest({site: mean(found, site) for site in found.values}, share)


@scores(Local)
def _local(effect: Local, subject: Subject, tokens: Any, *, reads: None, **options: Any) -> Scores:
    return score_local(subject, tokens, position=effect.position, exact_qk=effect.exact_qk, **options)


@scores(Refusal)
@scores(Language)
def _first_order(
    effect: FirstOrder, subject: Subject, tokens: Any, *, reads: Openings | Direction, **options: Any
) -> Scores:
    """Of language: with the openings of the prompt's language against those of the others."""
    settings = {"at": effect.at, "candidates": effect.candidates, "exact_qk": effect.exact_qk}
    return score_refusal(subject, tokens, reads, **settings, **options)


@scores(Peak)
def _peak(_effect: Peak, subject: Subject, tokens: Any, *, reads: None, sites: Any, **options: Any) -> Scores:
    places = places_of(subject, sites)

    def run(batch: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        from ssn_probe.tracing.bodies.averages import trace_peaks

        return run_body(subject, trace_peaks, whole_inputs(subject, batch), places)

    return run_scores(subject, tokens, places["sites"], run, **options)


@scores(Ablation)
def _ablation(_effect: Ablation, subject: Subject, tokens: Any, *, reads: Any, **options: Any) -> Scores:
    return score_ablation(subject, tokens, reads, **options)


def score_local(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    *,
    position: str = "mean",
    exact_qk: float = Local.exact_qk,
    sites: Sequence[str] = SITES,
    batch_size: int | BatchSize = 64,
    shelf: Shelf | None = None,
    advance: Advance = no_progress,
) -> Scores:
    """How far each neuron's own module would move its output if the neuron were silent: ‖Δ y_t‖₂.

    Exact, but for most q and k: see `exact_qk`. y is the output of o_proj (q, k, v, o) or of down_proj (ffn), before
    any norm that follows it (Gemma-2 has one). Costs one forward pass, and for exact q and k a softmax per channel,
    quadratic in the length; where their norm is over all heads (OLMo), a softmax per channel and head. Where a group
    has one query head, v equals o.

    Args:
        tokens: prompts as token ids.
        position: "mean" over a prompt's tokens, or its "last" one.
        exact_qk: the share of each prompt's q and of its k neurons in every layer, largest by a first-order estimate,
            that is exact; the others keep the estimate (`bodies.chosen_channels`). 1: all, as in OLMo anyway.
        sites: any of q, k, v, o, ffn; likewise in the other effects.

    Raises:
        ModelError: NaN or Inf in the activations, naming layer and site.
    """
    places, shelf = places_of(subject, sites), shelf or Memory()
    known = [] if covered(shelf, len(tokens)) else known_weights(subject, places)

    def run(batch: Sequence[Sequence[int]]) -> dict[str, Any]:
        from ssn_probe.tracing.bodies.local import trace_local_effects

        inputs = whole_inputs(subject, batch)
        return run_body(subject, trace_local_effects, inputs, places, known, checked_position(position), exact_qk)

    return run_scores(subject, tokens, places["sites"], run, batch_size=batch_size, shelf=shelf, advance=advance)


def score_refusal(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    readout: Openings | Direction,
    *,
    at: float = Refusal.at,
    candidates: float = Refusal.candidates,
    exact_qk: float = Refusal.exact_qk,
    sites: Sequence[str] = SITES,
    batch_size: int | BatchSize = 64,
    shelf: Shelf | None = None,
    advance: Advance = no_progress,
) -> Scores:
    """What each neuron adds to the refusal log-odds r(x): positive where it supports refusal.

    effect = Σ_t ∂r/∂a_t · a_t ≈ r(x) − r(x without the neuron), where a is the neuron's activation at every token of
    the prompt and of the teacher-forced openings: attribution patching against zero (Nanda 2023; Kramár et al. 2024,
    2403.00745), signed. Unlike there, the gradient is not that of the untouched model: the prompt's candidates are
    scaled to `at` together, at every token, since r(x) hardly answers to a neuron while others stand in for it. And of
    q and k the strongest have their exact change of the attention pattern in the place of its derivative (AtP*'s
    correction, likewise there): −Σ_ts ΔA_ts C_ts, C = g vᵀ, g the gradient at the input of o_proj; A and v are the
    untouched model's.
    `python -m benchmarks.identification` compares this with `at=1`. r(x) = logsumexp over refusal openings of
    log p(opening | x) − the same over compliant ones, at the last token of the prompt; along a `Direction` it is the
    final state's component there instead.

    Args:
        tokens: prompts as token ids, up to where the response begins.
        at: what the candidates are multiplied by; 1: nothing is scaled, and a prompt takes one pass each way, not two.
        candidates: the share of every (layer, site) whose effects with `at=1` on the prompt are largest in size.
        exact_qk: the share of a prompt's q, and of its k neurons in every layer, largest in size to first order, whose
            effects through the softmax are exact; 0: none, 1: all.
        batch_size: sequences that run together; a prompt has one, see `readout.forced_on`.

    Raises:
        ModelError: openings outside the vocabulary, or NaN or Inf, naming layer and site.
    """
    forcing, places = forced_on(subject, readout, tokens), places_reading_last(subject, sites)

    def run(batch: Sequence[Sequence[int]]) -> dict[str, Any]:
        from ssn_probe.tracing.bodies.refusal import trace_refusal_effects

        inputs = forced_inputs(subject, batch, forcing)
        settings = (forcing.scoring, at, candidates, exact_qk)
        effects, odds = run_body(subject, trace_refusal_effects, inputs, places, *settings)
        return effects | {"log_odds": odds}

    settings = {"batch_size": batch_size, "shelf": shelf, "advance": advance, "sequences": len(forcing.prefixes)}
    return run_scores(subject, tokens, places["sites"], run, **settings)


def score_ablation(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    readout: Openings | Direction,
    *,
    candidates: Sequence[Neuron],
    sites: Sequence[str] = SITES,
    batch_size: int | BatchSize = 64,
    shelf: Shelf | None = None,
    advance: Advance = no_progress,
) -> Scores:
    """What each candidate adds to the refusal log-odds, exact: r(x) − r(x without it); 0 for all other neurons.

    r is that of `score_refusal`, whose effects with `at=1` estimate these. The neuron is silent at every token of the
    prompt and of the teacher-forced openings. One forward pass per candidate, from its layer on where that is possible
    (`exact_effects`), none backward.

    Args:
        tokens: prompts as token ids, up to where the response begins.
        candidates: (layer, site, index), in forward order.
        batch_size: sequences that run together; a prompt has one per candidate and maximal prefix of an opening.

    Raises:
        ModelError: openings outside the vocabulary, or NaN or Inf, naming layer and site.
    """
    forcing, places = forced_on(subject, readout, tokens), places_of(subject, sites)
    size = batch_size if isinstance(batch_size, BatchSize) else BatchSize(batch_size)
    whole = runs_whole(subject)

    def run(batch: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        effects, odds = without_each(subject, batch, candidates, forcing, size, whole=whole)
        assert odds is not None
        return placed(subject, places["sites"], candidates, effects) | {"log_odds": odds}

    together = prompts_together(size, len(candidates), forcing, whole=whole)
    return run_scores(subject, tokens, places["sites"], run, **together, shelf=shelf, advance=advance)


def refusal_log_odds(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    readout: Openings | Direction,
    *,
    edits: Edits = NO_EDITS,
    carried: Carried | None = None,
    batch_size: int | BatchSize = 64,
    shelf: Shelf | None = None,
    advance: Advance = no_progress,
) -> Float[Tensor, " prompt"]:
    """r(x) of every prompt while the neurons in `edits` are changed. See `score_refusal`; forward passes only.

    Neurons that are set or scaled are so at every token of the prompt and of the teacher-forced openings. Those that
    are carried over from another run (`carried`, see `generate`) take its step 0 at the prompt's last token, and
    nothing else: where r(x) is read the response has not begun, and the tokens of an opening are not that run's.
    """
    forcing, places, shelf = forced_on(subject, readout, tokens), places_reading_last(subject), shelf or Memory()
    if not covered(shelf, len(tokens)):
        check_carried(edits, carried, len(tokens))
    ready = prepared(subject, edits)
    start = cache(partial(shared_start, subject, tokens, batch_size, added=forcing.kept - 1))
    keeps = cache(partial(keeps_layers, subject, tokens, forcing.kept - 1))

    def run(rows: list[int]) -> dict[str, Tensor]:
        from ssn_probe.tracing.bodies.refusal import trace_log_odds

        batch = [tokens[row] for row in rows]
        inputs = start().before(forced_inputs(subject, [start().rest(prompt) for prompt in batch], forcing), batch)
        mine = for_batch(subject, ready, carried, rows, forcing.prefixes)
        kept = below(subject, inputs, places, mine) if keeps() else None
        found = run_body(subject, trace_log_odds, inputs, places, mine, forcing.scoring, kept)
        if not found.isfinite().all():
            raise_non_finite(subject, batch, ready=for_batch(subject, ready, carried, rows))
        return {"log_odds": found.float().cpu()}

    run_batches(tokens, batch_size, run, shelf, advance, sequences=len(forcing.prefixes))
    return gather(shelf.parts(), "log_odds", torch.zeros(len(tokens)))


def final_states(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    *,
    batch_size: int | BatchSize = 64,
    shelf: Shelf | None = None,
) -> Float[Tensor, "prompt hidden"]:
    """The final state of every prompt at its last token, after the final norm, in single precision."""
    places, shelf = places_reading_last(subject), shelf or Memory()
    start = cache(partial(shared_start, subject, tokens, batch_size))

    def run(rows: list[int]) -> dict[str, Tensor]:
        from ssn_probe.tracing.bodies.refusal import trace_states

        batch = [tokens[row] for row in rows]
        inputs = start().before(whole_inputs(subject, [start().rest(prompt) for prompt in batch]), batch)
        states = run_body(subject, trace_states, inputs, places).float().cpu()
        if not states.isfinite().all():
            raise_non_finite(subject, batch)
        return {"states": states}

    run_batches(tokens, batch_size, run, shelf, no_progress)
    width = shelf.parts()[0].get("states").shape[1]
    return gather(shelf.parts(), "states", torch.zeros(len(tokens), width))
