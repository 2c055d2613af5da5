"""What pairs of languages share, beside what they would share under exchanged labels."""

from collections.abc import Iterator

import polars as pl

from ssn_probe.report.charts.cell_maps import Cell, cell_map
from ssn_probe.report.charts.chart import Chart, chart
from ssn_probe.report.charts.theme import drawable
from ssn_probe.report.comparisons_in_words import ALPHA
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.recipe_sets import distinct_sets
from ssn_probe.report.sections.set_reliability import overlap_tests
from ssn_probe.text import counted, p_equals

MOST_SETS, FEW, SIDE, MOST_LANGUAGES = 2, 9, 560, 40


def draw(run: FinishedRun) -> Chart | None:
    """None where no pair of languages was compared."""
    overlap = run.findings.overlap
    named = [] if overlap is None else [name for name in distinct_sets(run.recipe) if name in set(overlap["set"])]
    if overlap is None or not named:
        return None
    tested = overlap_tests(overlap)
    languages = list(dict.fromkeys([*tested["language_a"], *tested["language_b"]]))
    shown = languages[:MOST_LANGUAGES]
    kept = named[: MOST_SETS if len(shown) <= FEW else 1]
    side = min(34.0, (SIDE if len(kept) == 1 else 230) / len(shown))
    panels = [
        cell_map(
            shown,
            shown,
            dict(_cells(tested.filter(set=name), shown)),
            title=drawable(name, 30),
            size=(side, side),
            sides="lower left: observed; upper right: expected",
        )
        for name in kept
    ]
    said = [_in_words(name, tested.filter(set=name)) for name in kept]
    below = [_subtitle(run, tested.filter(set=kept[0])), "On the diagonal: the language's own neurons."]
    if len(languages) > len(shown):
        below.append(f"{len(languages) - len(shown):,} more languages in the tables.")
    if len(named) > len(kept):
        below.append(f"{counted(len(named) - len(kept), 'more set')} in the tables.")
    body = {"hconcat": panels, "spacing": 40}
    return chart("overlap", said[0], f"{'. '.join(said)}. {' '.join(below)}", body, subtitle=below)


def _cells(rows: pl.DataFrame, languages: list[str]) -> Iterator[tuple[tuple[str, str], Cell]]:
    """Observed below the diagonal, expected above it, on one scale; sizes on the diagonal."""
    column = _expected(rows)
    most = max([1.0, *rows["shared"].cast(pl.Float64), *rows[column].drop_nulls()])
    sizes: dict[str, int] = {}
    for row in rows.rows(named=True):
        sizes |= {row["language_a"]: row["size_a"], row["language_b"]: row["size_b"]}
        if not {row["language_a"], row["language_b"]} <= set(languages):
            continue
        first, second = sorted((row["language_a"], row["language_b"]), key=languages.index)
        p = "" if row["p_holm"] is None else f", {p_equals(row['p_holm'])} after Holm"
        expected = "" if row[column] is None else f", {row[column]:.1f} expected{p}"
        says = f"{drawable(first)} and {drawable(second)}: {row['shared']} shared{expected}"
        yield (second, first), Cell(share=row["shared"] / most, text=str(row["shared"]), says=says)
        if row[column] is not None:
            yield (first, second), Cell(share=row[column] / most, text=f"{row[column]:.1f}", says=says)
    for language, size in sizes.items():
        if language in languages:
            own = f"{drawable(language)}: {size} neurons"
            yield (language, language), Cell(share=0, text=f"({size})", says=own)


def _expected(rows: pl.DataFrame) -> str:
    return "expected" if rows["expected_permuted"].null_count() == rows.height else "expected_permuted"


def _in_words(name: str, rows: pl.DataFrame) -> str:
    """How many pairs share more than under exchanged labels, and how much on average."""
    column, tests = _expected(rows), rows.drop_nulls("p_holm")
    means = f"{rows['shared'].mean():.1f} neurons on average, {rows[column].mean() or 0:.1f} expected"
    if tests.is_empty():
        return f"{drawable(name)}: two languages share {means} by independent draws; not tested"
    shown = tests.filter(pl.col("p_holm") <= ALPHA).height
    more = f"shown for {shown} of {tests.height} pairs" if shown else f"not shown for any of {tests.height} pairs"
    return f"{drawable(name)}: two languages share {means} under exchanged labels; more than expected is {more}"


def _subtitle(run: FinishedRun, rows: pl.DataFrame) -> str:
    nulls = run.findings.robustness.nulls
    if nulls is None or _expected(rows) == "expected":
        return f"n = {rows.height} pairs. Shared neurons; expected: independent draws per layer and site."
    return (
        f"n = {rows.height} pairs, {nulls['draws'].max():,} exchanges. Shared neurons; expected: mean under exchanged "
        "labels, tested after Holm over the pairs."
    )
