"""A picture of what the primary arm is compared with: the ASR of its set, and of every set beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ssn_probe.report.charts.chart import Chart, chart
from ssn_probe.report.charts.marks import LITERAL, Rows, layer, measured, names, pixels
from ssn_probe.report.charts.theme import BESIDE, INK, TESTED_COLOUR, WIDTH, drawable
from ssn_probe.report.comparisons_in_words import is_shown, p_of, why_no_null
from ssn_probe.report.conditions import comparison_row, summary_row
from ssn_probe.report.finished import FinishedRun
from ssn_probe.spec import Recipe
from ssn_probe.study.arms import WEAKENED, ArmName
from ssn_probe.study.comparison_table import in_each_language
from ssn_probe.study.comparisons import COMPARISONS, LABELS
from ssn_probe.study.findings import Findings
from ssn_probe.study.summary import AVERAGE, MEASURES, averaged, untouched
from ssn_probe.text import capitalised, counted, listing, p_equals, percent

COMPARISON_CHART_TITLE = "ASR under the set, and under the sets that it is compared with"
NAMES, ROW = 336, 40


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """An arm with the tables of its run; `only`: the comparisons that are drawn, all where there are none.

    `no_null`: why sets of exchanged labels are no null, so that their rank is no test.
    """

    arm: str
    samples: pl.DataFrame
    summary: pl.DataFrame
    comparisons: pl.DataFrame
    anchor: str | None
    only: tuple[str, ...] = ()
    no_null: str | None = None


def compared(recipe: Recipe, findings: Findings) -> Compared | None:
    """What is drawn of a run; None without a primary arm that has sets beside it."""
    samples, summary, comparisons = findings.samples, findings.summary, findings.comparisons
    if recipe.primary is None or samples is None or summary is None or comparisons is None:
        return None
    known = comparisons.filter(arm=recipe.primary, measure="asr", language=AVERAGE)
    tables = {"samples": samples, "summary": summary, "comparisons": comparisons, "anchor": findings.anchor}
    no_null = why_no_null(findings.robustness, recipe.primary)
    return None if known.is_empty() else Compared(arm=recipe.primary, no_null=no_null, **tables)


def draw(run: FinishedRun) -> Chart | None:
    """The comparisons of a run's primary arm; None where it has none."""
    drawn = compared(run.recipe, run.findings)
    return None if drawn is None else comparison_chart(drawn)


def comparison_chart(drawn: Compared) -> Chart:
    """A row per comparison: a dot per set, and the band in which 95 % of such sets fall. Across: ASR on the average.

    A line is the tested set, a dashed one the untouched model.
    """
    rows, lines = _rows(drawn), _lines(drawn)
    ends = [end for row in rows for end in (row["low"], row["high"], *row["dots"]) if end is not None]
    ends += [line["asr"] for line in lines]
    x = measured("asr", "ASR, %, on the average over languages", (max(0, min(ends) - 3), min(100, max(ends) + 3)))
    for place, row in enumerate(rows):
        row["y"] = ROW * (place + 0.5)
    known = {"x": x, "y": pixels("y"), "color": LITERAL}
    dots = [
        {key: row[key] for key in ("row", "y", "colour")} | {"asr": dot, "says": f"{row['text']}: ASR {dot:.1f} %"}
        for row in rows
        for dot in row["dots"]
    ]
    bands = [{"row": row["text"], "asr": row["low"], **row} for row in rows if row["low"] is not None]
    layers = [
        layer("rule", bands, look={"opacity": 0.35, "strokeWidth": 16}, **known, x2={"field": "high"}),
        *(_line(line, x, side) for line, side in zip(lines, ("right", "left"), strict=False)),
        layer("point", dots, look={"filled": True, "opacity": 0.75, "size": 36}, **known),
        names(rows, at=-10, limit=NAMES - 12),
    ]
    body = {"width": WIDTH - NAMES - 30, "height": ROW * len(rows), "layer": layers}
    subtitle, described = _subtitle(drawn), _in_words(rows, lines)
    return chart("comparisons", _title(drawn), f"{described} {' '.join(subtitle)}", body, subtitle=[*subtitle, " "])


def _line(line: Mapping[str, Any], x: Mapping[str, Any], side: str) -> dict[str, Any]:
    """A line with its name above, to its left or right: two that are close stay apart."""
    look = {"color": line["colour"], "strokeWidth": 1.8, "strokeDash": line["dash"]}
    beside = {"align": side, "dx": -3 if side == "right" else 3, "baseline": "bottom", "dy": -4}
    text = layer("text", [line], look=beside, x=dict(x), y={"value": 0}, text={"field": "label"})
    return {"layer": [layer("rule", [line], look=look, x=dict(x)), text]}


