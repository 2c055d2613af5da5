"""Which prompts could have each other's labels if labels meant nothing, and the draws of such labels.

Prompts that are equal in every cluster column, or share a `pair_id`, are a *unit* and move together.

**With minimal pairs** (a `pair_id` with both labels): labels are swapped within pairs, and nothing else. All other
prompts take no part. **Without**: a unit that has both labels swaps them as a whole, and units with a single label
exchange it within their stratum, where both labels are present. One unit of each label is enough: every labelling that
a draw can give is equally likely, the observed one among them, so that a rank among draws holds its level whatever the
sizes (Lehmann & Romano 2005, theorem 15.2.1); a stratum with few units only says little.

Units that exchange labels among themselves are a *block*: a unit that swaps, or a stratum. Means are weighted by blocks
(`prompt_blocks`), and every unit counts as one, so that the mean difference over exchanged labels is 0.

**Crossed clusters** (prompts share an action, or an object, but not both): pairs that have a word in common are
exchanged independently of each other. So the exchange is conditional on the actions and objects at hand: what it
rejects is about these, and intervals that resample all cluster columns say how far it holds for others.

A draw applies to a prompt id, and so to all its translations.
"""

from dataclasses import dataclass
from math import lgamma, log, log10

import numpy as np
import polars as pl

from ssn_probe.data.clusters import cluster_columns
from ssn_probe.data.connected import connected
from ssn_probe.errors import DataError
from ssn_probe.stats.nulls.prompt_blocks import Blocks, rounded
from ssn_probe.stats.nulls.prompt_effects import check_prompts

FEWEST = 20
"""With fewer than 19 distinct exchanges beside the observed labels, no permutation can give p ≤ .05."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Exchange:
    """How the labels of a set of prompts may be exchanged.

    `unit` [prompt] codes from 0; `mixed` [unit] bool, the units that swap; `stratum` [unit] codes, −1 for units that
    swap or take no part; `kept` [prompt] bool; `blocks`: of the prompts that are kept. `paired`: only minimal pairs
    swap. `pairs_swapped` and `strata` count what is exchanged, `dropped_prompts` and `dropped_strata` what is not.
    `log10_relabellings`: of the number of distinct labellings. `confounded`: no source has harmful *and* harmless
    prompts, so that no permutation can distinguish a difference of labels from a difference of sources.
    """

    harmful: np.ndarray
    unit: np.ndarray
    mixed: np.ndarray
    stratum: np.ndarray
    kept: np.ndarray
    blocks: Blocks
    paired: bool
    pairs_swapped: int
    strata: int
    dropped_prompts: int
    dropped_strata: int
    log10_relabellings: float
    confounded: bool


def exchange(prompts: pl.DataFrame) -> Exchange:
    """Which labels can be exchanged. Raises DataError when none can, or too few for a test."""
    check_prompts(prompts)
    harmful, unit, paired = prompts["harmful"].to_numpy(), units(prompts), has_pairs(prompts)
    mixed, label = _both(unit, harmful), _label_of(unit, harmful)
    given = _strata(prompts, unit)
    single = np.zeros_like(mixed) if paired else ~mixed
    usable = single & _both(given, label, among=single)[given]
    stratum = np.where(usable, given, -1)
    kept = (mixed | usable)[unit]
    if not kept.any():
        raise DataError(
            "no prompts are exchangeable: there are no minimal pairs, and in no stratum of topic, length and source "
            "are there harmful and harmless prompts",
            "Give minimal pairs (`pair_id`), or both contexts the same topics, lengths and source.",
        )
    log10_relabellings = _log10_relabellings(stratum, mixed, label)
    _check_enough(log10_relabellings, int(mixed.sum()) if paired else None)
    return Exchange(
        harmful=harmful,
        unit=unit,
        mixed=mixed,
        stratum=stratum,
        kept=kept,
        blocks=Blocks(code=_blocks(unit, mixed, stratum, kept), share=_shares(unit, harmful)),
        paired=paired,
        pairs_swapped=int(mixed.sum()),
        strata=len(np.unique(stratum[usable])),
        dropped_prompts=int((~kept).sum()),
        dropped_strata=0 if paired else len(np.setdiff1d(given[~mixed], stratum)),
        log10_relabellings=log10_relabellings,
        confounded=_confounded(prompts),
    )


def can_exchange(prompts: pl.DataFrame) -> bool:
    """Are there enough prompts whose labels exchange?"""
    try:
        exchange(prompts)
    except DataError:
        return False
    return True


def _check_enough(log10_relabellings: float, pairs: int | None) -> None:
    # Rounding must not turn 20 relabellings into 19.9999.
    if log10_relabellings >= log10(FEWEST) - 1e-9:
        return
    where = "" if pairs is None else f", within {pairs} minimal pairs"
    raise DataError(
        f"too few prompts for a permutation test: there are {10**log10_relabellings:.0f} distinct ways to "
        f"exchange their labels{where}, and at least {FEWEST} are needed",
        "Give more prompts (200 a side) or smaller clusters."
        if pairs is None
        else "Give more minimal pairs, or none (no `pair_id`), and labels are exchanged within strata.",
    )


def draw_labels(prompts: pl.DataFrame, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random labellings, bool [draw, prompt], and which prompts take part, bool [prompt].

    Mixed units swap with probability 1/2; within a stratum every assignment of its labels to its units is equally
    likely. A draw does not depend on how many are asked for. Prompts that do not take part keep their label, and must
    be left out of the computation. Raises what `exchange` raises.
    """
    found = exchange(prompts)
    own = _label_of(found.unit, found.harmful)
    keys = np.random.default_rng(seed).random((draws, len(own)))  # [draw unit]
    moved = found.stratum >= 0
    order = np.argsort(found.stratum + keys, axis=1)[:, (~moved).sum() :]  # units that take no part come first
    drawn = np.tile(own, (draws, 1))
    np.put_along_axis(drawn, order, own[np.argsort(found.stratum, kind="stable")[(~moved).sum() :]][None], axis=1)
    swapped = ((keys < 0.5) & found.mixed)[:, found.unit] ^ found.harmful
    return np.where(found.mixed[found.unit], swapped, drawn[:, found.unit]), found.kept


