"""Dose by dose: ASR, and what it costs."""

from collections.abc import Sequence

import polars as pl

from ssn_probe.report.charts.chart import Chart, chart
from ssn_probe.report.charts.marks import share_ends
from ssn_probe.report.charts.row_panels import Dot, Panel, row_panels
from ssn_probe.report.charts.theme import INK, TESTED_COLOUR, drawable
from ssn_probe.report.conditions import Row, summary_row
from ssn_probe.report.doses import dose_groups, dose_label, dose_of, untouched_row
from ssn_probe.report.finished import FinishedRun
from ssn_probe.spec import Recipe, Trains
from ssn_probe.study.arms import BASELINE
from ssn_probe.study.summary import KL
from ssn_probe.text import percent

MEASURES = {"asr": "ASR, %", "utility": "utility, %", "over_refusal": "over-refusal, %", KL: "KL, nats"}
UNTOUCHED = "×1, untouched"


def draw(run: FinishedRun) -> Chart | None:
    """The doses of the primary arm's set, else of the first that has several; None where none has."""
    recipe, summary = run.recipe, run.findings.summary
    groups = [arms for arms in dose_groups(recipe) if not isinstance(recipe.arms[arms[0]], Trains)]
    arms = next((group for group in groups if recipe.primary in group), groups[0] if groups else None)
    if arms is None or summary is None:
        return None
    points = sorted([*((dose_of(recipe.arms[arm]), arm) for arm in arms), (1.0, BASELINE)])
    rows = {name: _label(recipe, name) for _, name in points}
    measures = [name for name in MEASURES if not summary.filter(pl.col("arm").is_in(arms), measure=name).is_empty()]
    known = {name: _rows(summary, list(rows), name, run.findings.anchor) for name in measures}
    panels = [_panel(name, known[name], rows, recipe.primary) for name in measures]
    if not panels:
        return None
    n = max((row["n"] for rows_of in known.values() for row in rows_of.values()), default=0)
    below = [
        f"Averages over languages, n up to {n:,} prompts a point. Lines: 95 % intervals over prompts. KL: harmless."
    ]
    title, figures = _title(known, rows, arms, recipe.primary), _in_words(known, rows)
    return chart(
        "doses", title, f"{figures} {below[0]}", row_panels(list(rows.values()), panels, left=180), subtitle=below
    )


def _label(recipe: Recipe, name: str) -> str:
    return UNTOUCHED if name == BASELINE else f"{dose_label(recipe.arms[name])} ({drawable(name, 18)})"


def _rows(summary: pl.DataFrame, names: Sequence[str], measure: str, anchor: str | None) -> dict[str, Row]:
    """The rows of the doses and of none, in the order of `names`, in which they are joined by a line."""
    before = untouched_row(summary, [name for name in names if name != BASELINE], measure, anchor)
    found = {name: before if name == BASELINE else summary_row(summary, name, measure) for name in names}
    return {name: row for name, row in found.items() if row is not None}


def _panel(measure: str, known: dict[str, Row], rows: dict[str, str], primary: str | None) -> Panel:
    scale = 1 if measure == KL else 100
    dots = [
        Dot(
            row=rows[name],
            value=scale * row["value"],
            low=None if row["low"] is None else scale * row["low"],
            high=None if row["high"] is None else scale * row["high"],
            colour=INK if name == BASELINE else TESTED_COLOUR,
            shape="diamond" if name == BASELINE else "square" if name == primary else "circle",
            says=f"{rows[name]}: {MEASURES[measure]} {scale * row['value']:.4g}{_ends(row, scale)}, n = {row['n']:,}",
        )
        for name, row in known.items()
    ]
    highs = [dot.value if dot.high is None else dot.high for dot in dots]
    lows = [dot.low for dot in dots if dot.low is not None]
    ends = (min([0.0, *lows]), 1.05 * max(highs, default=1.0) or 1.0)
    return Panel(title=MEASURES[measure], ends=ends if measure == KL else share_ends(highs), dots=dots, lined=True)


def _ends(row: Row, scale: int) -> str:
    known = row["low"] is not None
    return f" ({scale * row['low']:.4g} to {scale * row['high']:.4g})" if known else ""


def _title(known: dict[str, dict[str, Row]], rows: dict[str, str], arms: Sequence[str], primary: str | None) -> str:
    """From the untouched model to the primary arm, else to the arm whose ASR is farthest from it."""
    asr = known.get("asr", {})
    before = asr.get(BASELINE)
    own = [arm for arm in arms if arm in asr]
    if before is None or not own:
        return "Dose by dose: what is left of refusal, and what it costs"
    to = primary if primary in own else max(own, key=lambda arm: abs(asr[arm]["value"] - before["value"]))
    parts = [
        f"{MEASURES[name].removesuffix(', %')} {percent(found[BASELINE]['value'])} → {percent(found[to]['value'])}"
        for name, found in known.items()
        if name != KL and BASELINE in found and to in found
    ]
    kl = known.get(KL, {}).get(to)
    return f"From ×1 to {rows[to]}: {', '.join(parts)}" + ("" if kl is None else f", KL {kl['value']:.3f}")


def _in_words(known: dict[str, dict[str, Row]], rows: dict[str, str]) -> str:
    """The ASR of every dose."""
    parts = [f"{rows[name]} {percent(row['value'])}" for name, row in known.get("asr", {}).items()]
    return f"ASR by dose: {', '.join(parts)}." if parts else "By dose."
