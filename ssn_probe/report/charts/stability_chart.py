"""Would other prompts of the kind give the same neurons? Jaccard against the number of prompts."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from ssn_probe.report.charts.chart import Chart, chart
from ssn_probe.report.charts.marks import LITERAL, layer, measured, names, pixels
from ssn_probe.report.charts.theme import INK, MUTED, drawable, language_marks
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.recipe_sets import distinct_sets
from ssn_probe.text import counted

MOST_SETS, MOST_NAMES, WIDTH, HEIGHT, LINE = 2, 14, 210, 220, 15


def draw(run: FinishedRun) -> Chart | None:
    """None where no set was found again in halves of the prompts."""
    jaccard, curve = run.findings.robustness.jaccard, run.findings.robustness.curve
    if jaccard is None or curve is None:
        return None
    found = jaccard.drop_nulls("jaccard")
    named = [name for name in distinct_sets(run.recipe) if name in set(found["set"])]
    kept = sorted(named, key=lambda name: name != run.recipe.primary)[:MOST_SETS]
    if not kept:
        return None
    languages = sorted({*jaccard["language"]})
    panels = [_panel(name, curve.filter(set=name), found.filter(set=name), languages) for name in kept]
    said = [_in_words(name, found.filter(set=name)) for name in kept]
    pairs = found["pairs"].max()
    below = [
        f"n = {counted(int(pairs or 0), 'pair')} of halves; a line per language.",  # type: ignore[arg-type]
        "Bars: where 95 % of pairs fall. Dashed: mean under exchanged labels.",
    ]
    body = {"hconcat": panels, "spacing": 30}
    return chart("stability", said[0], f"{'. '.join(said)}. {' '.join(below)}", body, subtitle=below)


def _panel(name: str, curve: pl.DataFrame, jaccard: pl.DataFrame, languages: Sequence[str]) -> dict[str, Any]:
    marks = language_marks(languages)
    rows = [
        {"language": one, "prompts": n, "jaccard": y, "colour": marks[one][0], "dash": marks[one][1]}
        for one, n, y in curve.drop_nulls("jaccard").select("language", "prompts", "jaccard").iter_rows()
    ]
    most = max([row["prompts"] for row in rows], default=1.0)
    ends = [_end(row, most, marks) for row in jaccard.rows(named=True)]
    x = measured("prompts", "prompts in a sample", (0, most * 1.04), tickCount=4)
    y = measured("jaccard", "Jaccard overlap of two samples", (0, 1))
    detail = {"detail": {"field": "language", "type": "nominal"}}
    dash = {"strokeDash": {"field": "dash", "type": "nominal", "scale": None}}
    silent = {"strokeWidth": 1.8}
    null = jaccard["null_jaccard"].drop_nulls()
    base = [{"jaccard": null.mean(), "says": f"under exchanged labels: {null.mean():.2f}"}] if len(null) else []
    bars = [end for end in ends if end["low"] is not None]
    between = {"y": {**y, "field": "low"}, "y2": {"field": "high"}, "x": x, "color": LITERAL}
    layers = [
        layer("rule", base, look={"color": MUTED, "strokeDash": [5, 4]}, y=y),
        layer("line", rows, look=silent, x=x, y=y, color=LITERAL, **detail, **dash),
        layer("rule", bars, look={"opacity": 0.35, "strokeWidth": 2}, **between),
        layer("point", ends, look={"filled": True, "opacity": 1, "size": 40}, x=x, y=y, color=LITERAL),
        *_labels(ends),
    ]
    head = {"text": drawable(name, 30), "fontSize": 13, "offset": 8}
    return {"width": WIDTH, "height": HEIGHT, "title": head, "layer": layers}


def _end(row: dict[str, Any], most: float, marks: dict[str, Any]) -> dict[str, Any]:
    """A language's point with all the prompts of a half."""
    spread = "" if row["low"] is None else f" ({row['low']:.2f} to {row['high']:.2f})"
    null = "" if row["null_jaccard"] is None else f", {row['null_jaccard']:.2f} under exchanged labels"
    known = {"prompts": most, "jaccard": row["jaccard"], "low": row["low"], "high": row["high"]}
    says = f"{drawable(row['language'])}: {row['jaccard']:.2f}{spread}{null}"
    return known | {"language": row["language"], "colour": marks[row["language"]][0], "says": says}


def _labels(ends: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The languages beside their lines, moved apart; of very many, the highest and the lowest."""
    ordered = sorted(ends, key=lambda end: -end["jaccard"])
    if len(ordered) > MOST_NAMES:
        ordered = [ordered[0], ordered[-1]]
    wanted = [HEIGHT * (1 - end["jaccard"]) for end in ordered]
    places = apart(wanted, LINE, HEIGHT)
    rows = [
        {"y": y, "text": "every language" if end["language"] == "*" else drawable(end["language"], 16), "end": at}
        | {"colour": end["colour"]}
        for end, y, at in zip(ordered, places, wanted, strict=True)
    ]
    look = {"strokeWidth": 1, "opacity": 0.6}
    ties = layer(
        "rule", rows, look=look, x={"value": WIDTH}, x2={"value": WIDTH + 12}, y=pixels("end"), y2={"field": "y"},
        color=LITERAL,
    )  # fmt: skip
    return [ties, names(rows, at=WIDTH + 15, limit=90, color=INK)]


def apart(wanted: Sequence[float], gap: float, most: float) -> list[float]:
    """Places in order from the top, each at least `gap` below the one before, as near as can be to those wanted."""
    places: list[float] = []
    for want in wanted:
        places.append(max(want, places[-1] + gap) if places else want)
    over = places[-1] - most if places else 0.0
    for index in range(len(places) - 1, -1, -1):
        limit = most if index == len(places) - 1 else places[index + 1] - gap
        places[index] = min(places[index], limit) if over > 0 else places[index]
    return places


def _in_words(name: str, found: pl.DataFrame) -> str:
    """The range over languages, beside that under exchanged labels."""
    values, null = found["jaccard"], found["null_jaccard"].drop_nulls()
    beside = f", {null.mean():.2f} under exchanged labels" if len(null) else ", no exchanged labels beside it"
    low, high = values.min(), values.max()
    span = f"{low:.2f}" if found.height == 1 else f"{low:.2f} to {high:.2f} over {counted(found.height, 'language')}"
    return f"{drawable(name)}: two halves of the prompts share a Jaccard overlap of {span}{beside}"
