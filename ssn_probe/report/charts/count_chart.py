"""Do languages that share more neurons with the anchor comply less? The number of shared neurons against ASR."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssn_probe.report.charts.chart import Chart, chart
from ssn_probe.report.charts.marks import LITERAL, layer, measured, share_ends
from ssn_probe.report.charts.theme import drawable, language_marks
from ssn_probe.report.conditions import Row, baseline_rows
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.recipe_sets import distinct_sets, expression_of
from ssn_probe.report.sections.counts_and_asr import counts_against_asr
from ssn_probe.spec.anchors import shared_with_anchor
from ssn_probe.stats import RankCorrelation
from ssn_probe.text import counted, p_equals

WIDTH, HEIGHT, MOST_NAMES = 520, 260, 25


def draw(run: FinishedRun) -> Chart | None:
    """None without a set that is shared with an anchor, or without ASR."""
    summary, anchor = run.findings.summary, run.findings.anchor
    if summary is None:
        return None
    before = baseline_rows(summary)
    for name in distinct_sets(run.recipe):
        if not shared_with_anchor(expression_of(run.recipe, name)):
            continue
        sizes = {one: n for one, n in run.findings.sets.get(name, {}).items() if one in before and one != anchor}
        if sizes:
            return _chart(name, sizes, before, counts_against_asr(sizes, summary, anchor))
    return None


def _chart(name: str, sizes: Mapping[str, int], before: Mapping[str, Row], found: RankCorrelation) -> Chart:
    colours = language_marks(before)
    points = [
        {
            "count": size,
            **{end: 100 * before[language][end] for end in ("value", "low", "high")},
            "text": drawable(language, 16),
            "colour": colours[language][0],
            "says": f"{drawable(language)}: {counted(size, 'neuron')}, ASR {100 * before[language]['value']:.1f} % "
            f"({100 * before[language]['low']:.1f} to {100 * before[language]['high']:.1f})",
        }
        for language, size in sizes.items()
    ]
    n = sorted({before[language]["n"] for language in sizes})
    span = " to ".join(f"{one:,}" for one in dict.fromkeys((n[0], n[-1])))
    below = [f"A point per language, n = {span} prompts each. Lines: 95 % intervals of the untouched model's ASR."]
    body = {"width": WIDTH, "height": HEIGHT, "layer": _layers(name, points)}
    described = f"{'; '.join(point['says'] for point in points)}. {below[0]}"
    return chart("counts", f"{drawable(name)}: {_finding(found)}", described, body, subtitle=below)


def _layers(name: str, points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    most = max(point["count"] for point in points)
    whole = {"tickMinStep": 1, "format": "d"}
    x = measured(
        "count", f"neurons of {drawable(name, 30)} in the language", (-0.5, most + max(1, most * 0.12)), **whole
    )
    y = measured("value", "ASR of the untouched model, %", share_ends([point["high"] for point in points]))
    between = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
    layers = [
        layer("rule", points, look={"opacity": 0.5}, x=x, **between, color=LITERAL),
        layer("point", points, look={"filled": True, "opacity": 1, "size": 60}, x=x, y=y, color=LITERAL),
    ]
    silent = [{key: point[key] for key in ("count", "value", "text")} for point in points]
    if len(points) <= MOST_NAMES:
        look = {"dx": 8, "align": "left", "baseline": "middle"}
        layers.append(layer("text", _free(silent, most), look=look, x=x, y=y, text={"field": "text"}))
    return layers


def _free(points: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The names that stand free; of two that would cover each other, one."""
    kept: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda point: point["value"]):
        across = [abs(point["count"] - other["count"]) * WIDTH / (most + 2) for other in kept]
        down = [abs(point["value"] - other["value"]) * HEIGHT / 100 for other in kept]
        if all(wide > 9 * max(4, len(point["text"])) or high > 9 for wide, high in zip(across, down, strict=True)):
            kept.append(point)
    return kept


def _finding(found: RankCorrelation) -> str:
    """The correlation with its interval and p."""
    languages = counted(found.n, "language")
    if found.rho is None or found.p is None:
        return f"no correlation of size and ASR was computed over {languages} ({found.note})"
    interval = "" if found.low is None else f", 95 % interval {found.low:+.2f} to {found.high:+.2f}"
    shown = "is shown" if found.p <= 0.05 else "is not shown"
    return (
        f"that size and ASR go together {shown}: Spearman's ρ = {found.rho:+.2f}{interval}, {p_equals(found.p)}, "
        f"{languages}"
    )
