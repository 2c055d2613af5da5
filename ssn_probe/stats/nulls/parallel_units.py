"""Which prompts are known to be each other's translations, or known not to be.

Labels are exchanged for all translations of a prompt together, because a model treats translations alike: if they had
labels of their own, languages would share less by chance than they do, and any set would look shared. A prompt's
translations are those of its id (and of its unit, which moves as a whole). Two prompts that stand in one language are
different prompts. But two that have no language in common may be the same request under two ids. Whoever stands in more
than half of the languages shares a language with every other such prompt, so that among these nothing is unknown.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl

from ssn_probe.errors import DataError
from ssn_probe.stats.nulls.label_exchange import units
from ssn_probe.stats.nulls.prompt_effects import PromptEffects


def known_parallel(prompts: pl.DataFrame, spoken: pl.DataFrame) -> np.ndarray:
    """Whether the translations of a prompt are known, bool [prompt].

    `prompts`: `prompt_id, cluster, pair_id`, an id per row; `spoken`: `prompt_id, language`, the languages of each.
    False for prompts in at most half of the languages, where some other prompt has none of their languages.
    """
    unit = units(prompts)
    codes = {language: 1 << place for place, language in enumerate(spoken["language"].unique().sort())}
    masks = [0] * (int(unit.max(initial=-1)) + 1)
    rows = dict(zip(prompts["prompt_id"], unit.tolist(), strict=True))
    for name, language in spoken.select("prompt_id", "language").iter_rows():
        masks[rows[name]] |= codes[language]
    alone = set(_alone(set(masks), len(codes)))
    return np.array([masks[code] not in alone for code in unit.tolist()], dtype=bool)


def _alone(patterns: set[int], languages: int) -> Iterator[int]:
    """The sets of at most half of the languages, as bits, with which another set has no language in common."""
    for pattern in patterns:
        if 2 * pattern.bit_count() <= languages and any(not pattern & other for other in patterns):
            yield pattern


def only_parallel(effects: PromptEffects) -> PromptEffects:
    """The effects of the prompts whose translations are known (column `parallel`); the same value where all are.

    Raises DataError where a label has no such prompt.
    """
    if "parallel" not in effects.prompts.columns or effects.prompts["parallel"].all():
        return effects
    kept = effects.prompts["parallel"].to_numpy()
    prompts = effects.prompts.filter("parallel")
    if prompts["harmful"].n_unique() < 2:
        total = effects.prompts.height
        raise DataError(
            f"the prompt ids of the languages are not parallel: {total - len(prompts)} of {total} identify prompts may "
            "be translations of each other under different ids, and the labels of translations can only be exchanged "
            "together",
            "Give all translations of a prompt the same prompt_id.",
        )
    return replace(
        effects,
        prompts=prompts,
        read=lambda language, layer, site: effects.read(language, layer, site)[kept],
        key=f"{effects.key} parallel",
    )
