"""Definitions that take the gradient of the refusal log-odds or of a loss, others' and candidates of our own."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from benchmarks.identification.peers.given import HARMFUL, HARMLESS, Given, Ranking
from benchmarks.identification.peers.passes import Pass, Place, candidates_of, log_odds, refusal_loss, shares


def loss_gradient(given: Given) -> Ranking:
    """Mean over harmful prompts of |Σ_t a · ∂L/∂a|, L = −log p(refusal opening | prompt).

    The first-order Taylor criterion of pruning with a gate on each neuron (Molchanov et al. 2019, 1906.10771; SNIP, as
    Wei et al. 2024 use it for safety, has it weight by weight), with the loss of a refusal.
    """

    def scored(language: str) -> dict[Place, Tensor]:
        run = given.run(language, HARMFUL, refusal_loss(given.reads[language]))
        effects = shares(run.activations, run.gradients, run.mask)
        return {place: effect.abs().mean(0) for place, effect in effects.items()}

    return given.over_languages(scored)


def attribution(given: Given, *, rule: str = "difference") -> Ranking:
    """Attribution patching to zero: mean of Σ_t ∂r/∂a · a (Nanda 2023; Kramár et al. 2024, 2403.00745), signed.

    rule: "harmful", the mean over harmful prompts, or "difference", that less the mean over harmless ones.
    """
    return _ruled(given, rule, lambda language, context: _shares(given, language, context)[0])


def attribution_to_mean(given: Given) -> Ranking:
    """Attribution patching to the harmless mean: mean over harmful prompts of Σ_t ∂r/∂a · (a − mean harmless a).

    As `attribution`, with the mean as what is patched in. Prompts of the two contexts are not aligned token by token,
    so the mean is over all tokens of the language's harmless prompts.
    """

    def scored(language: str) -> dict[Place, Tensor]:
        harmless = given.run(language, HARMLESS)
        run = given.run(language, HARMFUL, log_odds(given.reads[language]))
        found = {}
        for place, a in run.activations.items():
            rest = (harmless.activations[place] * harmless.mask).sum((0, 1)) / harmless.mask.sum()
            found[place] = ((a - rest) * run.gradients[place] * run.mask).sum(1).mean(0)
        return found

    return given.over_languages(scored)


def integrated_gradients(given: Given, *, steps: int = 8, rule: str = "difference") -> Ranking:
    """Σ_t a · mean over α of ∂r/∂a where the neurons of one place are α times theirs (Sundararajan et al. 2017).

    As in knowledge neurons (Dai et al. 2022, 2104.08696), with the midpoint rule. Departure: the neurons of a layer and
    site move from 0 together, where Dai et al. move one at a time, which would take a path per neuron. Both contexts.
    """

    def effects(language: str, context: str) -> dict[Place, Tensor]:
        read, found = log_odds(given.reads[language]), {}
        for place in given.places:
            for step in range(steps):
                scale = (step + 0.5) / steps
                run = given.run(language, context, read, partial(_scaled, {place: torch.tensor(scale)}))
                part = shares({place: run.activations[place]}, {place: run.gradients[place]}, run.mask)[place] / steps
                found[place] = found.get(place, 0) + part
        return found

    return _ruled(given, rule, effects)


def half_scale(given: Given, *, at: float = 0.5, share: float = 0.05, rule: str = "difference") -> Ranking:
    """The package's `refusal` effect, in plain torch: the gradient where each prompt's strongest neurons are halved.

    Departure: only neurons of `given.sites` are candidates, not those of q, k and v.
    """

    def effects(language: str, context: str) -> dict[Place, Tensor]:
        first, run = _shares(given, language, context)
        factors = {place: torch.where(one, at, 1.0)[:, None] for place, one in candidates_of(first, share).items()}
        halved = given.run(language, context, log_odds(given.reads[language]), partial(_scaled, factors))
        return shares(run.activations, halved.gradients, run.mask)

    return _ruled(given, rule, effects)


def coalition_gradient(
    given: Given, *, draws: int = 8, low: float = 0.0, share: float = 0.05, seed: int = 0, rule: str = "difference"
) -> Ranking:
    """A Shapley value to first order: the gradient averaged over random coalitions of each prompt's candidates.

    In each draw half of the places' neurons, by lot, keep their value if they are candidates of the prompt and the
    others are multiplied by `low`; every second draw is the complement of the one before. Masks depend on the seed and
    the draw, candidates on the prompt alone. The activations are those of the untouched model. No paper; `low=0.5`
    scales as `half_scale` does.
    """

    def effects(language: str, context: str) -> dict[Place, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        first, run = _shares(given, language, context)
        chosen, total, kept = candidates_of(first, share), {}, {}
        for draw in range(draws):
            if draw % 2 == 0:
                kept = {place: torch.rand(one.shape[1], generator=generator) < 0.5 for place, one in chosen.items()}
            here = {place: one if draw % 2 == 0 else ~one for place, one in kept.items()}
            factors = {place: torch.where(one & ~here[place], low, 1.0)[:, None] for place, one in chosen.items()}
            found = given.run(language, context, log_odds(given.reads[language]), partial(_scaled, factors))
            for place, one in shares(run.activations, found.gradients, run.mask).items():
                total[place] = total.get(place, 0) + one / draws
        return total

    return _ruled(given, rule, effects)


def _scaled(factors: Mapping[Place, Tensor], place: Place, activation: Tensor) -> Tensor:
    return activation * factors[place] if place in factors else activation


def _shares(given: Given, language: str, context: str) -> tuple[dict[Place, Tensor], Pass]:
    run = given.run(language, context, log_odds(given.reads[language]))
    return shares(run.activations, run.gradients, run.mask), run


def _ruled(given: Given, rule: str, effects: Callable[[str, str], Mapping[Place, Tensor]]) -> Ranking:
    """Effects per prompt → the mean over harmful prompts, or that less the mean over harmless ones."""

    def scored(language: str) -> dict[Place, Tensor]:
        found = {place: one.double().mean(0) for place, one in effects(language, HARMFUL).items()}
        if rule == "difference":
            rest = effects(language, HARMLESS)
            found = {place: one - rest[place].double().mean(0) for place, one in found.items()}
        return found

    return given.over_languages(scored)
