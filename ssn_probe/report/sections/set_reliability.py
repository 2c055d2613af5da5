"""Sections of the report on the sets themselves: what chance gives, how stable they are, where their neurons are."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ssn_probe.neurons import EVERY
from ssn_probe.report.markdown_tables import ABSENT, table
from ssn_probe.study.robustness import Robustness
from ssn_probe.text import markdown, percent, probability


def null_section(robustness: Robustness) -> str:
    """Sizes of sets beside what exchanged labels give; sets of a fixed size are named, since theirs says nothing."""
    if robustness.nulls is None:
        return ""
    sizes = robustness.nulls.filter(pl.col("statistic") == "size")
    fixed = sizes.group_by("set", maintain_order=True).agg(
        ((pl.col("null_low") == pl.col("null_high")) & (pl.col("observed") == pl.col("null_mean"))).all().alias("fixed")
    )
    told = [name for name, is_fixed in fixed.iter_rows() if not is_fixed]
    body = [_size_row(row) for row in sizes.filter(pl.col("set").is_in(told)).rows(named=True)]
    parts = [f"## What chance gives: sizes under exchanged labels\n\n{_what_the_null_is(int(sizes['draws'][0]))}"]
    if body:
        parts.append(table(["set", "language", "neurons", "under exchanged labels (95 %)", "p"], body))
    rest = [markdown(name) for name, is_fixed in fixed.iter_rows() if is_fixed]
    if rest:
        parts.append(f"Of a fixed size, which is no evidence whatever it is: {', '.join(rest)}. See their stability.\n")
    return "\n".join(parts)


def _what_the_null_is(draws: int) -> str:
    return (
        f"The labels harmful and harmless were exchanged {draws:,} times (within minimal pairs, else within topic and "
        "length; the same draw in every language) and every set was found anew. A small p says that harmful prompts "
        "*differ* from harmless ones in the number of neurons found or shared, not that the difference is safety. "
        "p is not adjusted.\n"
    )


def _size_row(row: Mapping[str, Any]) -> list[str]:
    whole = f"{row['observed']:g}" if row["language_a"] != "average" else f"{row['observed']:.1f}"
    if row["observed"] != row["observed_all"]:
        whole += f" ({row['observed_all']:.3g} on all prompts)"
    null = f"{row['null_mean']:.1f} [{row['null_low']:.3g}, {row['null_high']:.3g}]"
    return [markdown(row["set"]), _language(row["language_a"]), whole, null, probability(row["p"])]


def _language(language: str) -> str:
    return "every language" if language == EVERY else markdown(language)


def stability_section(robustness: Robustness) -> str:
    """Split-half Jaccard beside its null, and its curve over the number of prompts."""
    if robustness.jaccard is None or robustness.curve is None:
        return ""
    curve, sizes = robustness.curve, sorted(robustness.curve["prompts"].unique())
    smaller = [size for size in sizes if size < max(sizes)]
    body = []
    for row in robustness.jaccard.rows(named=True):
        mine = curve.filter((pl.col("set") == row["set"]) & (pl.col("language") == row["language"]))
        found = dict(mine.select("prompts", "jaccard").iter_rows())
        body.append([*_jaccard_cells(row), *(_share(found.get(size)) for size in smaller)])
    header = ["set", "language", "split-half Jaccard", "under exchanged labels", "p"]
    header += [f"with {size:.0f} prompts" for size in smaller]
    pairs = robustness.jaccard["pairs"][0]
    note = (
        f"The prompts were halved {pairs} times (clusters and pairs whole, translations together) and the set was "
        "found in each half: the Jaccard overlap of the two, with the spread of 95 % of the pairs of halves in "
        f"brackets. On the right, two samples of fewer prompts each, of the {max(sizes):.0f} in a half. 1 means that "
        "other prompts of the kind give the same neurons.\n"
    )
    return f"## How stable the sets are\n\n{note}\n{table(header, body)}"


def _jaccard_cells(row: Mapping[str, Any]) -> list[str]:
    found = _share(row["jaccard"])
    if row["low"] is not None:
        found += f" [{row['low']:.2f}, {row['high']:.2f}]"
    p = ABSENT if row["p"] is None else probability(row["p"])
    return [markdown(row["set"]), _language(row["language"]), found, _share(row["null_jaccard"]), p]


def _share(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2f}"


def mix_section(neurons: pl.DataFrame, manifest: Mapping[str, Any]) -> str:
    """Where a set's neurons are, by site, beside where all of the model's are."""
    widths: Mapping[str, int] = manifest["neurons"]["per_layer"]
    total = sum(widths.values())
    body = [["all neurons", *(percent(width / total, 0) for width in widths.values())]]
    for name in neurons["set"].unique(maintain_order=True):
        rows = neurons.filter(pl.col("set") == name)
        counts = dict(rows.group_by("site").len().iter_rows())
        body.append([markdown(name), *(percent(counts.get(site, 0) / rows.height, 0) for site in widths)])
    note = "A rule that takes the same share of every site cannot show where refusal is: its mix is that of the pool.\n"
    return f"## Module mix\n\n{table(['set', *widths], body)}\n{note}"


def overlap_section(overlap: pl.DataFrame | None) -> str:
    """What languages share, beside three expectations."""
    if overlap is None:
        return ""
    header = ["set", "languages", "neurons", "shared", "Jaccard"]
    header += ["under exchanged labels", "p", "by common importance", "p", "independent draws"]
    body = [_overlap_row(row) for row in overlap.rows(named=True)]
    return f"## Overlap\n\n{table(header, body)}\n{_OVERLAP}"


_OVERLAP = (
    "Two questions. *Under exchanged labels*: would as much be shared if harmful and harmless did not differ? *By "
    "common importance*: is more shared than the importance of neurons in all contexts explains, given each language's "
    "own set (strata of about 64 neurons; exact p)? A topic that the harmless prompts lack raises the second, too: "
    "read it with the placebo. *Independent draws* per layer and site know nothing of importance and understate chance "
    "up to tenfold. No p is adjusted.\n"
)


def _overlap_row(row: Mapping[str, Any]) -> list[str]:
    return [
        markdown(row["set"]),
        f"{markdown(row['language_a'])} – {markdown(row['language_b'])}",
        f"{row['size_a']}, {row['size_b']}",
        str(row["shared"]),
        _share(row["jaccard"]),
        *_expected(row, "permuted", 1),
        *_expected(row, "by_importance", 2),
        f"{row['expected']:.2f}",
    ]


def _expected(row: Mapping[str, Any], kind: str, digits: int) -> list[str]:
    if row[f"expected_{kind}"] is None:
        return [ABSENT, ABSENT]
    return [f"{row[f'expected_{kind}']:.{digits}f}", probability(row[f"p_{kind}"])]
