"""Which share of the neurons was measured exactly, and what an audit of the others says of the estimates."""

from typing import Any

import polars as pl

from ssn_probe.report.cells import ABSENT, number
from ssn_probe.report.document import Folded, Section, Table, section
from ssn_probe.study.verification_table import told_apart
from ssn_probe.text import percent

HEAD = (
    "set by", "language", "verified", "on some prompts", "ablations", "tokens", "in doubt", "near the threshold",
    "of these ablated", "audited", "missed", "at most",
)  # fmt: skip


def verification_section(table: pl.DataFrame | None) -> Section | None:
    """A row per language of every node that verifies; how far estimates were off is folded."""
    if table is None:
        return None
    rows = tuple((*_names(table, row), *_counts(row)) for row in table.rows(named=True))
    errors = tuple(
        (*_names(table, row), f"{row['audited']:,}", number(row["ranks"]), _share(row["error"]))
        for row in table.rows(named=True)
    )
    note = (
        "Neurons near a threshold that knows no label were silenced one by one, on the same prompts, and their exact "
        "effects replace the estimates. Verified: on all prompts; those measured on some have, on the others, the "
        "estimate times how far off it was. Ablations: of what silencing every neuron on every prompt would take, "
        "without the audit; tokens: of those that this would take, since what prompts begin with runs once for many of "
        "them. In doubt: neurons within 2.5 standard errors of such a threshold when no more ablations "
        "might be spent. Near the threshold: those whose estimate is within two fifths of `verify` of the threshold "
        "under the observed labels. Audited neurons are drawn at random from those that were not ablated. Missed: how "
        "many of the audited ones that the rule left out it would take with their exact effect; at most: the one-sided "
        "95 % bound of Clopper and Pearson on their share of all neurons that were left out."
    )
    head = (*HEAD[:2], "audited", "Spearman's correlation", "median relative error")
    off = "How far the estimates of audited neurons were off"
    return section("Verified by ablation", Table(HEAD, rows, note), Folded(off, (Table(head, errors),)))


def _names(table: pl.DataFrame, row: dict[str, Any]) -> tuple[str, str]:
    top = "" if row["top"] is None else f", top {100 * row['top']:g} %"
    apart = told_apart(table, row)
    further = "".join(f", {name} {value}" for name, value in apart.items() if name != "top")
    return f"{row['effect']}, {row['rule']}{top}{further}", row["language"]


def _counts(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        percent(row["verified"] / row["total"], 1),
        percent(row["tried"] / row["total"], 1),
        percent(row["spent"], 1),
        _share(row["computed"]),
        f"{row['doubtful']:,}",
        f"{row['band']:,}",
        f"{row['covered']:,}",
        f"{row['audited']:,}",
        f"{row['missed']} of {row['rejected']}",
        _share(row["bound"]),
    )


def _share(value: float | None) -> str:
    return ABSENT if value is None or value != value else percent(value, 1)
