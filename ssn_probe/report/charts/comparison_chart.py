"""A picture of what the primary arm is compared with: the ASR of its set, and of every set beside it."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from ssn_probe.report.charts.chart import Chart
from ssn_probe.report.charts.theme import BLACK, COLOURS, CONFIG, drawable
from ssn_probe.report.conditions import comparison_row, summary_row
from ssn_probe.report.finished import FinishedRun
from ssn_probe.spec import Recipe
from ssn_probe.study.arms import WEAKENED, ArmName
from ssn_probe.study.comparisons import COMPARISONS, LABELS
from ssn_probe.study.findings import Findings
from ssn_probe.study.summary import AVERAGE, MEASURES, averaged
from ssn_probe.text import capitalised, counted, percent

COMPARISON_CHART_TITLE = "ASR under the set, and under the sets that it is compared with"
WIDTH, ROW = 460, 40
BAND, DOT = COLOURS[5], COLOURS[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """An arm with the tables of its run; `only`: the comparisons that are drawn, all where there are none."""

    arm: str
    samples: pl.DataFrame
    summary: pl.DataFrame
    comparisons: pl.DataFrame
    anchor: str | None
    only: tuple[str, ...] = ()


def compared(recipe: Recipe, findings: Findings) -> Compared | None:
    """What is drawn of a run; None without a primary arm that has sets beside it."""
    samples, summary, comparisons = findings.samples, findings.summary, findings.comparisons
    if recipe.primary is None or samples is None or summary is None or comparisons is None:
        return None
    known = comparisons.filter(arm=recipe.primary, measure="asr", language=AVERAGE)
    tables = {"samples": samples, "summary": summary, "comparisons": comparisons, "anchor": findings.anchor}
    return None if known.is_empty() else Compared(arm=recipe.primary, **tables)


def draw(run: FinishedRun) -> Chart | None:
    """The comparisons of a run's primary arm; None where it has none."""
    drawn = compared(run.recipe, run.findings)
    if drawn is None:
        return None
    title = COMPARISON_CHART_TITLE
    return Chart(title=title, description=title, specification=comparison_chart(drawn).to_dict())


def comparison_chart(drawn: Compared) -> Any:
    """A row per comparison: a dot per set, and the band in which 95 % of such sets fall. Across: ASR on the average.

    A line is the tested set, a dashed one the untouched model.
    """
    import altair as alt

    rows, marks = _rows(drawn), _marked(drawn)
    y = alt.Y("row:N", sort=None, title=None, axis=alt.Axis(labelLimit=420, ticks=False, domain=False, grid=False))
    ends = [end for row in rows for end in (row["low"], row["high"], *row["dots"]) if end is not None]
    ends += [mark["asr"] for mark in marks]
    scale = alt.Scale(domain=[max(0.0, min(ends) - 3), min(100.0, max(ends) + 3)], nice=True)
    x = alt.X("asr:Q", title="ASR, %", scale=scale, axis=alt.Axis(tickCount=8))
    dots = [{"row": row["row"], "asr": dot} for row in rows for dot in row["dots"]]
    bands = [{"row": row["row"], "asr": row["low"], "high": row["high"]} for row in rows if row["low"] is not None]
    base = alt.Chart(alt.InlineData(values=marks)).encode(x=x)
    dash = alt.StrokeDash("dash:N", scale=alt.Scale(domain=["set", "untouched"], range=[[1, 0], [5, 4]]), legend=None)
    layers = [
        alt.Chart(alt.InlineData(values=bands))
        .mark_bar(color=BAND, opacity=0.45, height=18)
        .encode(x=x, x2="high:Q", y=y),
        base.mark_rule(color=BLACK, strokeWidth=1.8).encode(strokeDash=dash),
        *(_label(mark, x, side) for mark, side in zip(marks, ("right", "left"), strict=False)),
        alt.Chart(alt.InlineData(values=dots))
        .mark_point(filled=True, color=DOT, opacity=0.7, size=40)
        .encode(x=x, y=y),
    ]
    title = alt.TitleParams(text=COMPARISON_CHART_TITLE, subtitle=_subtitle(drawn), offset=30)
    return alt.layer(*layers).properties(width=WIDTH, height=ROW * len(rows), title=title).configure(**CONFIG)


def _label(mark: dict[str, Any], x: Any, side: Any) -> Any:
    """The name of a line above it, to its left or right: two that are close stay apart."""
    import altair as alt

    text = alt.Chart(alt.InlineData(values=[mark])).mark_text(
        baseline="bottom", align=side, dx=-3 if side == "right" else 3, dy=-4, fontSize=12, color=BLACK
    )
    return text.encode(x=x, y=alt.value(0), text="label:N")


def _rows(drawn: Compared) -> list[dict[str, Any]]:
    """What is drawn of every comparison."""
    rows = []
    for name, comparison in COMPARISONS.items():
        row = comparison_row(drawn.comparisons, drawn.arm, name)
        if row is None or (drawn.only and name not in drawn.only):
            continue
        low, high = (None if row[end] is None else 100 * min(1.0, max(0.0, row[end])) for end in ("low", "high"))
        title = capitalised(comparison.counted(row["sets"]))
        rows.append({"row": title, "low": low, "high": high, "dots": _dots(drawn, name)})
    weaker = summary_row(drawn.summary, drawn.arm, "asr", role=WEAKENED)
    if weaker is not None and (not drawn.only or WEAKENED in drawn.only):
        dots = [100 * weaker["value"]]
        rows.append({"row": "The set without its top neuron", "low": None, "high": None, "dots": dots})
    return rows


def _dots(drawn: Compared, name: str) -> list[float]:
    """The ASR of every set of a comparison, on the average over languages."""
    measure, languages = MEASURES["asr"], _languages(drawn)
    counts = measure.counts & pl.col("eval_language").is_in(languages)
    own = drawn.samples.filter(counts, arm=drawn.arm, role=name)
    own = own.filter(pl.col("seed") > 0) if name == LABELS else own
    each = own.group_by("seed", "eval_language").agg(y=measure.value.mean()).group_by("seed").agg(pl.col("y").mean())
    return [100 * value for value in each.sort("seed")["y"]]


def _languages(drawn: Compared) -> frozenset[str]:
    return averaged(drawn.summary, ArmName(drawn.arm), "asr", drawn.anchor)


def _marked(drawn: Compared) -> list[dict[str, Any]]:
    """The tested set and the untouched model, in the languages of the arm's average, lower one first."""
    row = summary_row(drawn.summary, drawn.arm, "asr")
    if row is None:
        return []
    before = row["value"] - (row["delta"] or 0.0)
    found = {"set": (drawable(drawn.arm), row["value"]), "untouched": ("untouched", before)}
    marks = [
        {"asr": 100 * value, "label": f"{label} {percent(value)}", "dash": name}
        for name, (label, value) in found.items()
    ]
    return sorted(marks, key=lambda mark: mark["asr"])


def _subtitle(drawn: Compared) -> list[str]:
    row = summary_row(drawn.summary, drawn.arm, "asr")
    count = "" if row is None else f"; n = {counted(row['n'], 'response')} a set"
    return [
        f"Average over {counted(len(_languages(drawn)), 'language')}{count}.",
        "Dots: compared sets. Bands: where 95 % of such sets fall.",
    ]
