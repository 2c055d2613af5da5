"""Which languages share how many neurons: one table of language × language per set."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from ssn_probe.neurons.overlap import Overlap
from ssn_probe.spec.display import literal
from ssn_probe.text import plain


def overlap_matrix(overlap: Overlap) -> Table:
    """Sizes on the diagonal, shared neurons above it, with what chance gives; the Jaccard index beneath it."""
    rows = {(row["language_a"], row["language_b"]): row for row in overlap.frame.rows(named=True)}
    sizes = {row[f"language_{side}"]: row[f"size_{side}"] for row in rows.values() for side in "ab"}
    permuted = overlap.frame.get_column("expected_permuted", default=None)
    chance = "" if permuted is None or permuted.is_null().all() else " (with harmful and harmless exchanged)"
    title = f"{plain(overlap.name)}: above the diagonal neurons that two languages share{chance}; beneath it Jaccard, %"
    table = Table(title=literal(title), title_justify="left", box=None, pad_edge=False)
    table.add_column("language")
    for language in overlap.languages:
        table.add_column(literal(language), justify="right")
    for first in overlap.languages:
        cells = (
            Text(f"{sizes[first]:,}", style="bold")
            if first == second
            else _shared(rows[first, second])
            if (first, second) in rows
            else _jaccard(rows[second, first])
            for second in overlap.languages
        )
        table.add_row(literal(first), *cells)
    return table


def _shared(row: Mapping[str, Any]) -> Text:
    expected = row.get("expected_permuted")
    return Text.assemble(f"{row['shared']:,}", ("" if expected is None else f" ({expected:.1f})", "dim"))


def _jaccard(row: Mapping[str, Any]) -> Text:
    return Text("–" if row["jaccard"] is None else f"{100 * row['jaccard']:.0f}", style="dim")
