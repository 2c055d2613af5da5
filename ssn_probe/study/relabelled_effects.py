"""The same effects of the same prompts under other labels: exchanged ones, or two random halves of harmless prompts."""

from dataclasses import replace

import numpy as np
import polars as pl

from ssn_probe.errors import DataError
from ssn_probe.spec import Exchanged, Labels, Placebo
from ssn_probe.stats.nulls.label_exchange import units
from ssn_probe.stats.nulls.prompt_effects import PromptEffects
from ssn_probe.stats.nulls.relabelled import relabelled


def under(labels: Labels, effects: PromptEffects) -> PromptEffects:
    """The effects of the prompts that take part, under other labels. Raises DataError where there are none."""
    if isinstance(labels, Exchanged):
        return relabelled(effects, labels.draw, labels.seed)
    assert isinstance(labels, Placebo)
    kept = ~effects.prompts["harmful"].to_numpy()
    harmful = _halves(effects.prompts, [labels.seed, labels.split])
    return replace(
        effects,
        prompts=effects.prompts.with_columns(harmful=pl.Series(harmful)).filter(pl.Series(kept)),
        read=lambda language, layer, site: effects.read(language, layer, site)[kept],
        key=f"{effects.key} placebo {labels.split} seed {labels.seed}",
    )


def _halves(prompts: pl.DataFrame, seed: list[int]) -> np.ndarray:
    """A random half of the harmless units of every stratum, bool [prompt]."""
    unit, harmless = units(prompts), ~prompts["harmful"].to_numpy()
    first = prompts.with_columns(unit=pl.Series(unit)).filter(pl.Series(harmless)).unique("unit", keep="first")
    random, chosen = np.random.default_rng(seed), []
    for _, rows in first.sort("stratum", "unit").group_by("stratum", maintain_order=True):
        members = random.permutation(rows["unit"].to_numpy())
        chosen.append(members[: (len(members) + int(random.integers(2))) // 2])
    taken = np.isin(unit, np.concatenate(chosen)) & harmless if chosen else np.zeros(len(unit), dtype=bool)
    if not taken.any() or not (harmless & ~taken).any():
        raise DataError("there are too few harmless identify prompts for a placebo", "Give more harmless prompts.")
    return taken
