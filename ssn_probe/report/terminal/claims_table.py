"""Claims and their verdicts as a small table, legible without colours."""

import textwrap
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ssn_probe.report.claim import NOT_SHOWN, NOT_TESTABLE, SHOWN, Claim
from ssn_probe.spec.display import literal
from ssn_probe.text import plain

STYLES = {SHOWN: "bold green", NOT_SHOWN: "bold", NOT_TESTABLE: "dim"}
MOST = 120
"""Characters of a reason; the report has all of it."""


def claims_table(claims: Sequence[Claim]) -> Table:
    """A row per claim, with its difference where there is one; and why, where it is not testable."""
    table = Table(box=None, pad_edge=False)
    table.add_column(Text("claim"), ratio=10)
    table.add_column(Text("verdict"), no_wrap=True, min_width=max(map(len, STYLES)))
    table.add_column(Text("difference"), ratio=7)
    for one in claims:
        cells = literal(one.claim, "bold" if one.primary else ""), literal(one.verdict, STYLES[one.verdict])
        table.add_row(*cells, _found(one))
    return table


def _found(claim: Claim) -> Text:
    """A figure per line, so that none is broken."""
    lines = [plain(one) for one in claim.figures.split(", ") if one]
    if claim.verdict == NOT_TESTABLE:
        lines.append(plain(textwrap.shorten(claim.why, MOST, placeholder=" …")))
    return Text("\n".join(lines))
