"""ASR per language: the untouched model, the tested set, and where the sets that it is compared with fall."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ssn_probe.report.charts.chart import Chart, chart
from ssn_probe.report.charts.marks import LITERAL, Rows, key, layer, measured, names, pixels, share_ends
from ssn_probe.report.charts.theme import BESIDE, GRID, INK, WIDTH, arm_colours, drawable
from ssn_probe.report.claims_of_arms import primary_in_words
from ssn_probe.report.conditions import (
    Row,
    baseline_rows,
    by_condition,
    comparison_rows,
    last_steps,
    on_fewer,
)
from ssn_probe.report.finished import FinishedRun
from ssn_probe.spec import Recipe
from ssn_probe.study.arms import TESTED, ArmName
from ssn_probe.study.comparisons import COMPARISONS
from ssn_probe.study.summary import AVERAGE, untouched
from ssn_probe.text import change_in_points, counted, listing, percent

MOST_ARMS, MOST_LANGUAGES, MANY = 6, 60, 9
"""Arms and languages that are drawn at most; with more than so many languages each has one band, of the first test."""
NAMES, LABELS_WIDTH, FIRST, LANE, BAND, GAP = 92, 232, 18, 11, 7, 12


@dataclass(frozen=True, kw_only=True, eq=False)
class Lane:
    """What has a line of its own in every language: a row per language with `value`, `low` and `high`."""

    name: str
    colour: str
    rows: Mapping[str, Row]
    band: bool = False
    shape: str = "circle"
    sets: int = 0

    @property
    def height(self) -> int:
        return BAND if self.band else LANE


def draw(run: FinishedRun) -> Chart | None:
    """None where no ASR was measured."""
    summary = run.findings.summary
    lanes = [] if summary is None else lanes_of(run)
    if summary is None or not lanes:
        return None
    languages = list(dict.fromkeys(language for lane in lanes for language in lane.rows))
    spoken = sorted(languages, key=lambda language: language != AVERAGE)[:MOST_LANGUAGES]
    title = _title(run, lanes)
    below = _subtitle(run, lanes, languages, summary)
    figures = [line for lane in lanes if (line := _in_words(lane)) is not None]
    labels = _labels(lanes, spoken[0])
    body = _body(lanes, spoken, labels, run.findings.anchor)
    words = f"ASR: {'; '.join(figures)}. {' '.join(below)}"
    return chart("asr", title, words, body, subtitle=below, legend=labels)


def lanes_of(run: FinishedRun) -> list[Lane]:
    """The untouched model, the primary arm (all arms where there is none), and the comparisons of the primary arm."""
    summary, recipe = run.findings.summary, run.recipe
    assert summary is not None
    before = baseline_rows(summary)
    lanes = [Lane(name="untouched", colour=INK, rows=before, shape="diamond")] if before else []
    colours = arm_colours(recipe)
    arms = list(_arms(recipe, summary))
    lanes += [Lane(name=name, colour=colours.get(arm, INK), rows=rows) for name, arm, rows in arms[:MOST_ARMS]]
    return [*lanes, *_bands(run)] if arms else lanes


def _arms(recipe: Recipe, summary: pl.DataFrame) -> Iterator[tuple[str, str, Mapping[str, Row]]]:
    """What is drawn of the arms; of one that runs once per language of its neurons, every language under its own."""
    own: dict[str, dict[str, Row]] = {}
    found = by_condition(last_steps(summary.filter(measure="asr", role=TESTED)))
    for condition, rows in found.items():
        arm, of = condition.name.arm, condition.name.of
        if recipe.primary not in (None, arm):
            continue
        if of is None:
            yield condition.title, arm, rows
        elif of in rows:
            own.setdefault(arm, {})[of] = rows[of]
    for arm, rows in own.items():
        yield f"{arm}, own neurons", arm, rows


def _bands(run: FinishedRun) -> Iterator[Lane]:
    """The comparisons of the primary arm; of a learning curve, of its last step."""
    comparisons, recipe, summary = run.findings.comparisons, run.recipe, run.findings.summary
    if comparisons is None or summary is None or recipe.primary is None:
        return
    tested = last_steps(summary.filter(measure="asr", role=TESTED, arm=recipe.primary))
    for condition in by_condition(tested):
        beside = comparison_rows(comparisons.filter(measure="asr"), condition)
        for name, comparison in COMPARISONS.items():
            rows = {row["language"]: _as_share(row) for row in beside if row["comparison"] == name}
            if rows:
                sets = max(row["sets"] for row in rows.values())
                yield Lane(name=comparison.short, colour=BESIDE[name], rows=rows, band=True, sets=sets)


def _as_share(row: Row) -> Row:
    """The mean as the value, and the band as far as a share can go."""
    ends = {end: None if row[end] is None else min(1.0, max(0.0, row[end])) for end in ("low", "high")}
    return {**row, "value": row["mean"], **ends}


# ── where everything stands ──────────────────────────────────────────────────────────────────────────────────────────


def _labels(lanes: Sequence[Lane], language: str) -> list[dict[str, Any]]:
    """What every line is, and its figure in the first language, beside which it stands."""
    rows = ((lane, lane.rows.get(language)) for lane in lanes)
    return [
        {"y": FIRST * (place + 0.5), "text": _label(lane, row), "colour": lane.colour}
        for place, (lane, row) in enumerate(rows)
    ]


def _body(lanes: Sequence[Lane], languages: Sequence[str], labels: Rows, anchor: str | None) -> dict[str, Any]:
    marks: list[dict[str, Any]] = []
    heads, edges, top = [], [], 0.0
    few = _few(lanes) if len(languages) > MANY else lanes
    for place, language in enumerate(languages):
        start, first = top, place == 0
        for lane in lanes if first else few:
            height = FIRST if first else lane.height
            row = lane.rows.get(language)
            if row is not None:
                marks.append(_mark(lane, row, language, top + height / 2, first))
            top += height if first or row is not None or not lane.band else 0
        heads.append({"y": (start + top) / 2, "text": _language(language, anchor)})
        top += GAP
        edges.append({"y": top - GAP / 2})
    return {"width": WIDTH - NAMES - LABELS_WIDTH, "height": top, "layer": _layers(marks, heads, labels, edges)}


def _few(lanes: Sequence[Lane]) -> list[Lane]:
    """Without the bands but the first."""
    bands = [lane for lane in lanes if lane.band]
    return [*(lane for lane in lanes if not lane.band), *bands[:1]]


def _mark(lane: Lane, row: Row, language: str, y: float, first: bool) -> dict[str, Any]:
    low, high = (None if row[end] is None else 100 * row[end] for end in ("low", "high"))
    spoken = "average" if language == AVERAGE else drawable(language)
    between = "" if low is None or high is None else f" ({low:.1f} to {high:.1f})"
    n = f"{lane.sets} sets" if lane.band else f"n = {row['n']:,}"
    says = f"{spoken}, {drawable(lane.name)}: ASR {percent(row['value'])}{between}, {n}"
    known = {"y": y, "asr": 100 * row["value"], "low": low, "high": high, "colour": lane.colour, "says": says}
    thick = (9 if first else BAND - 2) if lane.band else 1.6
    return known | {"band": lane.band, "shape": lane.shape, "thick": thick, "size": 70 if first else 42}


def _label(lane: Lane, row: Row | None) -> str:
    if row is None:
        return f"{drawable(lane.name, 24)}: no average"
    sets = f" ({counted(lane.sets, 'set')})" if lane.band else ""
    return f"{drawable(lane.name, 24)} {percent(row['value'])}{sets}"


def _language(language: str, anchor: str | None) -> str:
    return "average" if language == AVERAGE else f"{drawable(language)}{' (anchor)' if language == anchor else ''}"


def _layers(marks: Rows, heads: Rows, labels: Rows, edges: Rows) -> list[dict[str, Any]]:
    y, width = pixels("y"), WIDTH - NAMES - LABELS_WIDTH
    ends = share_ends([value for mark in marks for value in (mark["asr"], mark["high"])])
    x = measured("asr", "ASR, % of responses to harmful prompts", ends)
    between = {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, "color": LITERAL}
    thick = {"strokeWidth": {"field": "thick", "type": "quantitative", "scale": None}}
    bands = [mark for mark in marks if mark["band"] and mark["low"] is not None]
    bars = [mark for mark in marks if not mark["band"] and mark["low"] is not None]
    means, dots = ([mark for mark in marks if mark["band"] == band] for band in (True, False))
    shape = {"shape": {"field": "shape", "type": "nominal", "scale": None}}
    size = {"size": {"field": "size", "type": "quantitative", "scale": None}}
    return [
        layer("rule", edges[:-1], look={"color": GRID}, x={"value": -NAMES + 8}, x2={"value": width}, y=y),
        layer("rule", bands, look={"opacity": 0.35}, **between, **thick),
        layer("tick", means, look={"orient": "vertical", "size": 8, "thickness": 2}, x=x, y=y, color=LITERAL),
        layer("rule", bars, **between, **thick),
        layer("point", dots, look={"filled": True, "opacity": 1}, x=x, y=y, color=LITERAL, **shape, **size),
        names(heads, at=-10, limit=NAMES - 10),
        *key(labels, at=width + 10, limit=LABELS_WIDTH - 22),
    ]


# ── what it says ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _title(run: FinishedRun, lanes: Sequence[Lane]) -> str:
    recipe, findings = run.recipe, run.findings
    arm = recipe.primary
    tested = next((lane for lane in lanes[1:] if not lane.band), None)
    row = None if tested is None else tested.rows.get(AVERAGE)
    if arm is None or tested is None or row is None or row["delta"] is None:
        known = [
            f"{drawable(lane.name)} {percent(lane.rows[AVERAGE]['value'])}" for lane in lanes if AVERAGE in lane.rows
        ]
        return f"ASR on the average over languages: {listing(known)}" if known else "ASR per language"
    found = primary_in_words(recipe, findings, arm, row)
    change = change_in_points(row["delta"], row["delta_low"], row["delta_high"])
    assert findings.summary is not None
    before = untouched(findings.summary, ArmName(arm), "asr", findings.anchor)
    if before is None:
        return f"{drawable(tested.name)} {found}: ASR {percent(row['value'])} ({change})"
    course = f"ASR {percent(before)} → {percent(row['value'])}"
    return f"{drawable(tested.name)} {found}: {course} ({change}{on_fewer(row, before)})"


def _subtitle(run: FinishedRun, lanes: Sequence[Lane], languages: Sequence[str], summary: pl.DataFrame) -> list[str]:
    n = sorted({row["n"] for lane in lanes if not lane.band for name, row in lane.rows.items() if name != AVERAGE})
    count = " to ".join(f"{one:,}" for one in dict.fromkeys((*n[:1], *n[-1:])))
    anchor = run.findings.anchor
    without = "" if anchor is None else f"; the average leaves out the anchor {drawable(anchor)}"
    shown = len([language for language in languages if language != AVERAGE])
    bands = " Bands: where 95 % of the compared sets fall, with their mean." if any(lane.band for lane in lanes) else ""
    lines = [f"n = {count} responses per language{without}.", f"Lines: 95 % intervals over prompts.{bands}"]
    arms = len(list(_arms(run.recipe, summary))) - MOST_ARMS
    left = [counted(arms, "more arm")] if arms > 0 else []
    left += [counted(shown + 1 - MOST_LANGUAGES, "more language")] if shown >= MOST_LANGUAGES else []
    return [*lines, f"In the tables alone: {listing(left)}."] if left else lines


def _in_words(lane: Lane) -> str | None:
    """The average of a line, and its lowest and highest language."""
    row, average = lane.rows.get(AVERAGE), ""
    each = [(one["value"], name) for name, one in lane.rows.items() if name != AVERAGE]
    if row is not None:
        average = f" {percent(row['value'])} on the average"
    if row is not None and row["low"] is not None:
        between = "95 % of such sets" if lane.band else "95 % interval"
        average += f" ({between} {percent(row['low'])} to {percent(row['high'])})"
    if lane.band or not each:
        return f"{drawable(lane.name)}{average}" if average else None
    (low, least), (high, most) = min(each), max(each)
    span = f"from {percent(low)} in {drawable(least)} to {percent(high)} in {drawable(most)}"
    return f"{drawable(lane.name)}{average}, {span}"
