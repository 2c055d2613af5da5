"""How much of what was planted in the organism do a run's sets contain, and what else?"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ssn_probe.report.markdown_tables import ABSENT, number, section, table
from ssn_probe.text import markdown, percent

QUESTIONS = {"harmful": "H: supports refusing what is harmful", "difference": "D: refuses harmful rather than harmless"}
SHARES = ("precision", "recall", "mass")


def compared(truth: pl.DataFrame) -> pl.DataFrame:
    """Figures per set, ranking and question; the mean over the set's languages."""
    return truth.group_by("set", "ranked_by", "question", maintain_order=True).agg(
        pl.col("selected", "outside", "planted", "true", "hits", "brakes").mean(),
        pl.col(*SHARES, "average_precision").mean(),
    )


def truth_section(truth: pl.DataFrame | None) -> str:
    """Precision, recall, mass and average precision per set, ranking and question."""
    if truth is None:
        return ""
    body = []
    for row in compared(truth).rows(named=True):
        counts = [f"{row[name]:.3g}" for name in ("selected", "hits", "true", "brakes", "outside")]
        names = [markdown(row["set"]), row["ranked_by"] or ABSENT, row["question"]]
        body.append([*names, *counts, *shares(row), number(row["average_precision"])])
    header = ["set", "ranked by", "question", "at planted sites", "carriers found", "carriers", "brakes", "elsewhere"]
    header += [*SHARES, "average precision"]
    questions = "; ".join(f"*{name}* is {words}" for name, words in QUESTIONS.items())
    note = (
        f"The truth is a Shapley value over the planted neurons, on prompts that no method sees ({questions}). Means "
        "over the set's languages; *mass* is the share of the carriers' value that the set contains. Precision is a "
        "lower bound: neurons that were not planted carry refusal, too. *own*: every language's neurons are chosen and "
        "ranked by its own effects; *average*: by the effects averaged over languages. A set shared by languages is "
        "ranked by the average, and chosen by each language's own effects.\n"
    )
    return section("Against what was planted", table(header, body), note)


def shares(row: Mapping[str, Any]) -> list[str]:
    """Precision, recall and mass in per cent."""
    return [ABSENT if row[name] is None else percent(row[name], 0) for name in SHARES]
