"""Every effect of this package with every rule, as methods of the yardstick."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.identification.counting import counted, per_prompt
from benchmarks.identification.peers.given import HARMFUL, HARMLESS, Given, Ranking
from ssn_probe.model.openings import Openings
from ssn_probe.neurons.selection import contrast_score
from ssn_probe.spec.effect_registry import Ablation, named_effect
from ssn_probe.spec.neuron_sets import RULES
from ssn_probe.tracing.ablations import all_neurons, placed
from ssn_probe.tracing.batching import BatchSize
from ssn_probe.tracing.effect_store import Scores, mean
from ssn_probe.tracing.effects import score
from ssn_probe.tracing.exact_effects import exact_effects

EFFECTS = ("refusal:1", "refusal", "local", "final", "ablation:1")
"""What the table shows. `ablation:1` silences every neuron by itself, exactly: a pass per neuron and prompt, which the
gradients of `refusal:1` and `refusal` stand for."""
SLOW = ("finalablation",)
"""A pass per neuron and prompt as well, of a thing without a sign: only with --slow."""

Means = dict[str, tuple[Ranking, Ranking]]
"""Language → mean effects on harmful, and on harmless prompts."""


def effects_of(given: Given, effect: str) -> tuple[Means, float]:
    """The mean effects, and their cost in forward passes per prompt.

    Ablations of all neurons begin at the neuron's layer (`exact_effects`), which gives the numbers of whole passes to
    rounding. An effect with a screen chooses its candidates on both contexts together, as studies do.
    """
    found: Means = {}
    with counted(given) as passes:
        for language, openings in given.reads.items():
            chosen, count = named_effect(effect), len(given.tokens[language, HARMFUL])
            tokens = [*given.tokens[language, HARMFUL], *given.tokens[language, HARMLESS]]
            reads = openings if chosen.needs_openings else None
            if isinstance(chosen, Ablation) and chosen.candidates == 1:
                found[language] = _ablated(given, tokens, openings, count)
                continue
            scores = score(
                chosen, given.subject, tokens, reads=reads, sites=given.sites, batch_size=BatchSize(200, auto=True)
            )
            rows = (range(count), range(count, len(scores)))
            found[language] = _means(given, scores, rows[0]), _means(given, scores, rows[1])
    return found, per_prompt(passes, given)


def _means(given: Given, scores: Scores, rows: range) -> Ranking:
    return {site: mean(scores, site, list(rows)) for site in given.sites}


def _ablated(given: Given, tokens: Sequence[Sequence[int]], openings: Openings, count: int) -> tuple[Ranking, Ranking]:
    """The mean exact effects of every neuron on the first `count` prompts, and on the others."""
    every = all_neurons(given.subject, given.sites)
    effects = exact_effects(given.subject, tokens, every, openings, batch_size=BatchSize(1024, auto=True))
    sides = (effects[:count].double().mean(0), effects[count:].double().mean(0))
    found = [placed(given.subject, given.sites, every, side[:, None]) for side in sides]
    return {site: found[0][site][0] for site in given.sites}, {site: found[1][site][0] for site in given.sites}


def harmful(h: Tensor, b: Tensor) -> Tensor:
    """h, the mean effect on harmful prompts: rule `harmful`."""
    return contrast_score("harmful", h, b)


def difference(h: Tensor, b: Tensor) -> Tensor:
    """h − b, less the mean on harmless prompts: rule `difference`, the default."""
    return contrast_score("difference", h, b)


def both(h: Tensor, b: Tensor) -> Tensor:
    """h − b/2, which ranks as 2h − b does: midway between what is asked by H and by D: rule `both`."""
    return contrast_score("both", h, b)


def paper(h: Tensor, b: Tensor) -> Tensor:
    """h, but below all others what is in the harmless top 3 % of its layer and site: rule `paper`, as a ranking."""
    count = int(np.ceil(RULES["paper"] * b.shape[-1] - 1e-9))
    top = torch.zeros_like(b, dtype=torch.bool).scatter(-1, b.topk(count, -1).indices, True) & (b > 0)
    return torch.where(top, h.min() - 1, h)


ASKED: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "h": harmful,
    "h − b": difference,
    "2h − b": both,
    "h without top b": paper,
}
"""Every rule, by its name in the table."""


def rankings(means: Means, rule: str, *, average: bool) -> Ranking | dict[str, Ranking]:
    """The ranking of effects averaged over languages, or the own ranking of every language."""
    sites = tuple(next(iter(means.values()))[0])
    ask = ASKED[rule]
    if not average:
        return {language: {site: ask(h[site], b[site]) for site in sites} for language, (h, b) in means.items()}
    averages = [
        {site: torch.stack([pair[side][site] for pair in means.values()]).mean(0) for site in sites} for side in (0, 1)
    ]
    return {site: ask(averages[0][site], averages[1][site]) for site in sites}
