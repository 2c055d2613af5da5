"""The effects of the same prompts under exchanged labels, or of harmless prompts in two random halves."""

from dataclasses import replace

import numpy as np
import polars as pl

from ssn_probe.neurons import KEYS
from ssn_probe.stats.nulls.array_selection import LABELS, Samples, means
from ssn_probe.stats.nulls.label_exchange import draw_labels, exchange
from ssn_probe.stats.nulls.parallel_units import exchangeable
from ssn_probe.stats.nulls.placebo_splits import placebo_split
from ssn_probe.stats.nulls.prompt_blocks import blocks_of
from ssn_probe.stats.nulls.prompt_effects import PromptEffects, groups


def relabelled(effects: PromptEffects, draw: int, seed: int) -> PromptEffects:
    """The prompts whose labels exchange, under the labels of a draw (`draw_labels`); draw 0: the observed labels.

    The columns `block` and `share` say that means are weighted by blocks. Exchanging the labels again gives the same
    blocks, so that whatever is computed of these effects is computed as it is of the observed labels. Where ids are not
    parallel, languages have draws of their own (`per_language`). Raises what `exchange` raises.
    """
    effects = exchangeable(effects)
    found = exchange(effects.prompts)
    labels = draw_labels(effects.prompts, draw, seed)[0][-1] if draw else found.harmful
    columns = {"harmful": labels, "block": found.blocks.code, "share": found.blocks.share}
    prompts = effects.prompts.with_columns(**{name: pl.Series(values) for name, values in columns.items()})
    return replace(
        effects,
        prompts=prompts.filter(found.kept),
        read=lambda language, layer, site: effects.read(language, layer, site)[found.kept],
        key=f"{effects.key} exchanged {draw} seed {seed}",
    )


def placebo_effects(effects: PromptEffects, k: int, seed: int = 0) -> PromptEffects:
    """The harmless prompts in two random halves, one of which is called harmful. Raises what `placebo_split` raises."""
    kept = ~effects.prompts["harmful"].to_numpy()
    return replace(
        effects,
        prompts=placebo_split(effects.prompts, k, seed),
        read=lambda language, layer, site: effects.read(language, layer, site)[kept],
        key=f"{effects.key} placebo {k} seed {seed}",
    )


def labelled_means(effects: PromptEffects) -> pl.DataFrame:
    """The mean effects of prompts by their labels, weighted by blocks where they have them.

    `language, layer, site, index, harmful, harmless`, as `importance` gives them.
    """
    harmful = effects.prompts["harmful"].to_numpy()[None]
    samples = Samples(harmful=harmful, harmless=~harmful, blocks=blocks_of(effects.prompts))
    frames = []
    for group in groups(effects, "site"):
        found = dict(zip(LABELS, means(group, samples), strict=True))
        place = {"layer": group.layers.astype(np.int32), "site": group.sites, "index": group.index.astype(np.int32)}
        for number, language in enumerate(effects.languages):
            values = {name: side[0, number] for name, side in found.items()}
            frames.append(pl.DataFrame(place | values).with_columns(language=pl.lit(language)))
    return pl.concat(frames).sort("language", maintain_order=True).select(*KEYS, *LABELS)
