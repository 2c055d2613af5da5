"""Identification against what was planted: precision, recall and mass of every set."""

from collections.abc import Iterator

import polars as pl

from ssn_probe.report.charts.chart import Chart, chart
from ssn_probe.report.charts.row_panels import Dot, Panel, row_panels
from ssn_probe.report.charts.theme import COLOURS, TESTED_COLOUR, drawable
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.recipe_sets import distinct_sets
from ssn_probe.text import percent

SHARES = {"precision": "precision, %", "recall": "recall, %", "mass": "share of the planted value, %"}
LOOK = {"harmful": (TESTED_COLOUR, "circle"), "difference": (COLOURS[1], "square")}
MOST_SETS = 30


def draw(run: FinishedRun) -> Chart | None:
    """None where nothing was planted."""
    truth = run.findings.truth
    if truth is None or truth.is_empty():
        return None
    first = truth.with_columns(first=pl.col("ranked_by").first().over("set"))
    own = first.filter(
        pl.col("ranked_by").eq_missing(pl.col("first")), pl.col("set").is_in(list(distinct_sets(run.recipe)))
    )
    names = list(dict.fromkeys(own["set"]))[:MOST_SETS]
    if not names:
        return None
    panels = [Panel(title=title, ends=(0, 100), dots=list(_dots(own, share))) for share, title in SHARES.items()]
    languages = own["language"].n_unique()
    below = [
        f"n = {languages} languages: their mean; lines: from the lowest to the highest.",
        "Circles: neurons that support refusing what is harmful; squares: rather than what is harmless.",
    ]
    said = [line for name in names if (line := _in_words(name, own))]
    title = said[0] if said else "No set has neurons among those that were planted"
    body = row_panels(names, panels, lanes=len(LOOK))
    return chart("truth", title, f"{'. '.join(said) or title}. {' '.join(below)}", body, subtitle=below)


def _dots(own: pl.DataFrame, share: str) -> Iterator[Dot]:
    for lane, (question, (colour, shape)) in enumerate(LOOK.items()):
        rows = own.filter(question=question).drop_nulls(share)
        ends = rows.group_by("set", maintain_order=True).agg(pl.col(share).mean().alias("mean"), *_span(share))
        for name, mean, low, high in ends.iter_rows():
            says = (
                f"{drawable(name)}, {question}: {SHARES[share]} {100 * mean:.0f} ({100 * low:.0f} to {100 * high:.0f})"
            )
            known = {"value": 100 * mean, "low": 100 * low, "high": 100 * high, "lane": lane, "says": says}
            yield Dot(row=name, colour=colour, shape=shape, **known)


def _span(share: str) -> tuple[pl.Expr, pl.Expr]:
    return pl.col(share).min().alias("low"), pl.col(share).max().alias("high")


def _in_words(name: str, own: pl.DataFrame) -> str:
    rows = own.filter(set=name, question="harmful")
    found = {share: rows[share].drop_nulls().mean() for share in SHARES}
    if found["precision"] is None or found["mass"] is None:
        return ""
    mass, precision = (percent(float(found[share]), 0) for share in ("mass", "precision"))  # type: ignore[arg-type]
    return f"{drawable(name)} has {mass} of the planted value, precision {precision}"
