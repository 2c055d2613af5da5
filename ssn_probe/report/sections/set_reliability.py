"""How far can the sets be trusted: against chance, with other prompts, and in what languages share?"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ssn_probe.report.cells import ABSENT, number, p_value, set_language_cell
from ssn_probe.report.document import Bullets, Picture, Section, Table, folded_if_large, section
from ssn_probe.stats import holm
from ssn_probe.stats.nulls.exchangeability import Exchangeability
from ssn_probe.stats.nulls.permutation_null import AVERAGE as OVER_LANGUAGES
from ssn_probe.study.robustness import Robustness
from ssn_probe.text import counted, listing, percent, signed

FIGURES = ["language_a", "observed", "observed_all", "null_mean", "null_low", "null_high", "p", "draws"]
"""What is equal in two names of one set."""


def null_section(robustness: Robustness) -> Section | None:
    """How labels were exchanged, and sizes beside those that this gives; sets whose size is fixed are only named."""
    title = "What chance gives: sizes under exchanged labels"
    lines = tuple(_exchange_line(one, robustness.apart) for one in robustness.exchangeability)
    exchanged = Bullets(lines) if lines else None
    if robustness.nulls is None:
        return section(title, exchanged) if exchanged else None
    sizes = _sizes(robustness.nulls)
    body = tuple(_size_row(row) for row in sizes.filter(~pl.col("fixed")).rows(named=True))
    head = ("set", "language", "neurons", "under exchanged labels (95 %)", "difference", "would show", "Holm p")
    fixed = sizes.filter("fixed")["set"].unique(maintain_order=True).to_list()
    return section(
        title,
        exchanged,
        f"The labels harmful and harmless were exchanged {counted(int(sizes['draws'][0]), 'time')} and every set was "
        "found anew. A small p says that harmful prompts differ from harmless ones in the number of neurons found or "
        f"shared, not that the difference is safety{or_else(robustness.apart)}. A large p does not say that they do "
        "not: the difference has an interval, and would show is the smallest number of neurons that would have had "
        "p ≤ .05. p is one-sided (is it more?), and the interval two-sided: it can include 0 where p is below .05. "
        "A set has one test, that of its average; Holm's p adjusts it over the sets. Rows without a p "
        "are descriptions.",
        folded_if_large("Sizes per set and language", Table(head, body)) if body else None,
        f"The rule fixes the size of {listing(fixed)}, so the size carries no information: see the stability."
        if fixed
        else None,
    )


def _sizes(nulls: pl.DataFrame) -> pl.DataFrame:
    """The sizes with `fixed` (by the rule) and `p_holm`: over the averages of sets, or languages where there are none.

    Names of the same set, such as those of arms that differ in their dose, are one test.
    """
    sizes = nulls.filter(statistic="size")
    is_fixed = (pl.col("null_low") == pl.col("null_high")) & (pl.col("observed") == pl.col("null_mean"))
    is_average = pl.col("language_a") == OVER_LANGUAGES
    is_test = is_average | ~is_average.any().over("set")
    sizes = sizes.with_columns(fixed=is_fixed.all().over("set"), tested=is_test)
    tests = sizes.filter("tested", ~pl.col("fixed")).select(FIGURES).unique(maintain_order=True)
    adjusted = tests.with_columns(p_holm=pl.Series(holm(tests["p"].to_list()), dtype=pl.Float64))
    joined = sizes.join(adjusted, on=FIGURES, how="left", nulls_equal=True, maintain_order="left")
    return joined.with_columns(p_holm=pl.when("tested").then("p_holm"))


def size_tests(robustness: Robustness) -> list[dict[str, Any]]:
    """The test of every set's size under exchanged labels, with Holm's p; none of sets whose size the rule fixes."""
    if robustness.nulls is None:
        return []
    return list(_sizes(robustness.nulls).drop_nulls("p_holm").iter_rows(named=True))


def _exchange_line(found: Exchangeability, apart: Sequence[str]) -> str:
    """How the labels of sets were exchanged, with the figures that say whether it makes a null."""
    names = listing(found.sets)
    if found.impossible is not None:
        return f"{names}: no valid null exists: {found.impossible}."
    within = "length" if "topic" in apart else "topic and length"
    pairs = f"swapped within {counted(found.pairs, 'minimal pair')}" if found.pairs else ""
    strata = f"exchanged within {within} ({found.strata:,} with both labels)" if found.strata else ""
    draw = "in each language independently" if found.not_parallel else "the same draw in every language"
    kept, left, error = percent(found.retention, 0), percent(found.contrast), percent(found.contrast_error)  # type: ignore[arg-type]
    figures = (
        f"labels were {listing([words for words in (pairs, strata) if words])}, {draw}; {found.taking_part:,} of "
        f"{found.prompts:,} prompts take part, {kept} of them keep their label, and the mean contrast is {left} of the "
        f"observed one (standard error {error})"
    )
    if found.reason is not None:
        return f"{names}: {figures}. No valid null exists: {found.reason}."
    alone = f". Nothing that combines languages is tested: {found.not_parallel}" if found.not_parallel else ""
    return f"{names}: {figures}{alone}."


def or_else(apart: Sequence[str]) -> str:
    """What else the difference of harmful and harmless prompts may be, for the end of a sentence."""
    return f"; it may also be their {listing(apart)}" if apart else ""


def _size_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    size = f"{row['observed']:g}" if row["language_a"] != "average" else f"{row['observed']:.1f}"
    if row["observed"] != row["observed_all"]:
        size += f" ({row['observed_all']:.3g} on all prompts)"
    null = f"{row['null_mean']:.1f} [{row['null_low']:.3g}, {row['null_high']:.3g}]"
    more = f"{signed(row['difference'], 1)} [{row['difference_low']:+.3g}, {row['difference_high']:+.3g}]"
    shown = ABSENT if row["shown_from"] is None else f"{row['shown_from']:.3g}"
    return row["set"], set_language_cell(row["language_a"]), size, null, more, shown, p_value(row["p_holm"])


def stability_section(robustness: Robustness) -> Section | None:
    """Split-half Jaccard beside its null, and its curve over the number of prompts."""
    if robustness.jaccard is None or robustness.curve is None:
        return None
    curve, sizes = robustness.curve, sorted(robustness.curve["prompts"].unique())
    smaller = [size for size in sizes if size < max(sizes)]
    body = []
    adjusted = pl.Series("p_holm", holm(robustness.jaccard["p"].to_list()), dtype=pl.Float64)
    for row in robustness.jaccard.with_columns(adjusted).rows(named=True):
        own = dict(curve.filter(set=row["set"], language=row["language"]).select("prompts", "jaccard").iter_rows())
        body.append((*_jaccard_cells(row), *(number(own.get(size)) for size in smaller)))
    head = ("set", "language", "split-half Jaccard", "under exchanged labels", "Holm p")
    grid = Table((*head, *(f"with {size:.0f} prompts" for size in smaller)), tuple(body))
    note = (
        f"The prompts were halved {counted(robustness.jaccard['pairs'][0], 'time')} (clusters and pairs whole, "
        "translations together) and the set was found in each half: the Jaccard overlap of the two, with the spread of "
        "95 % of the pairs of halves in brackets. Further columns: two samples of fewer prompts each, of the "
        f"{max(sizes):.0f} in a half. 1 means that other prompts of the kind give the same neurons."
    )
    figures = folded_if_large("Split-half overlap per set and language", grid)
    return section("How stable the sets are", Picture("stability"), note, figures)


def _jaccard_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    found = number(row["jaccard"])
    if row["low"] is not None:
        found += f" [{row['low']:.2f}, {row['high']:.2f}]"
    null = number(row["null_jaccard"])
    return row["set"], set_language_cell(row["language"]), found, null, p_value(row["p_holm"])


def overlap_tests(overlap: pl.DataFrame) -> pl.DataFrame:
    """The table of overlaps with `p_holm`: adjusted over the pairs of languages of a set."""
    parts = [
        rows.with_columns(p_holm=pl.Series(holm(rows["p_permuted"].to_list()), dtype=pl.Float64))
        for _, rows in overlap.group_by("set", maintain_order=True)
    ]
    return pl.concat(parts) if parts else overlap.with_columns(p_holm=pl.lit(None, pl.Float64))


OVERLAP_NOTE = (
    "Under exchanged labels: would as much be shared if harmful and harmless did not differ? Independent draws per "
    "layer and site know nothing of importance and understate chance up to tenfold. Holm's p adjusts over the "
    "pairs of a set."
)


def overlap_section(overlap: pl.DataFrame | None) -> Section | None:
    """What languages share, beside two expectations."""
    if overlap is None:
        return None
    head = ("set", "languages", "neurons", "shared", "Jaccard", "under exchanged labels", "Holm p", "independent draws")
    body = tuple(_overlap_row(row) for row in overlap_tests(overlap).rows(named=True))
    figures = folded_if_large("Overlap per pair of languages", Table(head, body))
    return section("Overlap of languages", Picture("overlap"), figures, OVERLAP_NOTE)


def _overlap_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["set"],
        f"{row['language_a']} – {row['language_b']}",
        f"{row['size_a']}, {row['size_b']}",
        str(row["shared"]),
        number(row["jaccard"]),
        number(row["expected_permuted"], 1),
        p_value(row["p_holm"]),
        number(row["expected"]),
    )
