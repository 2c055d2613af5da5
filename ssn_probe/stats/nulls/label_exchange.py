"""Which prompts could have each other's labels if labels meant nothing.

Prompts that share a `cluster` or a `pair_id` are a *unit* and move together. A unit with both labels (a minimal pair)
swaps them as a whole; units with a single label exchange it with other units of their stratum (`algorithms.md` 3, "the
permutation"). A draw applies to a prompt id, and so to all its translations.
"""

from dataclasses import dataclass
from math import log10

import numpy as np
import polars as pl

from ssn_probe.errors import DataError
from ssn_probe.stats.nulls.prompt_effects import check_prompts

FEWEST = 20
"""With fewer distinct relabellings, no permutation can give p ≤ .05."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Exchange:
    """How the labels of a set of prompts may be exchanged.

    `unit` [prompt] codes from 0; `mixed` [unit] bool, the units that swap; `stratum` [unit] codes, −1 for units that
    swap or are dropped; `kept` [prompt] bool. `pairs_swapped` and `strata` count what is exchanged, `dropped_prompts`
    and `dropped_strata` what is not, because its stratum has a single label. `log10_relabellings`: of the number of
    distinct labellings. `confounded`: no source has harmful *and* harmless prompts, so that no permutation can
    distinguish a difference of labels from a difference of sources.
    """

    harmful: np.ndarray
    unit: np.ndarray
    mixed: np.ndarray
    stratum: np.ndarray
    kept: np.ndarray
    pairs_swapped: int
    strata: int
    dropped_prompts: int
    dropped_strata: int
    log10_relabellings: float
    confounded: bool


def exchange(prompts: pl.DataFrame) -> Exchange:
    """Which labels can be exchanged. Raises DataError when none can, or too few for a test."""
    check_prompts(prompts)
    harmful, unit = prompts["harmful"].to_numpy(), units(prompts)
    mixed, label = _both(unit, harmful), _label_of(unit, harmful)
    given = _strata(prompts, unit)
    usable = ~mixed & _both(given, label, among=~mixed)[given]
    stratum = np.where(usable, given, -1)
    kept = (mixed | usable)[unit]
    if not kept.any():
        raise DataError(
            "no prompts are exchangeable: in no stratum are there harmful and harmless prompts",
            "Give both contexts the same topics, lengths and source, or minimal pairs (`pair_id`).",
        )
    log10_relabellings = _log10_relabellings(stratum, mixed, label)
    # Rounding must not turn 20 relabellings into 19.9999.
    if log10_relabellings < log10(FEWEST) - 1e-9:
        raise DataError(
            f"too few prompts for a permutation test: there are {10**log10_relabellings:.0f} distinct ways to "
            f"exchange their labels, and at least {FEWEST} are needed",
            "Give more prompts (200 a side), more minimal pairs, or smaller clusters.",
        )
    return Exchange(
        harmful=harmful,
        unit=unit,
        mixed=mixed,
        stratum=stratum,
        kept=kept,
        pairs_swapped=int(mixed.sum()),
        strata=len(np.unique(stratum[usable])),
        dropped_prompts=int((~kept).sum()),
        dropped_strata=len(np.setdiff1d(given[~mixed], stratum)),
        log10_relabellings=log10_relabellings,
        confounded=_confounded(prompts),
    )


def draw_labels(prompts: pl.DataFrame, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random labellings, bool [draw, prompt], and which prompts take part, bool [prompt].

    Mixed units swap with probability 1/2; within a stratum every assignment of its labels to its units is equally
    likely. Prompts that do not take part keep their label, and must be left out of the computation. Raises what
    `exchange` raises.
    """
    found = exchange(prompts)
    random = np.random.default_rng(seed)
    flipped = np.zeros((draws, len(found.mixed)), dtype=bool)  # [draw unit]
    flipped[:, found.mixed] = random.random((draws, found.pairs_swapped)) < 0.5
    labels = flipped[:, found.unit] ^ found.harmful
    own = _label_of(found.unit, found.harmful)
    drawn = np.tile(own, (draws, 1))
    for code in np.unique(found.stratum[found.stratum >= 0]):
        members = np.flatnonzero(found.stratum == code)
        drawn[:, members] = random.permuted(np.tile(own[members], (draws, 1)), axis=1)
    return np.where(found.mixed[found.unit], labels, drawn[:, found.unit]), found.kept


def units(prompts: pl.DataFrame) -> np.ndarray:
    """The unit of every prompt, [prompt] codes from 0: connected components of sharing a cluster or a pair."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = prompts.height
    numbered = prompts.with_row_index("row")
    edges = [
        numbered.filter(pl.col(name).is_not_null()).select("row", first=pl.col("row").first().over(name)).to_numpy()
        for name in ("cluster", "pair_id")
    ]
    rows, columns = np.concatenate(edges).T
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def _label_of(unit: np.ndarray, harmful: np.ndarray) -> np.ndarray:
    """The label of every unit, bool [unit] (True for a unit with both)."""
    return np.bincount(unit, weights=harmful) > 0


def _both(code: np.ndarray, harmful: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """Which codes have both labels, bool [code], counting only the members in `among`."""
    here, size = np.ones(len(code), dtype=bool) if among is None else among, int(code.max()) + 1
    some, other = (np.bincount(code[here & side], minlength=size) > 0 for side in (harmful, ~harmful))
    return some & other


def _strata(prompts: pl.DataFrame, unit: np.ndarray) -> np.ndarray:
    """The stratum of every unit, [unit] codes: its prompts' most frequent; prompts without a stratum form another.

    A unit that spans strata has to move as a whole, so it belongs to a single stratum (ties: the first by name).
    """
    named = prompts.select(unit=pl.Series(unit), stratum=pl.col("stratum").fill_null(""))
    counted = named.group_by("unit", "stratum").len().sort(["unit", "len", "stratum"], descending=[False, True, False])
    first = counted.unique("unit", keep="first", maintain_order=True)
    return np.unique(first["stratum"].to_numpy(), return_inverse=True)[1]


def _log10_relabellings(stratum: np.ndarray, mixed: np.ndarray, label: np.ndarray) -> float:
    from scipy.special import gammaln

    total = mixed.sum() * log10(2)
    for code in np.unique(stratum[stratum >= 0]):
        here = stratum == code
        n, marked = here.sum(), (here & label).sum()
        total += (gammaln(n + 1) - gammaln(marked + 1) - gammaln(n - marked + 1)) / np.log(10)
    return float(total)


def _confounded(prompts: pl.DataFrame) -> bool:
    sources = prompts.group_by(pl.col("source").fill_null("")).agg(pl.col("harmful").n_unique() > 1)
    return not sources["harmful"].any()
