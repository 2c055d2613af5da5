"""Do exchanged labels make a null? How many labels they leave as they are, and what is left of the contrast.

A set that is found under exchanged labels is a set that is found without a difference only if the exchange takes the
difference away. Where the topic predicts the label, an exchange within topics leaves most labels in place.
"""

from dataclasses import dataclass

import numpy as np

from ssn_probe.errors import DataError
from ssn_probe.stats.nulls.array_selection import Samples, check_present
from ssn_probe.stats.nulls.label_exchange import Exchange, draw_labels, exchange
from ssn_probe.stats.nulls.parallel_units import exchangeable, why_not_parallel
from ssn_probe.stats.nulls.prompt_effects import PromptEffects, groups
from ssn_probe.text import percent

MOST_RETAINED = 0.55
"""With more labels in place, sets under exchanged labels contrast harmful with harmless prompts themselves."""
ERRORS = 3.29
"""A mean contrast of more than so many standard errors is not 0 (p = .001)."""


@dataclass(frozen=True, kw_only=True)
class Exchangeability:
    """How the labels of a set's prompts exchange, and whether that makes a null.

    `prompts` of the contrast, of which `taking_part` exchange labels: in so many `pairs` that swap, or in `strata`.
    `retention`: the share of prompts that keep their label over draws, the mean of harmful and harmless ones, so that
    it is 1/2 where nothing but chance decides, however many there are of either. `contrast`: the mean over draws of the
    contrast of all neurons and languages, projected on the observed one, 1 if nothing changed, 0 for a null; with its
    standard error `contrast_error`. `impossible`: why labels cannot be exchanged at all. `not_parallel`: why they are
    exchanged language by language, so that nothing that combines languages can be tested; None where a draw is for all.
    """

    sets: tuple[str, ...] = ()
    prompts: int
    taking_part: int = 0
    pairs: int = 0
    strata: int = 0
    retention: float | None = None
    contrast: float | None = None
    contrast_error: float | None = None
    impossible: str | None = None
    not_parallel: str | None = None

    @property
    def reason(self) -> str | None:
        """Why no valid null exists, in words; None where one does."""
        if self.impossible is not None:
            return self.impossible
        if self.retention is not None and self.retention > MOST_RETAINED:
            return (
                f"{percent(self.retention, 0)} of the prompts keep their label when labels are exchanged within topic, "
                "length and source, because these predict the label (50 % would keep it if they did not): what is "
                "found under labels that are mostly the observed ones is no example of a set without a difference"
            )
        if self.contrast is not None and abs(self.contrast) > ERRORS * (self.contrast_error or 0) + 1e-9:
            return (
                f"the mean contrast under exchanged labels is {percent(self.contrast)} of the observed one (standard "
                f"error {percent(self.contrast_error or 0)}), and not 0"
            )
        return None


def exchangeability(effects: PromptEffects, *, draws: int = 1000, seed: int = 0) -> Exchangeability:
    """Whether exchanged labels make a null for the sets of these effects, which are read once."""
    basis = exchangeable(effects)
    apart = why_not_parallel(effects) if basis.per_language else None
    known = {"prompts": effects.prompts.height, "not_parallel": apart}
    try:
        found = exchange(basis.prompts)
        labels, kept = draw_labels(basis.prompts, draws, seed)
        contrast = _projections(basis, found, labels)
    except DataError as error:
        reasons = [reason for reason in (apart, error.message) if reason]
        return Exchangeability(**known, impossible="; and within languages ".join(reasons))
    same = labels == found.harmful
    sides = [same[:, kept & side].mean() for side in (found.harmful, ~found.harmful)]
    return Exchangeability(
        **known,
        taking_part=int(kept.sum()),
        pairs=found.pairs_swapped,
        strata=found.strata,
        retention=float(np.mean(sides)),
        contrast=float(contrast.mean()),
        contrast_error=float(contrast.std(ddof=1) / draws**0.5),
    )


def _projections(effects: PromptEffects, found: Exchange, labels: np.ndarray) -> np.ndarray:
    """The contrast of every draw, projected on the observed one and in its units, [draw].

    A contrast is a · x, with weights a of prompts [prompt] and effects x [prompt, neuron]. So its product with the
    observed contrast is a · (x · observed), and x is read once, however many draws there are.
    """
    every = np.concatenate([found.harmful[None], labels])
    samples = Samples(harmful=every & found.kept, harmless=~every & found.kept, blocks=found.blocks)
    weights: dict[str, np.ndarray] = {}
    onto: dict[str, np.ndarray] = {}
    for group in groups(effects, "site"):
        for language, values in group.effects.items():
            if language not in weights:
                weights[language] = _contrasts(samples, group.present[language], language)
            x = values.astype(np.float64)
            onto[language] = onto.get(language, 0) + x @ (weights[language][0] @ x)
    total = np.sum([weights[language] @ onto[language] for language in weights], axis=0)
    return total[1:] / total[0] if total[0] > 0 else np.zeros(len(labels))


def _contrasts(samples: Samples, present: np.ndarray, language: str) -> np.ndarray:
    """What every prompt counts in the difference of means, [sample, prompt]."""
    harmful, harmless = samples.weights(present)
    for name, side in (("harmful", harmful), ("harmless", harmless)):
        check_present(side.sum(axis=1), language, name)
    return harmful / harmful.sum(axis=1, keepdims=True) - harmless / harmless.sum(axis=1, keepdims=True)