def _rows(drawn: Compared) -> list[dict[str, Any]]:
    """What is drawn of every comparison."""
    rows = []
    for name, comparison in COMPARISONS.items():
        row = comparison_row(drawn.comparisons, drawn.arm, name)
        if row is None or (drawn.only and name not in drawn.only):
            continue
        low, high = (None if row[end] is None else 100 * min(1.0, max(0.0, row[end])) for end in ("low", "high"))
        rows.append(_as_row(capitalised(comparison.counted(row["sets"])), name, low, high, _dots(drawn, name)))
    weaker = summary_row(drawn.summary, drawn.arm, "asr", role=WEAKENED)
    if weaker is not None and (not drawn.only or WEAKENED in drawn.only):
        rows.append(_as_row("The set without its top neuron", WEAKENED, None, None, [100 * weaker["value"]]))
    return rows


def _as_row(text: str, name: str, low: float | None, high: float | None, dots: list[float]) -> dict[str, Any]:
    between = "" if low is None or high is None else f": 95 % of such sets {low:.1f} to {high:.1f} %"
    known = {"text": text, "row": text, "low": low, "high": high, "dots": dots, "says": f"{text}{between}"}
    return known | {"colour": BESIDE[name]}


def _dots(drawn: Compared, name: str) -> list[float]:
    """The ASR of every set of a comparison that has one in every language, on the average over languages."""
    measure, languages = MEASURES["asr"], _languages(drawn)
    counts = measure.counts & pl.col("eval_language").is_in(languages)
    own = drawn.samples.filter(counts, arm=drawn.arm, role=name)
    own = own.filter(pl.col("seed") > 0) if name == LABELS else own
    own = in_each_language(own, pl.Series(sorted(languages), dtype=pl.String))
    each = own.group_by("seed", "eval_language").agg(y=measure.value.mean()).group_by("seed").agg(pl.col("y").mean())
    return [100 * value for value in each.sort("seed")["y"]]


def _languages(drawn: Compared) -> frozenset[str]:
    return averaged(drawn.summary, ArmName(drawn.arm), "asr", drawn.anchor)


def _lines(drawn: Compared) -> list[dict[str, Any]]:
    """The tested set and the untouched model, in the languages of the arm's average, lower one first."""
    row = summary_row(drawn.summary, drawn.arm, "asr")
    if row is None:
        return []
    before = untouched(drawn.summary, ArmName(drawn.arm), "asr", drawn.anchor)
    found = [(drawable(drawn.arm), row["value"], TESTED_COLOUR, [1, 0])]
    found += [] if before is None else [("untouched", before, INK, [5, 4])]
    lines = [
        {"asr": 100 * value, "label": f"{label} {percent(value)}", "colour": colour, "dash": dash}
        for label, value, colour, dash in found
    ]
    return sorted(lines, key=lambda line: line["asr"])


def _title(drawn: Compared) -> str:
    """Which of the tests among compared sets reject."""
    names = [name for name in COMPARISONS if not drawn.only or name in drawn.only]
    names = [name for name in names if name != LABELS or drawn.no_null is None]
    rows = [(name, comparison_row(drawn.comparisons, drawn.arm, name)) for name in names]
    tested = [(name, row) for name, row in rows if row is not None and p_of(row) is not None]
    if not tested:
        return f"{COMPARISON_CHART_TITLE}: no test"
    shown, missed = (
        [f"{COMPARISONS[name].short} ({p_equals(p_of(row) or 0.0)})" for name, row in tested if is_shown(row) == side]
        for side in (True, False)
    )
    parts = [f"{word} beyond {listing(some)}" for word, some in (("shown", shown), ("not shown", missed)) if some]
    return f"The effect of {drawable(drawn.arm)} on ASR: {', '.join(parts)}"


def _subtitle(drawn: Compared) -> list[str]:
    row = summary_row(drawn.summary, drawn.arm, "asr")
    count = "" if row is None else f"; n = {counted(row['n'], 'response')} a set"
    return [
        f"Average over {counted(len(_languages(drawn)), 'language')}{count}.",
        "Dots: compared sets. Bands: where 95 % of such sets fall.",
    ]


def _in_words(rows: Rows, lines: Rows) -> str:
    """The lines, and every band."""
    parts = [line["label"] for line in reversed(lines)] + [row["says"] for row in rows if row["low"] is not None]
    return f"ASR: {'; '.join(parts)}."
