"""The responses of a run under another judge, as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table

from ssn_probe.report.certificate import arm_title
from ssn_probe.report.sections.other_judges import KAPPA, agreement_cells
from ssn_probe.report.terminal.certificate_table import certified_tables
from ssn_probe.report.terminal.result_card import interval
from ssn_probe.spec.display import literal
from ssn_probe.text import counted


def judged_card(first: Sequence[Mapping[str, Any]], entry: Mapping[str, Any], verdicts: Any) -> Group:
    """ASR under both judges beside each other, their agreement per language, and which verdicts they gave.

    `first`: the ASR rows under the run's judge, as the manifest records those of another.
    """
    parts: list[Any] = [_asr(first, entry), *certified_tables(entry, entry["asr"])]
    if first:
        parts += [_agreement(entry), literal(KAPPA, "dim")]
    parts.append(_verdicts(entry, verdicts))
    if entry.get("spent"):
        parts.append(literal(f"{entry['name']}: {entry['spent']}."))
    return Group(*parts)


def _asr(first: Sequence[Mapping[str, Any]], entry: Mapping[str, Any]) -> Table:
    sides = {f"{arm_title(row)}, {judge}": {} for row in entry["asr"] for judge in (entry["first"], entry["name"])}
    for judge, rows in ((entry["first"], first), (entry["name"], entry["asr"])):
        for row in rows:
            sides.setdefault(f"{arm_title(row)}, {judge}", {})[row["language"]] = row
    shown = {title: rows for title, rows in sides.items() if rows}
    table = _table("ASR, %", *shown)
    for language in dict.fromkeys(row["language"] for row in entry["asr"]):
        cells = [interval(rows[language], short=len(shown) > 4) if language in rows else "–" for rows in shown.values()]
        table.add_row(literal(language), *map(literal, cells))
    return table


def _agreement(entry: Mapping[str, Any]) -> Table:
    table = _table(f"{entry['name']} and {entry['first']}", "κ", "same", "n", "unjudged")
    for row in entry["agreement"]:
        table.add_row(*map(literal, agreement_cells(row)))
    return table


def _verdicts(entry: Mapping[str, Any], verdicts: Any) -> Table:
    """All languages together; a row is the run's verdict, a column the other's."""
    kinds = ("refused", "complied", "invalid", "unjudged")
    counts = {(row["first"], row["second"]): 0 for row in verdicts.iter_rows(named=True)}
    for row in verdicts.iter_rows(named=True):
        counts[row["first"], row["second"]] += row["n"]
    columns = [kind for kind in kinds if any(other == kind for _, other in counts)]
    total = counted(sum(counts.values()), "distinct response")
    table = _table(f"{total}: {entry['first']} (row), {entry['name']} (column)", *columns)
    for kind in kinds:
        if any(one == kind for one, _ in counts):
            table.add_row(kind, *(f"{counts.get((kind, other), 0):,}" for other in columns))
    return table


def _table(first: str, *headers: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(literal(first))
    for header in headers:
        table.add_column(literal(header), justify="right")
    return table
