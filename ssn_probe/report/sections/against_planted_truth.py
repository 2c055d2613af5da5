"""How much of what was planted in the organism do a run's sets contain, and what else?"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ssn_probe.report.cells import ABSENT, number
from ssn_probe.report.document import Folded, Picture, Section, Table, section
from ssn_probe.text import percent

QUESTIONS = {"harmful": "H: supports refusing what is harmful", "difference": "D: refuses harmful rather than harmless"}
SHARES = ("precision", "recall", "mass")
NAMES = ("set", "ranked by", "question")
COUNTS = {
    "selected": "at planted sites",
    "hits": "carriers found",
    "true": "carriers",
    "brakes": "brakes",
    "outside": "elsewhere",
}


def compared(truth: pl.DataFrame) -> pl.DataFrame:
    """Figures per set, ranking and question; the mean over the set's languages."""
    return truth.group_by("set", "ranked_by", "question", maintain_order=True).agg(
        pl.col("selected", "outside", "planted", "true", "hits", "brakes").mean(),
        pl.col(*SHARES, "average_precision").mean(),
    )


def truth_section(truth: pl.DataFrame | None) -> Section | None:
    """Precision, recall, mass and average precision per set, ranking and question."""
    if truth is None:
        return None
    rows = [(_names(row), row) for row in compared(truth).rows(named=True)]
    quality = tuple((*names, *shares(row), number(row["average_precision"])) for names, row in rows)
    counts = tuple((*names, *(f"{row[name]:.3g}" for name in COUNTS)) for names, row in rows)
    questions = "; ".join(f"{name} is {words}" for name, words in QUESTIONS.items())
    note = (
        f"The truth is a Shapley value over the planted neurons, on prompts that no method sees ({questions}). Means "
        "over the set's languages; mass is the share of the carriers' value that the set contains. Precision is a "
        "lower bound: neurons that were not planted carry refusal, too. Ranked by own: every language's neurons are "
        "chosen and ranked by its own effects; by the average: by the effects averaged over languages. A set shared by "
        "languages is ranked by the average, and chosen by each language's own effects."
    )
    return section(
        "Against what was planted",
        Picture("truth"),
        Table((*NAMES, *SHARES, "average precision"), quality, note),
        Folded("How many neurons", (Table((*NAMES, *COUNTS.values()), counts),)),
    )


def _names(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["set"], row["ranked_by"] or ABSENT, row["question"]


def shares(row: Mapping[str, Any]) -> list[str]:
    """Precision, recall and mass in per cent."""
    return [ABSENT if row[name] is None else percent(row[name], 0) for name in SHARES]
