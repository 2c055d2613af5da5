"""How far the final state moves without each neuron: estimated for all at once, and by brute force."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ssn_probe.errors import ModelError
from ssn_probe.model.chat import whole_inputs
from ssn_probe.model.subject import Subject
from ssn_probe.neurons import SITES
from ssn_probe.spec import Final, FinalAblation, scores
from ssn_probe.spec.effect_registry import lowness
from ssn_probe.tracing.ablations import all_neurons, placed
from ssn_probe.tracing.batching import Advance, BatchSize, Shelf, no_progress
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.effect_store import Scores
from ssn_probe.tracing.exact_effects import without_each
from ssn_probe.tracing.execution import run_body, runs_whole
from ssn_probe.tracing.score_batches import run_rows, run_scores


@scores(Final)
def _final(
    effect: Final, subject: Subject, tokens: Any, *, reads: None, responses: Any = None, **options: Any
) -> Scores:
    settings = {"probes": effect.probes, "seed": effect.seed, "exact_qk": effect.exact_qk}
    return score_final(subject, tokens, response_tokens=responses, **settings, **options)


@scores(FinalAblation)
def _final_ablation(_effect: FinalAblation, subject: Subject, tokens: Any, *, reads: None, **options: Any) -> Scores:
    return score_final_ablation(subject, tokens, **options)


def score_final(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    *,
    response_tokens: Sequence[Sequence[int]] | None = None,
    probes: int = Final.probes,
    seed: int = Final.seed,
    exact_qk: float = Final.exact_qk,
    sites: Sequence[str] = SITES,
    batch_size: int | BatchSize = 64,
    shelf: Shelf | None = None,
    advance: Advance = no_progress,
) -> Scores:
    """How far the final hidden state, after the final norm, moves without each neuron: ‖Δ z‖₂, estimated for all.

    One forward pass and `probes` backward passes a prompt, see `bodies.final`: exact where the neuron's module is,
    to first order from there on. q and k have their exact change of the attention pattern where they are strongest to
    first order, a share of `exact_qk` per layer and prompt. An effect's standard error is √(1 − c_k²) of itself, c_k =
    √(2/k) Γ((k+1)/2) / Γ(k/2), 18 % with 16 probes; ranks of a mean over n prompts are √n times as sure.
    Source: attribution patching (Kramár et al. 2024, 2403.00745), with a random projection in the place of a metric.

    Args:
        tokens: prompts as token ids.
        response_tokens: what follows each prompt. Then neurons are silenced at the response's tokens alone, and the
            effect is √ of the mean over them of ‖Δ z_t‖² (each with probes of its own). None: neurons are silenced at
            every token of the prompt, and z is read at the last.
        probes: k, random read-outs of the final state.
        seed: of the probes, which depend on it and on the prompt alone.
        batch_size: prompts that run together.

    Raises:
        ModelError: no probe, no token to read, a prompt without a response, or NaN or Inf, naming layer and site.
    """
    answers = [()] * len(tokens) if response_tokens is None else response_tokens
    _check_sketch(tokens, answers, probes, by_response=response_tokens is not None)
    places = places_of(subject, sites)
    whole = [[*prompt, *answer] for prompt, answer in zip(tokens, answers, strict=True)]
    seeds = [_seed_of(seed, *both) for both in zip(tokens, answers, strict=True)]

    def run(rows: list[int]) -> dict[str, Any]:
        from ssn_probe.tracing.bodies.final import trace_final_effects

        inputs = whole_inputs(subject, [whole[row] for row in rows])
        sketch = {
            "probes": probes,
            "lowness": lowness(probes),
            "seeds": [seeds[row] for row in rows],
            "read": [len(answers[row]) or 1 for row in rows],
            "silent": [len(answers[row]) or len(whole[row]) for row in rows],
            "exact_qk": exact_qk,
        }
        return run_body(subject, trace_final_effects, inputs, places, sketch)

    return run_rows(subject, whole, places["sites"], run, batch_size=batch_size, shelf=shelf, advance=advance)


def _check_sketch(tokens: Sequence[Any], answers: Sequence[Any], probes: int, by_response: bool) -> None:
    if probes < 1:
        raise ModelError(
            f"The final effect has {probes} probes.",
            "Give at least one; FinalAblation (effect=finalablation) has none: it takes a forward pass per neuron.",
        )
    if len(answers) != len(tokens):
        raise ModelError(f"{len(answers)} responses to {len(tokens)} prompts.", "Give one response for each prompt.")
    if not all(tokens) or (by_response and not all(answers)):
        raise ModelError("A prompt or its response has no token.", "Leave it out.")


def _seed_of(seed: int, prompt: Sequence[int], answer: Sequence[int]) -> int:
    """The seed of one prompt's probes."""
    text = repr((seed, [int(token) for token in prompt], [int(token) for token in answer]))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")


def score_final_ablation(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    *,
    sites: Sequence[str] = SITES,
    batch_size: int | BatchSize = 64,
    shelf: Shelf | None = None,
    advance: Advance = no_progress,
) -> Scores:
    """How far the final hidden state at the last token, after the final norm, moves without each neuron: ‖Δ z‖₂.

    Brute force, one prompt at a time, each neuron silenced at every token: a forward pass per neuron and prompt, which
    begins at the neuron's layer where that is possible (`exact_effects`). The slow truth, of which `score_final` is an
    estimate.

    Args:
        tokens: prompts as token ids.
        batch_size: neurons that run together.

    Raises:
        ModelError: NaN or Inf in the activations, naming layer and site.
    """
    places = places_of(subject, sites)
    size = batch_size if isinstance(batch_size, BatchSize) else BatchSize(batch_size)
    neurons = all_neurons(subject, places["sites"])

    def run(batch: Sequence[Sequence[int]]) -> Mapping[str, Tensor]:
        effects, _ = without_each(subject, batch, neurons, None, size, whole=runs_whole(subject))
        return placed(subject, places["sites"], neurons, effects)

    return run_scores(subject, tokens, places["sites"], run, batch_size=1, shelf=shelf, advance=advance)