def units(prompts: pl.DataFrame) -> np.ndarray:
    """The unit of every prompt, [prompt] codes from 0: connected by a pair, or by equality in all cluster columns."""
    numbered = prompts.with_row_index("row")
    edges = [
        numbered.filter(pl.any_horizontal(pl.col(names).is_not_null()))
        .select("row", first=pl.col("row").first().over(names))
        .to_numpy()
        for names in (cluster_columns(prompts), ["pair_id"])
    ]
    rows, columns = np.concatenate(edges).T
    return connected(prompts.height, rows, columns)


def has_pairs(prompts: pl.DataFrame) -> bool:
    """Is there a `pair_id` with both labels?"""
    named = prompts.filter(pl.col("pair_id").is_not_null())
    return bool((named.group_by("pair_id").agg(pl.col("harmful").n_unique())["harmful"] > 1).any())


def _label_of(unit: np.ndarray, harmful: np.ndarray) -> np.ndarray:
    """The label of every unit, bool [unit] (True for a unit with both)."""
    return np.bincount(unit, weights=harmful) > 0


def _both(code: np.ndarray, harmful: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """Which codes have both labels, bool [code], counting only the members in `among`."""
    here, size = np.ones(len(code), dtype=bool) if among is None else among, int(code.max()) + 1
    some, other = (np.bincount(code[here & side], minlength=size) > 0 for side in (harmful, ~harmful))
    return some & other


def _blocks(unit: np.ndarray, mixed: np.ndarray, stratum: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The block of every prompt, codes from 0; −1 for prompts that take no part."""
    named = np.where(mixed, stratum.max(initial=0) + 1 + np.arange(len(mixed)), stratum)[unit]
    return np.where(kept, np.unique(np.where(kept, named, -1), return_inverse=True)[1] - int(not kept.all()), -1)


def _shares(unit: np.ndarray, harmful: np.ndarray) -> np.ndarray:
    """1 over the number of prompts in a prompt's unit with its label, [prompt]: a draw gives them all one label."""
    side = 2 * unit + harmful
    return rounded(1 / np.bincount(side)[side])


def _strata(prompts: pl.DataFrame, unit: np.ndarray) -> np.ndarray:
    """The stratum of every unit, [unit] codes: its prompts' most frequent; prompts without a stratum form another.

    A unit that spans strata has to move as a whole, so it belongs to a single stratum (ties: the first by name).
    """
    named = prompts.select(unit=pl.Series(unit), stratum=pl.col("stratum").fill_null(""))
    counted = named.group_by("unit", "stratum").len().sort(["unit", "len", "stratum"], descending=[False, True, False])
    first = counted.unique("unit", keep="first", maintain_order=True)
    return np.unique(first["stratum"].to_numpy(), return_inverse=True)[1]


def _log10_relabellings(stratum: np.ndarray, mixed: np.ndarray, label: np.ndarray) -> float:
    total = mixed.sum() * log10(2)
    for code in np.unique(stratum[stratum >= 0]):
        here = stratum == code
        n, marked = here.sum(), (here & label).sum()
        total += (lgamma(n + 1) - lgamma(marked + 1) - lgamma(n - marked + 1)) / log(10)
    return float(total)


def _confounded(prompts: pl.DataFrame) -> bool:
    sources = prompts.group_by(pl.col("source").fill_null("")).agg(pl.col("harmful").n_unique() > 1)
    return not sources["harmful"].any()
