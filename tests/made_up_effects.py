"""Made-up effects for the tests of `ssn_probe.stats.nulls`: in memory, of prompts with any structure."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from ssn_probe.neurons import NeuronSet
from ssn_probe.spec import SetExpression
from ssn_probe.stats.nulls.array_selection import Samples
from ssn_probe.stats.nulls.labelling_sweep import sweep
from ssn_probe.stats.nulls.mask_algebra import MaskSet
from ssn_probe.stats.nulls.prompt_effects import COLUMNS, PromptEffects

LANGUAGES = ("en", "de", "sw")


def prompt_table(harmful: Sequence[bool], **given: Sequence[str | None] | None) -> pl.DataFrame:
    """Prompts p0, p1, …, each its own cluster unless `cluster`, `pair_id`, `stratum` or `source` are given."""
    n = len(harmful)
    ids = [f"p{i}" for i in range(n)]
    usual = {"cluster": ids, "pair_id": [None] * n, "stratum": ["one"] * n, "source": ["made up"] * n}
    columns = usual | {name: list(values) for name, values in given.items() if values is not None}
    return pl.DataFrame(
        {"prompt_id": ids, "harmful": list(harmful), **columns},
        schema={name: pl.Boolean if name == "harmful" else pl.String for name in COLUMNS},
    )


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


def sets_from_masks(measured: PromptEffects, expression: SetExpression, labels: np.ndarray) -> list[NeuronSet]:
    """The set under every labelling, bool [labelling, prompt], from its masks; neurons have no scores."""
    frames: list[list[pl.DataFrame]] = [[] for _ in labels]
    languages: tuple[str, ...] = ()

    def visit(_name: str, rows: slice, found: MaskSet) -> None:
        nonlocal languages
        languages = found.languages
        for number, mask in enumerate(found.mask, start=rows.start):
            frames[number].append(found.neurons(mask).drop("value"))

    samples = Samples(harmful=labels, harmless=~labels)
    sweep(measured, {"set": expression}, samples, anchor=measured.languages[0], visit=visit)
    unscored = pl.lit(None, pl.Float64).alias("score")
    return [NeuronSet(pl.concat(found).with_columns(unscored), languages) for found in frames]


def study(seed: int, *, planted: int = 0, size: float = 1.5, n: int = 30, neurons: int = 100) -> PromptEffects:
    """One ffn layer in three languages: common importances, and noise of a prompt that its translations share.

    The first `planted` neurons differ by `size` standard deviations of their noise.
    """
    random, prompts = np.random.default_rng(seed), prompt_table(sides(n))
    base = np.exp(random.normal(0, 1, neurons))
    common = random.normal(size=(prompts.height, neurons))
    shift = prompts["harmful"].to_numpy()[:, None] * size * (np.arange(neurons) < planted)
    effects = {}
    for language in LANGUAGES:
        noise = 0.8 * common + 0.6 * random.normal(size=common.shape)
        effects[language, 0, "ffn"] = base * np.exp(random.normal(0, 0.15, neurons)) * (1 + 0.5 * (noise + shift))
    return effects_from(prompts, effects)
