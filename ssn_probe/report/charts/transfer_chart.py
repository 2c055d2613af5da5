"""Whose neurons matter for whom: the change of ASR in every language by the neurons of every language."""

from ssn_probe.report.charts.cell_maps import Cell, cell_map
from ssn_probe.report.charts.chart import Chart, chart
from ssn_probe.report.charts.theme import drawable
from ssn_probe.report.conditions import Row
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.sections.transfer_matrix import sides, transfers
from ssn_probe.text import change_in_points, points

SIDE, MOST = 520, 40


def draw(run: FinishedRun) -> Chart | None:
    """None without an arm that runs once per language of its neurons."""
    found = {} if run.findings.summary is None else transfers(run.findings.summary)
    for arm, cells in found.items():
        known = {pair: row for pair, row in cells.items() if row["delta"] is not None}
        if known:
            return _chart(arm, known)
    return None


def _chart(arm: str, known: dict[tuple[str, str], Row]) -> Chart:
    rows, columns = (side[:MOST] for side in sides(known))
    most = max(abs(row["delta"]) for row in known.values()) or 1.0
    cells = {
        (source, target): Cell(
            share=row["delta"] / most,
            text=points(row["delta"]),
            says=f"neurons of {drawable(source)} in {drawable(target)}: "
            f"{change_in_points(row['delta'], row['delta_low'], row['delta_high'])}, n = {row['n']:,}",
        )
        for (source, target), row in known.items()
        if source in rows and target in columns
    }
    size = min(56.0, SIDE / len(columns)), min(34.0, SIDE / len(rows))
    own, other = (
        [row["delta"] for (source, target), row in known.items() if (source == target) == same]
        for same in (True, False)
    )
    means = [
        f"{points(sum(values) / len(values))} points {words}"
        for values, words in ((own, "in their own language"), (other, "in others"))
        if values
    ]
    n = sorted(row["n"] for row in known.values())
    span = " to ".join(f"{one:,}" for one in dict.fromkeys((n[0], n[-1])))
    below = [
        f"Change of ASR in points, n = {span} prompts a cell; 95 % intervals are in the cells' tooltips and the table.",
        "Not tested. Blue: higher ASR; brown: lower.",
    ]
    title = f"{drawable(arm)}: a language's neurons change ASR by {' and '.join(means)} on average"
    where = "rows: whose neurons; columns: language evaluated"
    body = cell_map(rows, columns, cells, title=drawable(arm, 30), size=size, sides=where)
    return chart("transfer", title, f"{title}. {' '.join(below)}", {"hconcat": [body]}, subtitle=below)
