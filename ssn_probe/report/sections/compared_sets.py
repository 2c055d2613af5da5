"""What the change of an arm is compared with: the sets that would have been found if its claim were false."""

import polars as pl

from ssn_probe.report.conditions import Row
from ssn_probe.report.markdown_tables import p_value, section, table
from ssn_probe.report.measure_tables import DIGITS, TITLES, digits_of
from ssn_probe.study.arms import ArmName
from ssn_probe.study.comparisons import COMPARISONS
from ssn_probe.study.summary import AVERAGE
from ssn_probe.text import markdown


def comparisons_section(comparisons: pl.DataFrame | None) -> str:
    """Every comparison of an arm and measure, on the average over languages."""
    if comparisons is None or comparisons.is_empty():
        return ""
    rows = comparisons.filter(language=AVERAGE)
    header = ["arm", "measure", "compared with", "neurons", "observed", "compared sets (95 %)", "difference (95 %)"]
    header += ["shown beyond", "p", "Holm p"]
    note = (
        "*Compared sets*: their mean, and where 95 % of such sets fall. *Shown beyond*: the figure that the observed "
        "figure would have had to pass for p ≤ .05; a dash: fewer than 19 sets. The one primary test is marked; "
        "Holm's p adjusts the other tests of the arm; rows without a p are descriptions.\n"
    )
    body = [_line(row) for row in rows.rows(named=True)]
    return section("What the change is compared with", table(header, body), note)


def _line(row: Row) -> list[str]:
    digits, scale = digits_of(row["measure"]), 1 if row["measure"] in DIGITS else 100

    def figure(name: str, sign: str = "") -> str:
        return "–" if row[name] is None else f"{scale * row[name]:{sign}.{digits}f}"

    def interval(value: str, low: str, high: str, sign: str = "") -> str:
        ends = "" if row[low] is None else f" [{figure(low, sign)}, {figure(high, sign)}]"
        return f"{figure(value, sign)}{ends}"

    sets = COMPARISONS[row["comparison"]].counted(row["sets"])
    empty = f", {row['empty']:,} of them empty" if row["empty"] else ""
    sizes = "–" if row["neurons_mean"] is None else f"{row['neurons']:.1f}, {row['neurons_mean']:.1f}"
    return [
        markdown(ArmName(row["arm"], row["set_language"], row["step"]).title),
        TITLES[row["measure"]].split(":")[0],
        f"{'**primary test**: ' if row['primary'] else ''}{sets}{empty}",
        sizes,
        figure("observed"),
        interval("mean", "low", "high"),
        interval("difference", "difference_low", "difference_high", "+"),
        figure("shown_from"),
        p_value(row["p"]),
        p_value(row["p_holm"]),
    ]
