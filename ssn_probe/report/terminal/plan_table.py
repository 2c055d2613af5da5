"""The plan of a run as a table, before anything is computed."""

from typing import Any

from rich.console import Group
from rich.table import Table

from ssn_probe.spec.display import literal
from ssn_probe.text import duration


def render_plan(forecast: Any) -> Group:
    """A recipe's stages with prompts, passes, tokens and time, what is cached, and what it takes and could show.

    ✓ cached, ◐ in part, ○ to compute; the figures are those of the whole, the time that of what is left.
    """
    recipe = forecast.plan.recipe
    table = Table("", "stage", box=None, pad_edge=False)
    for header in ("prompts", "passes", "new tokens", *(["time left"] if forecast.seconds else [])):
        table.add_column(header, justify="right")
    for stage in forecast.plan.stages:
        done = forecast.cached.get(stage.label, 0)
        passes = f"{stage.prompts * (stage.passes + max(0, stage.generated - 1)):,.0f}"
        new = f"≤ {stage.prompts * stage.generated:,}" if stage.generated else "–"
        seconds = forecast.seconds.get(stage.label)
        left = [] if seconds is None else ["–" if done >= stage.prompts else duration(seconds * (stage.prompts - done))]
        table.add_row(_mark(done, stage.prompts), literal(stage.label), f"{stage.prompts:,}", passes, new, *left)
    return Group(
        literal(recipe.question or recipe.name, "bold"),
        table,
        literal("✓ cached   ◐ cached in part   ○ to compute", "dim"),
        *(literal(line) for line in forecast.lines),
    )


def _mark(done: int, prompts: int) -> str:
    return "✓" if done >= prompts else "◐" if done else "○"
