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

from ssn_probe.stats.nulls.label_exchange import can_exchange, units
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


def exchangeable(effects: PromptEffects) -> PromptEffects:
    """The effects of the prompts whose labels can be exchanged in all languages together, or else `by_language`.

    Those whose translations are known (column `parallel`); the same value where all are.
    """
    if effects.per_language or all_parallel(effects):
        return effects
    if why_not_parallel(effects) is not None:
        return by_language(effects)
    kept = effects.prompts["parallel"].to_numpy()
    return replace(
        effects,
        prompts=effects.prompts.filter("parallel"),
        read=lambda language, layer, site: effects.read(language, layer, site)[kept],
        key=f"{effects.key} parallel",
    )


def all_parallel(effects: PromptEffects) -> bool:
    """Are the translations of all prompts known?"""
    return "parallel" not in effects.prompts.columns or bool(effects.prompts["parallel"].all())


def why_not_parallel(effects: PromptEffects) -> str | None:
    """Why labels cannot be exchanged in all languages together, in words; None where they can."""
    if all_parallel(effects):
        return None
    known, total = effects.prompts.filter("parallel"), effects.prompts.height
    if known["harmful"].n_unique() < 2 or not can_exchange(known):
        return (
            f"the prompt ids of the languages are not parallel: {total - len(known)} of {total} identify prompts may "
            "be translations of each other under different ids, and the labels of translations can only be exchanged "
            f"together{_almost(effects.prompts['prompt_id'])}"
        )
    return None


def _almost(ids: pl.Series) -> str:
    """Says that ids would be equal, if they were written alike."""
    alike = len(ids) - ids.str.strip_chars().str.to_lowercase().str.replace_all(r"\s+", " ").n_unique()
    return f" ({alike} ids differ from others in capitals or blanks alone)" if alike else ""


def by_language(effects: PromptEffects) -> PromptEffects:
    """The effects with strata within languages: in each one, labels are exchanged independently of the others.

    Prompts exchange labels with those that stand in the same languages (column `spoken`). A draw says what a language
    has by chance. That two languages agree less in draws than in truth says nothing, because a model treats
    translations alike.
    """
    strata = pl.concat_str("spoken", pl.col("stratum").fill_null(""), separator=" | ")
    prompts = effects.prompts.with_columns(stratum=strata)
    return replace(effects, prompts=prompts, key=f"{effects.key} by language", per_language=True)
