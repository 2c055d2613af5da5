"""Made-up effects for the tests of `ssn_probe.stats.nulls`: in memory, of prompts with any structure."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from ssn_probe.stats.nulls.prompt_effects import PromptEffects

PROMPTS = {
    "prompt_id": pl.String,
    "harmful": pl.Boolean,
    "cluster": pl.String,
    "pair_id": pl.String,
    "stratum": pl.String,
    "source": pl.String,
}


def prompt_table(
    harmful: Sequence[bool],
    *,
    cluster: Sequence[str] | None = None,
    pair: Sequence[str | None] | None = None,
    stratum: Sequence[str | None] | None = None,
    source: Sequence[str | None] | None = None,
) -> pl.DataFrame:
    """Prompts p0, p1, …, each its own cluster by default."""
    n = len(harmful)
    ids = [f"p{i}" for i in range(n)]
    columns = {
        "prompt_id": ids,
        "harmful": list(harmful),
        "cluster": list(cluster) if cluster is not None else ids,
        "pair_id": list(pair) if pair is not None else [None] * n,
        "stratum": list(stratum) if stratum is not None else ["one"] * n,
        "source": list(source) if source is not None else ["made up"] * n,
    }
    return pl.DataFrame(columns, schema=PROMPTS)


def sides(n: int) -> list[bool]:
    """n harmful and n harmless labels, in turn."""
    return [i % 2 == 0 for i in range(2 * n)]


def effects_from(prompts: pl.DataFrame, effects: Mapping[tuple[str, int, str], np.ndarray]) -> PromptEffects:
    """Effects that are read by (language, layer, site) → [prompt, neuron]."""
    return PromptEffects(
        prompts=prompts,
        languages=tuple(dict.fromkeys(language for language, _, _ in effects)),
        places=tuple(dict.fromkeys((layer, site) for _, layer, site in effects)),
        read=lambda language, layer, site: effects[language, layer, site].astype(np.float32),
    )


def correlated(
    random: np.random.Generator, prompts: pl.DataFrame, languages: Sequence[str], neurons: int, planted: np.ndarray
) -> PromptEffects:
    """One ffn layer: importances common to the languages, noise of a prompt shared between its translations.

    `planted` [neuron]: what harmful prompts add, in standard deviations of a neuron's noise.
    """
    base = np.exp(random.normal(0, 1, neurons))
    common = random.normal(size=(prompts.height, neurons))
    shift = prompts["harmful"].to_numpy()[:, None] * planted
    effects = {}
    for language in languages:
        noise = 0.8 * common + 0.6 * random.normal(size=common.shape)
        effects[language, 0, "ffn"] = base * np.exp(random.normal(0, 0.15, neurons)) * (1 + 0.5 * (noise + shift))
    return effects_from(prompts, effects)


LANGUAGES = ("en", "de", "sw")


def study(seed: int, *, planted: int = 0, size: float = 1.5, n: int = 30, neurons: int = 100) -> PromptEffects:
    """Correlated effects in three languages; the first `planted` neurons differ by `size` standard deviations."""
    shift = np.zeros(neurons)
    shift[:planted] = size
    return correlated(np.random.default_rng(seed), prompt_table(sides(n)), LANGUAGES, neurons, shift)
