"""Do languages that share more neurons with the anchor comply less?"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ssn_probe.report.cells import share_cell
from ssn_probe.report.conditions import baseline_rows
from ssn_probe.report.document import Picture, Section, Table, section
from ssn_probe.report.recipe_sets import distinct_sets, expression_of
from ssn_probe.spec import Recipe
from ssn_probe.spec.anchors import shared_with_anchor
from ssn_probe.stats import RankCorrelation, rank_correlation
from ssn_probe.study.summary import AVERAGE
from ssn_probe.text import counted, p_equals


def counts_against_asr(sizes: Mapping[str, int], summary: pl.DataFrame, anchor: str | None) -> RankCorrelation:
    """The rank correlation of neurons per language, `sizes`, with the baseline's ASR.

    Over the languages of the average that have both figures. Six languages have almost no power: never quote ρ alone.
    """
    asr = {language: row["value"] for language, row in baseline_rows(summary).items()}
    languages = [language for language in sizes if language in asr and language not in (anchor, AVERAGE)]
    return rank_correlation([sizes[language] for language in languages], [asr[language] for language in languages])


def counts_sections(recipe: Recipe, manifest: Mapping[str, Any], summary: pl.DataFrame) -> list[Section]:
    """The number of shared neurons beside the baseline's ASR, for every set that is shared with an anchor."""
    before = baseline_rows(summary)
    parts = []
    for name in distinct_sets(recipe):
        if not shared_with_anchor(expression_of(recipe, name)):
            continue
        sizes = {language: count for language, count in manifest["sets"][name].items() if language in before}
        sizes.pop(manifest["anchor"], None)
        body = tuple((language, str(count), share_cell(before[language])) for language, count in sizes.items())
        if body:
            found = counts_against_asr(sizes, summary, manifest["anchor"])
            grid = Table(("language", "shared neurons", "baseline ASR, %"), body, correlation_sentence(found))
            pictures = [Picture("counts")] if not parts else []
            parts.append(section(f"Counts against ASR: {name}", *pictures, grid))
    return parts


def correlation_sentence(found: RankCorrelation) -> str:
    """The coefficient with all that it takes to read it, never alone."""
    languages = counted(found.n, "language")
    if found.rho is None or found.p is None:
        return f"Spearman's ρ of {languages} was not computed ({found.note})."
    interval = f"95 % interval {found.low:+.2f} to {found.high:+.2f}" if found.low is not None else str(found.note)
    needed = (
        f"no ρ of {languages} could have had p ≤ .05"
        if found.needed is None
        else f"with {languages} only |ρ| ≥ {found.needed:.3f} has p ≤ .05"
    )
    kind = "exact" if found.n <= 8 else "permutation"
    return (
        f"Spearman's ρ = {found.rho:+.2f} ({interval}; {kind} {p_equals(found.p)}; n = {languages}); {needed}. "
        "Languages are the unit of analysis and no sample of a population: read ρ as a description."
    )
