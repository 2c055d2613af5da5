"""Every chart that a run may have, by the name of its file in `plots/`."""

from collections.abc import Callable, Mapping

from ssn_probe.report.charts import comparison_chart, cost_chart
from ssn_probe.report.charts.chart import Chart
from ssn_probe.report.finished import FinishedRun

CHARTS: Mapping[str, Callable[[FinishedRun], Chart | None]] = {
    "comparisons": comparison_chart.draw,
    "curves": cost_chart.draw,
}


def charts_of(run: FinishedRun) -> dict[str, Chart]:
    """The charts that a run has something to show in."""
    drawn = {name: draw(run) for name, draw in CHARTS.items()}
    return {name: chart for name, chart in drawn.items() if chart is not None}
