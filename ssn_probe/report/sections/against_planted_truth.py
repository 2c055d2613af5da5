"""How much of what was planted in the organism do a run's sets contain, and what else?"""

import polars as pl

from ssn_probe.report.markdown_tables import ABSENT, number, section, table
from ssn_probe.text import markdown, percent

QUESTIONS = {"harmful": "H: supports refusing what is harmful", "difference": "D: refuses harmful rather than harmless"}


def truth_section(truth: pl.DataFrame | None) -> str:
    """Precision, recall, mass and average precision per set and question; the mean over the set's languages."""
    if truth is None:
        return ""
    rows = truth.group_by("set", "question", maintain_order=True).agg(
        pl.col("selected", "outside", "planted", "true", "hits", "brakes").mean(),
        pl.col("precision", "recall", "mass", "average_precision").mean(),
    )
    body = []
    for row in rows.rows(named=True):
        counts = [f"{row[name]:.3g}" for name in ("selected", "hits", "true", "brakes", "outside")]
        shares = [ABSENT if row[name] is None else percent(row[name], 0) for name in ("precision", "recall", "mass")]
        body.append([markdown(row["set"]), row["question"], *counts, *shares, number(row["average_precision"])])
    header = ["set", "question", "at planted sites", "carriers found", "carriers", "brakes", "elsewhere"]
    header += ["precision", "recall", "mass", "average precision"]
    questions = "; ".join(f"*{name}* is {words}" for name, words in QUESTIONS.items())
    note = (
        f"The truth is a Shapley value over the planted neurons, on prompts that no method sees ({questions}). Means "
        "over the set's languages; *mass* is the share of the carriers' value that the set contains. Precision is a "
        "lower bound: neurons that were not planted carry refusal, too.\n"
    )
    return section("Against what was planted", table(header, body), note)
