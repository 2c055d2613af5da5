"""Every chart that a run may have, by the name of its file in `plots/`, in the order of the page."""

from collections.abc import Callable, Mapping

from ssn_probe.errors import ResultError, nearest
from ssn_probe.report.charts import asr_chart, comparison_chart, cost_chart
from ssn_probe.report.charts.chart import Chart
from ssn_probe.report.finished import FinishedRun

CHARTS: Mapping[str, Callable[[FinishedRun], Chart | None]] = {
    "asr": asr_chart.draw,
    "comparisons": comparison_chart.draw,
    "curves": cost_chart.draw,
}


def charts_of(run: FinishedRun) -> dict[str, Chart]:
    """The charts that a run has something to show in."""
    drawn = {name: draw(run) for name, draw in CHARTS.items()}
    return {name: chart for name, chart in drawn.items() if chart is not None}


def chart_of(run: FinishedRun, name: str) -> Chart:
    """One of a run's charts. Raises ResultError where there is none of the name."""
    known = charts_of(run)
    if name not in known:
        why = "has nothing to draw in it" if name in CHARTS else "knows no such chart"
        raise ResultError(f"there is no chart {name!r}: the run {why}", nearest(name, list(known)))
    return known[name]
