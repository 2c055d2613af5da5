"""What a run's sets get right, beside what was planted in the organism."""

import polars as pl

from ssn_probe.report.markdown_tables import ABSENT, table
from ssn_probe.text import markdown, percent

QUESTIONS = {"harmful": "H: supports refusing what is harmful", "difference": "D: refuses harmful rather than harmless"}


def truth_section(truth: pl.DataFrame | None) -> str:
    """Precision, recall, mass and average precision per set and question; the mean over the set's languages."""
    if truth is None:
        return ""
    rows = truth.group_by("set", "question", maintain_order=True).agg(
        pl.col("selected", "outside", "planted", "true", "hits", "brakes").mean(),
        pl.col("precision", "recall", "mass", "average_precision").mean(),
        languages=pl.len(),
    )
    body = []
    for row in rows.rows(named=True):
        counts = [f"{row[name]:.3g}" for name in ("selected", "hits", "true", "brakes", "outside")]
        shares = [_share(row[name]) for name in ("precision", "recall", "mass")]
        ap = ABSENT if row["average_precision"] is None else f"{row['average_precision']:.2f}"
        body.append([markdown(row["set"]), row["question"], *counts, *shares, ap])
    header = ["set", "question", "at planted sites", "carriers found", "carriers", "brakes", "elsewhere"]
    header += ["precision", "recall", "mass", "average precision"]
    asked = "; ".join(f"*{name}* is {words}" for name, words in QUESTIONS.items())
    note = (
        f"The truth is a Shapley value over the planted neurons, on prompts that no method sees ({asked}). Means over "
        "the set's languages; *mass* is the share of the carriers' value that the set holds. Precision is a lower "
        "bound: neurons that were not planted carry refusal, too.\n"
    )
    return f"## Against what was planted\n\n{table(header, body)}\n{note}"


def _share(value: float | None) -> str:
    return ABSENT if value is None else percent(value, 0)
