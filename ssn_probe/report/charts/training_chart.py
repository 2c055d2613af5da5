"""Before and after training, per language: ASR beside over-refusal and utility."""

from collections.abc import Mapping

import polars as pl

from ssn_probe.report.charts.chart import Chart, chart
from ssn_probe.report.charts.marks import share_ends
from ssn_probe.report.charts.row_panels import Dot, Panel, row_panels
from ssn_probe.report.charts.theme import INK, arm_colours, drawable
from ssn_probe.report.conditions import Condition, Row, baseline_rows, by_condition, last_steps
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.measure_tables import SHORT
from ssn_probe.spec import Trains
from ssn_probe.study.arms import TESTED
from ssn_probe.study.summary import AVERAGE, untouched
from ssn_probe.text import percent

MEASURES = {name: SHORT[name] for name in ("asr", "over_refusal", "utility")}
MOST_LANGUAGES = 40


def draw(run: FinishedRun) -> Chart | None:
    """The primary arm if it trains, else the first that does; None where none does."""
    recipe, summary = run.recipe, run.findings.summary
    trained = [name for name, node in recipe.arms.items() if isinstance(node, Trains)]
    if summary is None or not trained:
        return None
    arm = recipe.primary if recipe.primary in trained else trained[0]
    rows, before = {}, {}
    for measure in MEASURES:
        found = _last(last_steps(summary.filter(measure=measure, role=TESTED, arm=arm)))
        if found is not None:
            (condition, rows[measure]), before[measure] = found, baseline_rows(summary, measure)
    if not rows:
        return None
    languages = list(dict.fromkeys(language for own in rows.values() for language in own))
    languages = sorted(languages, key=lambda language: language != AVERAGE)[:MOST_LANGUAGES]
    colour = arm_colours(recipe)[arm]
    panels = [
        Panel(
            title=MEASURES[name],
            ends=_ends(name, rows[name], before[name]),
            dots=_dots(rows[name], before[name], colour),
        )
        for name in rows
    ]
    n = sorted({row["n"] for own in rows.values() for language, row in own.items() if language != AVERAGE})
    span = " to ".join(f"{one:,}" for one in dict.fromkeys((*n[:1], *n[-1:])))
    below = [f"Diamonds: before; circles: {drawable(condition.title, 60)}. n = {span} prompts per language.", LINES]
    average = {name: untouched(summary, condition.name, name, run.findings.anchor) for name in rows}
    title = _title(condition, rows, average)
    body = row_panels(languages, panels, lanes=2, left=110)
    return chart("training", title, f"{_in_words(rows, before)} {' '.join(below)}", body, subtitle=below)


LINES = "Lines: 95 % intervals over prompts."


def _last(rows: pl.DataFrame) -> tuple[Condition, Mapping[str, Row]] | None:
    found = list(by_condition(rows).items())
    return found[-1] if found else None


def _ends(measure: str, *sides: Mapping[str, Row]) -> tuple[float, float]:
    rows = [row for side in sides for row in side.values()]
    if measure != "utility":
        return share_ends([100 * row["high"] for row in rows])
    return min([99.0, *(100 * row["low"] for row in rows)]), 100.0


def _dots(after: Mapping[str, Row], before: Mapping[str, Row], colour: str) -> list[Dot]:
    sides = (("before", before, INK, "diamond"), ("after", after, colour, "circle"))
    return [
        Dot(
            row=language,
            value=100 * row["value"],
            low=100 * row["low"],
            high=100 * row["high"],
            colour=tint,
            shape=shape,
            lane=lane,
            says=f"{drawable(language)}, {word}: {percent(row['value'])} ({percent(row['low'])} to "
            f"{percent(row['high'])}), n = {row['n']:,}",
        )
        for lane, (word, rows, tint, shape) in enumerate(sides)
        for language, row in rows.items()
        if language in after
    ]


def _title(condition: Condition, rows: Mapping[str, Mapping[str, Row]], before: Mapping[str, float | None]) -> str:
    """`before`: the untouched model on the average over the languages of the training's."""
    parts = [
        f"{MEASURES[name].removesuffix(', %')} {percent(known)} → {percent(row['value'])}"
        for name, own in rows.items()
        if (row := own.get(AVERAGE)) is not None and (known := before[name]) is not None
    ]
    name = drawable(condition.title, 60)
    return f"{name}: {', '.join(parts)} on the average" if parts else f"Before and after {name}"


def _in_words(rows: Mapping[str, Mapping[str, Row]], before: Mapping[str, Mapping[str, Row]]) -> str:
    """The ASR of every language."""
    name = next(iter(rows))
    parts = [
        f"{drawable(language)} {percent(before[name][language]['value'])} to {percent(row['value'])}"
        for language, row in rows[name].items()
        if language in before[name]
    ]
    return f"{MEASURES[name].removesuffix(', %')} before and after: {', '.join(parts)}."
