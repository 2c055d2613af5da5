"""The plan of a run as a table, before anything is computed."""

from collections.abc import Iterator
from typing import Any

from rich.console import Group
from rich.table import Table

from ssn_probe.report.refusal_in_words import need_line, tried_line
from ssn_probe.report.run_report import notes_on_data
from ssn_probe.spec.display import literal
from ssn_probe.text import duration


def render_plan(forecast: Any) -> Group:
    """A recipe's stages with prompts, passes, tokens and time, what is cached, and what it takes and could show.

    ✓ cached, ◐ in part, ○ to compute, – not run; the figures are those of the whole, the time that of what is left.
    """
    recipe = forecast.recipe
    table = Table("", "stage", box=None, pad_edge=False)
    for header in ("prompts", "passes", "new tokens", *(["time left"] if forecast.seconds else [])):
        table.add_column(header, justify="right")
    for row in forecast.rows:
        done, unreached = forecast.cached.get(row.label, 0), row.label in forecast.unreached
        generated = row.cost.generated if row.cost.work == "responses" else 0
        passes = f"{row.prompts * (row.cost.passes + max(0, generated - 1)):,.0f}"
        new = f"≤ {row.prompts * generated:,}" if generated else "–"
        seconds = forecast.seconds.get(row.label)
        left = [] if seconds is None else ["–" if done >= row.prompts else duration(seconds * (row.prompts - done))]
        table.add_row(
            "–" if unreached else _mark(done, row.prompts), literal(row.label), f"{row.prompts:,}", passes, new, *left
        )
    return Group(
        literal(recipe.question or recipe.name, "bold"),
        table,
        literal(f"✓ cached   ◐ cached in part   ○ to compute{'   – not run' if forecast.unreached else ''}", "dim"),
        *(literal(f"– not run: {why}.") for why in dict.fromkeys(forecast.unreached.values())),
        *(literal(line) for line in (*_refusal(forecast), *forecast.lines)),
        *(literal(f"Note: {note}.") for note in notes_on_data(recipe, forecast.data)),
    )


def _refusal(forecast: Any) -> Iterator[str]:
    """What the gate of the refusal log-odds needs, and what a first try saw."""
    for need in forecast.gates:
        yield need_line(need, needed=need.data in forecast.needed)
    for found in forecast.tried:
        own = [need for need in forecast.gates if (need.data, need.language) == (found.data, found.language)]
        yield tried_line(found, own[0] if own else None, needed=found.data in forecast.needed)


def _mark(done: int, prompts: int) -> str:
    return "✓" if done >= prompts else "◐" if done else "○"
