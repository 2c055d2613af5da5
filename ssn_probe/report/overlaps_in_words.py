"""How much the sets of two languages have in common, in words: the overlaps beside what chance gives."""

import polars as pl

from ssn_probe.report.sections.set_reliability import overlap_tests
from ssn_probe.spec import Recipe
from ssn_probe.study.findings import Findings
from ssn_probe.text import counted, plain

ALPHA = 0.05


def overlap_lines(recipe: Recipe, findings: Findings) -> list[str]:
    """A line per set whose languages choose on their own; none beside arms, which ask another question."""
    if recipe.arms or findings.overlap is None:
        return []
    return [_line(str(name), rows) for (name,), rows in findings.overlap.group_by("set", maintain_order=True)]


def only_overlaps(recipe: Recipe, findings: Findings) -> bool:
    """Is the overlap of languages all that a recipe asks for?"""
    return bool(overlap_lines(recipe, findings)) and set(findings.sets) == set(findings.overlap["set"])  # type: ignore[index]


def _line(name: str, rows: pl.DataFrame) -> str:
    shared, pairs = rows["shared"].to_list(), counted(rows.height, "pair")
    average = "" if rows.height == 1 else f", {sum(shared) / len(shared):.1f} on average over {pairs}"
    common = f"{plain(name)}: two languages share {_range(shared, ',d')} {'neuron' if shared == [1] else 'neurons'}"
    return "; ".join([f"{common}{average}{_jaccard(rows)}", *beside_chance(rows)]) + "."


def _jaccard(rows: pl.DataFrame) -> str:
    values = rows["jaccard"].drop_nulls().to_list()
    return f" ({'mean ' if len(values) > 1 else ''}Jaccard {sum(values) / len(values):.2f})" if values else ""


def beside_chance(rows: pl.DataFrame) -> list[str]:
    """What exchanged labels give, and how many pairs have more; none where that is not known."""
    known, more = tested_pairs(rows)
    if known.is_empty():
        return []
    expected = f"{known['expected_permuted'].mean():.1f} would be shared with harmful and harmless exchanged"
    return [f"{expected}, which {more:,} of {counted(known.height, 'pair')} exceed (p ≤ .05 after Holm)"]


def tested_pairs(rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The pairs that have a null, and how many of them share more."""
    known = overlap_tests(rows).drop_nulls(["expected_permuted", "p_holm"])
    return known, known.filter(pl.col("p_holm") <= ALPHA).height


def _range(values: list, form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"
