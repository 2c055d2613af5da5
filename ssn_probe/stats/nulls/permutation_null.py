"""Would a set be as large, and would languages share as much, if harmful and harmless prompts did not differ?

Labels are exchanged as `exchange` allows, one draw for all languages, and the whole set is chosen again in each draw.
So the null takes account of common importance, correlated languages, the rule's fixed size and the set algebra.
Rejection means that harmful prompts *differ* from harmless prompts, not that the difference is safety.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import floor

import numpy as np
import polars as pl

from ssn_probe.neurons import EVERY
from ssn_probe.spec import SetExpression, Shared
from ssn_probe.spec.node import walk
from ssn_probe.stats.nulls.array_selection import Samples, overlaps
from ssn_probe.stats.nulls.label_exchange import draw_labels, exchange
from ssn_probe.stats.nulls.labelling_sweep import first_of_equal, languages_of, named_alike, sweep
from ssn_probe.stats.nulls.mask_algebra import MaskSet
from ssn_probe.stats.nulls.prompt_effects import PromptEffects

ALPHA = 0.05
AVERAGE = "average"
SCHEMA = {
    **dict.fromkeys(("set", "statistic", "language_a", "language_b"), pl.String),
    **dict.fromkeys(("observed", "observed_all", "null_mean", "null_low", "null_high"), pl.Float64),
    **dict.fromkeys(("difference", "difference_low", "difference_high", "shown_from", "p"), pl.Float64),
    "draws": pl.Int64,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Counts:
    """The counts of a set: `size` [sample, language], `overlap` [sample, pair of languages]."""

    languages: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    size: np.ndarray
    overlap: np.ndarray


def permutation_null(
    effects: PromptEffects,
    sets: Mapping[str, SetExpression],
    *,
    anchor: str | None,
    draws: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """The size of every set and the overlap of its languages, compared with those under exchanged labels.

    Columns: `set`; `statistic`, "size" or "overlap"; `language_a` (`"*"` for a language-free set, "average" for the
    mean over the languages but the anchor) and `language_b` (null for sizes); `observed` on the prompts that take part
    and `observed_all` on all of them; `null_mean`, `null_low`, `null_high` (95 % of the draws); `difference`, observed
    − null, `difference_low` and `difference_high` (observed − 95 % of the draws); `shown_from`, the smallest figure
    that would have had p ≤ .05, null where so few draws allow none; `p`, one-sided,
    `(1 + #{draws ≥ observed}) / (1 + draws)` (Phipson & Smyth 2010); `draws`. There are no overlaps for sets that hold
    `Shared`, which overlap by construction. Where the rule fixes the size, the size carries no information: its p is
    about 1. Where labels are exchanged language by language, there are the sizes of languages' own sets alone.

    Raises RecipeError for a set without a null (`no_null`) and DataError for too few prompts.
    """
    samples, first = _samples(effects.prompts, draws, seed), first_of_equal(sets)
    sets = {name: sets[name] for name in first.values()}
    counts = {name: _start(effects, expression, anchor, len(samples)) for name, expression in sets.items()}

    def visit(name: str, rows: slice, found: MaskSet) -> None:
        _count(counts[name], rows, np.packbits(found.mask, axis=-1))

    sweep(effects, sets, samples, anchor=anchor, visit=visit)
    table = [row for name, count in counts.items() for row in _rows(name, count, anchor)]
    found = named_alike(pl.DataFrame(table, schema=SCHEMA, orient="row"), first)
    alone = pl.col("language_a").is_in(effects.languages) & pl.col("language_b").is_null()
    return found.filter(alone) if effects.per_language else found


def _samples(prompts: pl.DataFrame, draws: int, seed: int) -> Samples:
    """The labels of all prompts, those of the prompts that take part, and every draw: [2 + draw, prompt]."""
    labels, kept = draw_labels(prompts, draws, seed)
    observed = prompts["harmful"].to_numpy()
    labels = np.concatenate([observed[None], observed[None], labels])
    used = np.concatenate([np.ones((1, len(kept)), dtype=bool), np.tile(kept, (1 + draws, 1))])
    weighted = np.arange(len(labels)) > 0
    return Samples(harmful=labels & used, harmless=~labels & used, blocks=exchange(prompts).blocks, weighted=weighted)


def _start(effects: PromptEffects, expression: SetExpression, anchor: str | None, samples: int) -> _Counts:
    languages = languages_of(effects, expression, anchor)
    shared = any(isinstance(node, Shared) for node in walk(expression))
    pairs = () if shared else tuple(combinations(range(len(languages)), 2))
    return _Counts(
        languages=languages,
        pairs=pairs,
        size=np.zeros((samples, len(languages)), dtype=np.int64),
        overlap=np.zeros((samples, len(pairs)), dtype=np.int64),
    )


def _count(counts: _Counts, rows: slice, packed: np.ndarray) -> None:
    counts.size[rows] += overlaps(packed, packed)
    for column, (a, b) in enumerate(counts.pairs):
        counts.overlap[rows, column] += overlaps(packed[:, a], packed[:, b])


def _rows(name: str, counts: _Counts, anchor: str | None) -> list[tuple]:
    names = counts.languages
    rows: list[tuple] = [
        (name, "size", language, None, *_against(counts.size[:, i])) for i, language in enumerate(names)
    ]
    others = [i for i, language in enumerate(names) if language not in (anchor, EVERY)]
    if len(others) > 0 and len(names) > 1:
        rows.append((name, "size", AVERAGE, None, *_against(counts.size[:, others].sum(axis=1), len(others))))
    for column, (a, b) in enumerate(counts.pairs):
        rows.append((name, "overlap", names[a], names[b], *_against(counts.overlap[:, column])))
    return rows


def _against(counts: np.ndarray, parts: int = 1) -> tuple[float | int | None, ...]:
    """The figures from `observed` to `draws` of whole counts [sample], which `parts` divides."""
    every, observed, null = counts[0], counts[1], counts[2:]
    low, high = np.quantile(null, [0.025, 0.975])
    p = (1 + int((null >= observed).sum())) / (1 + len(null))
    figures = (observed, every, null.mean(), low, high, observed - null.mean(), observed - high, observed - low)
    least = shown_from(null)
    return *(float(one) / parts for one in figures), None if least is None else least / parts, p, len(null)


def shown_from(null: np.ndarray) -> int | None:
    """The smallest whole count with p ≤ .05 among these draws; None where there are too few for any."""
    allowed = floor(ALPHA * (1 + len(null)) + 1e-9) - 1  # draws that may be as large
    return None if allowed < 0 else int(np.sort(null)[::-1][allowed]) + 1
