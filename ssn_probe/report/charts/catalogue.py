"""Every chart that a run may have, by the name of its file in `plots/`, in the order of the page."""

from collections.abc import Callable, Mapping

from ssn_probe.errors import ResultError, nearest
from ssn_probe.report.charts import (
    asr_chart,
    comparison_chart,
    cost_chart,
    count_chart,
    dissociation_chart,
    dose_chart,
    judge_chart,
    neuron_chart,
    overlap_chart,
    stability_chart,
    training_chart,
    transfer_chart,
    truth_chart,
)
from ssn_probe.report.charts.chart import Chart
from ssn_probe.report.finished import FinishedRun

CHARTS: Mapping[str, Callable[[FinishedRun], Chart | None]] = {
    "asr": asr_chart.draw,
    "comparisons": comparison_chart.draw,
    "dissociation": dissociation_chart.draw,
    "transfer": transfer_chart.draw,
    "doses": dose_chart.draw,
    "training": training_chart.draw,
    "curves": cost_chart.draw,
    "neurons": neuron_chart.draw,
    "overlap": overlap_chart.draw,
    "stability": stability_chart.draw,
    "counts": count_chart.draw,
    "truth": truth_chart.draw,
    "judge": judge_chart.draw,
}


def charts_of(run: FinishedRun) -> dict[str, Chart]:
    """The charts that a run has something to show in."""
    drawn = {name: draw(run) for name, draw in CHARTS.items()}
    return {name: chart for name, chart in drawn.items() if chart is not None}


def chart_of(run: FinishedRun, name: str) -> Chart:
    """One of a run's charts. Raises ResultError where there is none of the name."""
    found = CHARTS[name](run) if name in CHARTS else None
    if found is None:
        why = "the run has nothing to draw in it" if name in CHARTS else "no chart is called so"
        raise ResultError(f"there is no chart {name!r}: {why}", nearest(name, list(charts_of(run))))
    return found
