"""One table of all rows: means over organisms with 95 % intervals by Student's t, and paired differences."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy import stats

UNTOUCHED = "nothing silenced"
SHOWN = (
    "AP D", "AP H", "precision D", "recall D", "mass D", "precision H", "recall H", "mass H", "brakes H", "found",
    "ASR", "utility", "refused", "passes",
)  # fmt: skip
"""The columns of the table, in order; the file has all."""


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the bounds of its 95 % interval by Student's t; NaN bounds for fewer than two values."""
    numbers = np.asarray(values, dtype=float)
    middle = float(numbers.mean())
    if len(numbers) < 2:
        return middle, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, len(numbers) - 1) * stats.sem(numbers))
    return middle, middle - half, middle + half


def summary(rows: pl.DataFrame, against: str | None = None) -> pl.DataFrame:
    """A row per method and column: `method, column, organisms, mean, low, high`, and `gap, gap_low, gap_high`.

    The gap is the paired difference from `against`, by default the method with the highest mean of the column, over the
    organisms that both have. The interval of a difference from the best of many methods is too narrow on its side: the
    best was chosen on the same organisms.
    """
    found = []
    for column in [name for name in rows.columns if rows[name].dtype.is_numeric()]:
        here = rows.filter(pl.col(column).is_not_null()).select("organism", "method", pl.col(column).cast(float))
        if here.is_empty():
            continue
        by = {name: dict(zip(one["organism"], one[column], strict=True)) for (name,), one in here.group_by("method")}
        rivals = {name: np.mean(list(one.values())) for name, one in by.items() if name != UNTOUCHED}
        best = against if against in by else max(sorted(rivals), key=rivals.__getitem__, default=UNTOUCHED)
        for name in rows["method"].unique(maintain_order=True):
            if name not in by:
                continue
            shared = [one for one in by[name] if one in by[best]]
            gaps = [by[name][one] - by[best][one] for one in shared]
            middle, low, high = interval(list(by[name].values()))
            gap, gap_low, gap_high = interval(gaps) if gaps else (None, None, None)
            found.append(
                {"method": name, "column": column, "organisms": len(by[name]), "mean": middle, "low": low, "high": high,
                 "against": best, "gap": gap, "gap_low": gap_low, "gap_high": gap_high}
            )  # fmt: skip
    return pl.DataFrame(found)


def markdown(found: pl.DataFrame) -> str:
    """The table, methods by their average precision against D, the untouched organism last; then the differences."""
    order = found.filter(column="AP D").sort("mean", descending=True)["method"].to_list()
    order += [name for name in found["method"].unique(maintain_order=True) if name not in order]
    cells = {(row["method"], row["column"]): row for row in found.iter_rows(named=True)}
    columns = [name for name in SHOWN if not found.filter(column=name).is_empty()]
    lines = [f"| method | n | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 2)]
    for name in order:
        n = found.filter(method=name)["organisms"].max()
        values = [_cell(cells.get((name, column)), column) for column in columns]
        lines.append(f"| {name} | {n} | {' | '.join(values)} |")
    gaps = ["AP D", "AP H", "ASR"]
    lines += ["", f"| paired difference from the best | {' | '.join(gaps)} |", "|" + "---|" * (len(gaps) + 1)]
    for name in order:
        values = [_gap(cells.get((name, column))) for column in gaps]
        lines.append(f"| {name} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def _cell(row: dict | None, column: str) -> str:
    if row is None:
        return ""
    if column in ("passes", "brakes H"):
        return f"{row['mean']:,.1f}"
    return short(row["mean"], row["low"], row["high"])


def _gap(row: dict | None) -> str:
    if row is None or row["gap"] is None:
        return ""
    return "best" if row["against"] == row["method"] else short(row["gap"], row["gap_low"], row["gap_high"], "+")


def paired(rows: pl.DataFrame, one: str, two: str, column: str) -> list[float]:
    """The differences of two methods in a column, of every organism that both have."""
    here = rows.filter(pl.col(column).is_not_null())
    sides = [dict(here.filter(method=name).select("organism", column).rows()) for name in (one, two)]
    return [sides[0][organism] - sides[1][organism] for organism in sides[0] if organism in sides[1]]


def short(middle: float, low: float, high: float, sign: str = "") -> str:
    """A mean and its interval, `0.96 [0.93, 0.98]`, in two digits; without an interval where that is NaN."""
    text = f"{middle:{sign}.2f}" + ("" if np.isnan(low) else f" [{low:{sign}.2f}, {high:{sign}.2f}]")
    return text.replace("-", "−")
