"""The same effects of the same prompts under other labels: exchanged ones, or two random halves of harmless prompts."""

from ssn_probe.spec import Exchanged, Labels, Placebo
from ssn_probe.stats.nulls.prompt_effects import PromptEffects
from ssn_probe.stats.nulls.relabelled import placebo_effects, relabelled


def under(labels: Labels, effects: PromptEffects) -> PromptEffects:
    """The effects of the prompts that take part, under other labels. Raises DataError where there are none."""
    if isinstance(labels, Exchanged):
        return relabelled(effects, labels.draw, labels.seed)
    assert isinstance(labels, Placebo)
    return placebo_effects(effects, labels.split, labels.seed)
