"""Every effect of this package with every rule, as methods of the yardstick."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

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
DEFAULT = "refusal"
"""The effect of sets that name none; only its rows say what exchanged labels find."""
SLOW = ("finalablation",)
"""A pass per neuron and prompt as well, of a thing without a sign: only with --slow."""

DRAWS = 5
"""Exchanges of labels under which a row says what its rule finds."""

Means = dict[str, tuple[Ranking, Ranking]]
"""Language → mean effects on harmful, and on harmless prompts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Effects:
    """The effects of every prompt, and their cost in forward passes per prompt.

    `mean`: language and prompts → the mean effect of every neuron; prompts are numbered, harmful ones first, and then
    as many harmless ones.
    """

    mean: Callable[[str, Sequence[int]], Ranking]
    count: int
    languages: tuple[str, ...]
    cost: float

    def means(self, swapped: Sequence[bool] | None = None) -> Means:
        """The means of both contexts, or of what is called so where the prompts of some pairs are `swapped`.

        The n-th harmful and the n-th harmless prompt are a pair, so that each side keeps its size; as labels are
        exchanged in all languages together when a study draws its null.
        """
        moved = [self.count * one for one in swapped or [False] * self.count]
        sides = (
            [row + shift for row, shift in enumerate(moved)],
            [self.count + row - shift for row, shift in enumerate(moved)],
        )
        return {one: (self.mean(one, sides[0]), self.mean(one, sides[1])) for one in self.languages}


def effects_of(given: Given, effect: str) -> Effects:
    """The effects of every prompt.

    Ablations of all neurons begin at the neuron's layer (`exact_effects`), which gives the numbers of whole passes to
    rounding. An effect with a screen chooses its candidates on both contexts together, as studies do.
    """
    chosen, found = named_effect(effect), {}
    exact = isinstance(chosen, Ablation) and chosen.candidates == 1
    with counted(given) as passes:
        for language, openings in given.reads.items():
            tokens = [*given.tokens[language, HARMFUL], *given.tokens[language, HARMLESS]]
            reads = openings if chosen.needs_openings else None
            if exact:
                found[language] = _ablated(given, tokens, openings)
                continue
            scores = score(
                chosen, given.subject, tokens, reads=reads, sites=given.sites, batch_size=BatchSize(200, auto=True)
            )
            found[language] = partial(_means, given, scores)
    return Effects(
        mean=lambda language, rows: found[language](rows),
        count=len(given.tokens[next(iter(given.reads)), HARMFUL]),
        languages=tuple(given.reads),
        cost=per_prompt(passes, given),
    )


def _means(given: Given, scores: Scores, rows: Sequence[int]) -> Ranking:
    return {site: mean(scores, site, list(rows)) for site in given.sites}


def _ablated(given: Given, tokens: Sequence[Sequence[int]], openings: Openings) -> Callable[[Sequence[int]], Ranking]:
    """The mean exact effects of every neuron, as a function of the prompts."""
    every = all_neurons(given.subject, given.sites)
    effects = exact_effects(given.subject, tokens, every, openings, batch_size=BatchSize(1024, auto=True)).double()

    def of(rows: Sequence[int]) -> Ranking:
        found = placed(given.subject, given.sites, every, effects[list(rows)].mean(0, keepdim=True))
        return {site: found[site][0] for site in given.sites}

    return of


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


def exchanges(count: int) -> list[list[bool]]:
    """Which pairs are swapped in each of `DRAWS` exchanges of labels; the same for every organism and effect."""
    return (np.random.default_rng(0).random((DRAWS, count)) < 0.5).tolist()
