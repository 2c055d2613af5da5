"""Two runs beside each other, as a page like that of a run."""

from ssn_probe import __version__
from ssn_probe.report.charts.run_comparison_chart import differences_chart
from ssn_probe.report.compared_runs import (
    CHART,
    NAMES,
    average_name,
    comparison_sections,
    drawn,
    finding,
    headlines,
    title_of,
)
from ssn_probe.report.page.content import Content
from ssn_probe.report.page.page import as_html
from ssn_probe.study.run_comparison import RunComparison


def comparison_page(found: RunComparison) -> str:
    """The whole page, with the differences of the first measure as a picture."""
    measure = next((name for name in NAMES if name in set(found.table["measure"])), None)
    charts = {}
    if measure is not None:
        chart = differences_chart(drawn(found, measure), finding(found, measure), average_name(found))
        charts[CHART] = chart.figure
    runs = (found.first, found.second)
    content = Content(
        question=title_of(found),
        facts=["comparison of two runs", *(run.name for run in runs)],
        status="done",
        key=", ".join(run.manifest["key"] for run in runs),
        version=__version__,
        answer=headlines(found),
        sections=comparison_sections(found),
        drawn=charts,
    )
    return as_html(content)
