"""The responses of a run under another judge, as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table

from ssn_probe.report.certificate import arm_title, corrected_rows, last_steps
from ssn_probe.report.sections.other_judges import KAPPA, agreement_cells
from ssn_probe.report.terminal.certificate_table import certificate_table
from ssn_probe.report.terminal.result_card import interval
from ssn_probe.spec.display import literal
from ssn_probe.text import counted


def judged_card(
    first: Sequence[Mapping[str, Any]], entry: Mapping[str, Any], verdicts: Any, judge: Mapping[str, Any] | None = None
) -> Group:
    """ASR under both judges beside each other, their agreement per language, and which verdicts they gave.

    `first`: the ASR rows under the run's judge, as the manifest records those of another; `judge`: what it says of it.
    """
    sides = [({**(judge or {}), "name": entry["first"]}, first), (entry, entry["asr"])]
    certified = [one["certificate"] for one, rows in sides if rows and one.get("certificate")]
    parts: list[Any] = [_asr(sides), *map(certificate_table, certified)]
    if first:
        parts += [_agreement(entry), literal(KAPPA, "dim")]
    parts.append(_verdicts(entry, verdicts))
    if entry.get("spent"):
        parts.append(literal(f"{entry['name']}: {entry['spent']}."))
    return Group(*parts)


def _asr(sides: Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]) -> Table:
    """A row per arm and language; a column per judge, and one for what is left after the correction."""
    columns: list[tuple[str, dict[tuple[str, str], str]]] = []
    for judge, every in sides:
        rows = last_steps(every)
        if rows:
            columns.append((judge["name"], {(arm_title(row), row["language"]): interval(row) for row in rows}))
        if rows and judge.get("certificate"):
            corrected = corrected_rows(rows, judge["certificate"], digits=0)
            columns.append((f"{judge['name']}, corrected", {(row[0], row[1]): row[3] for row in corrected}))
    table = Table(box=None, pad_edge=False)
    for header in ("ASR, %", "language"):
        table.add_column(header)
    for title, cells in columns:
        table.add_column(literal(title), justify="right", min_width=max(map(len, cells.values())))
    for place in columns[-1][1] if columns else ():
        table.add_row(*map(literal, (*place, *(cells.get(place, "–") for _, cells in columns))))
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
