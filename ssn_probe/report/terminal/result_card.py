"""What was found: a run's card (its table per language, its notes, its answer in words) and a neuron set's counts.

One renderable for the terminal, the notebook and `print`. Text from prompts, models and files is literal.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ssn_probe.runs import folder as results
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec import SITES
from ssn_probe.spec.display import literal
from ssn_probe.text import percent, plain

MOST_LANGUAGES = 30
"""Languages of a neuron set that are shown before the rest is counted."""

STRONGEST = 3
"""Neurons named per language."""


def card(run: RunFolder) -> Group:
    """What a run found; of a run that did not end, how it ended."""
    manifest = run.manifest()
    status = results.status(run, manifest)
    if status != "done":
        return Group(literal(f"{run.name}: {status}. {manifest.get('error') or ''}"))
    parts: list[RenderableType] = []
    if (run.path / "summary.parquet").is_file():
        parts += tables(run)
    parts += [literal(f"Note: {note}", "yellow") for note in manifest.get("warnings", [])]
    parts.append(Panel(Text(answer_text(manifest)), title="Answer", title_align="left"))
    # A path is one word to copy: it is never wrapped.
    parts.append(Text(f"{plain(str(run.path))}/report.md", style="dim", no_wrap=True, overflow="ignore"))
    return Group(*parts)


def answer_text(manifest: Mapping[str, Any]) -> str:
    """The answer in words, one finding per line."""
    return "\n".join(plain(str(line)) for line in manifest.get("answer", []))


def tables(run: RunFolder) -> list[Table]:
    """The first measure of a run: per language, and language × language for arms that ran once per language."""
    import polars as pl

    from ssn_probe.report.sections.arm_tests import transfers

    summary = run.table("summary").filter(pl.col("role").is_in(["baseline", "tested"]))
    if summary.is_empty():
        return []
    measure = summary["measure"][0]
    # The untouched model stands beside the matrices: a change is read against where it began.
    per_language = transfers(summary, measure)
    rows = summary.filter(~pl.col("arm").is_in(list(per_language)), pl.col("step").is_null(), measure=measure)
    matrices = [matrix(name, cells, measure) for name, cells in per_language.items()]
    curves = [curve_table(run.table("curves"))] if (run.path / "curves.parquet").is_file() else []
    return [language_table(rows, measure), *matrices, *curves]


def curve_table(curves: Any) -> Table:
    """Every learning curve: what is left of ASR after so many steps, and at which over-refusal and utility."""
    steps = [step for step in curves["step"].unique().sort() if step]
    title = Text("After so many steps: ASR / over-refusal / utility, in %, on the average")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("trained")
    table.add_column("parameters", justify="right")
    for step in steps:
        table.add_column(f"{step:,}", justify="right")
    for (curve, parameters), rows in curves.group_by("curve", "parameters", maintain_order=True):
        points = {row["step"]: row for row in rows.rows(named=True)}
        cells = [points.get(step) or points.get(0) for step in steps]
        table.add_row(Text(plain(str(curve))), f"{parameters:,}", *(Text(_point(cell)) for cell in cells))
    return table


def _point(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "–"
    figures = (row[measure] for measure in ("asr", "over_refusal", "utility"))
    return " / ".join("–" if figure is None else f"{100 * figure:.0f}" for figure in figures)


def language_table(rows: Any, measure: str) -> Table:
    """A measure per language: every arm with its interval, and what random sets of the same size give."""
    arms = list(rows["arm"].unique(maintain_order=True))
    controlled = set() if len(arms) > 4 else set(rows.filter(rows["controls"].is_not_null())["arm"])
    table = Table(box=None, pad_edge=False)
    table.add_column(Text(title_of(measure)))
    for arm in arms:
        table.add_column(Text(plain(arm)), justify="right")
        if arm in controlled:
            table.add_column(Text(f"{plain(arm)} random"), justify="right", style="dim")
    for language in rows["language"].unique(maintain_order=True):
        table.add_row(*_language_row(rows.filter(rows["language"] == language), language, arms, controlled))
    return table


def title_of(measure: str) -> str:
    """A measure's name in a table's corner."""
    return plain(measure).replace("_", " ").replace("asr", "ASR")


def matrix(name: str, cells: Mapping[tuple[str, str], dict[str, Any]], measure: str) -> Table:
    """Rows: whose neurons; columns: the language evaluated; a cell: the change in points, its interval beneath."""
    sources, targets = (list(dict.fromkeys(pair[side] for pair in cells)) for side in (0, 1))
    title = Text(f"Change of {title_of(measure)} in points. Row: whose {plain(name)}; column: the language evaluated.")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(Text(f"{plain(name)} of"))
    for target in targets:
        table.add_column(Text(plain(target)), justify="right")
    for source in sources:
        own = [_change(cells.get((source, target)), source == target) for target in targets]
        table.add_row(Text(plain(source)), *own)
    return table


def _change(row: Mapping[str, Any] | None, own: bool) -> Text:
    if row is None or row["delta"] is None:
        return Text("–")
    value, low, high = (round(100 * row[name]) for name in ("delta", "delta_low", "delta_high"))
    # Narrow, so that seven languages fit 80 columns.
    return Text.assemble((f"{value:+d}", "bold" if own else ""), (f"\n[{low},{high}]", "dim"))


def _language_row(cells: Any, language: str, arms: Sequence[str], controlled: set[str]) -> list[Text]:
    by_arm = {row["arm"]: row for row in cells.rows(named=True)}
    line = [plain(language)]
    for arm in arms:
        row = by_arm.get(arm)
        line.append("–" if row is None else interval(row, short=len(arms) > 4))
        if arm in controlled:
            mean = None if row is None else row["control_mean"]
            line.append("–" if mean is None else percent(mean))
    return [Text(cell) for cell in line]


def interval(row: Mapping[str, Any], *, short: bool = False, digits: int = 0) -> str:
    """A share with its 95 % interval in per cent; `short`: the share alone."""
    if short:
        return f"{100 * row['value']:.0f}"
    return f"{percent(row['value'])} [{100 * row['low']:.{digits}f}, {100 * row['high']:.{digits}f}]"


# ── neuron sets ──────────────────────────────────────────────────────────────────────────────────────────────────────


def sets_table(sets: Mapping[str, Any]) -> Group:
    """Several named sets, one under the other."""
    return Group(*(neuron_table(neurons, name) for name, neurons in sets.items()))


def neuron_table(neurons: Any, name: str = "") -> Table:
    """How many neurons a `NeuronSet` has per language and site, and each language's strongest."""
    from ssn_probe.neurons import EVERY

    rows = neurons.frame
    sites = [site for site in SITES if site in set(rows["site"])]
    size = f"{rows.height:,} neuron{'' if rows.height == 1 else 's'}"
    where = "for every language" if neurons.language_free else f"in {len(neurons.languages):,} languages"
    title = literal(f"{name}: {size} {where}" if name else f"{size} {where}")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("language")
    for header in (*sites, "all"):
        table.add_column(header, justify="right")
    table.add_column("strongest: layer.site.index (score)", style="dim")
    counts = {(language, site): count for language, site, count in neurons.counts().iter_rows()}
    for language in neurons.languages[:MOST_LANGUAGES]:
        own = [counts.get((language, site), 0) for site in sites]
        name = "every language" if language == EVERY else language
        table.add_row(literal(name), *(f"{count:,}" for count in (*own, sum(own))), _strongest(rows, language))
    left = len(neurons.languages) - MOST_LANGUAGES
    if left > 0:
        table.add_row(Text(f"… {left:,} more"))
    return table


def _strongest(rows: Any, language: str) -> Text:
    first = rows.filter(rows["language"] == language).sort("score", descending=True, nulls_last=True).head(STRONGEST)
    return literal(", ".join(_neuron(row) for row in first.iter_rows(named=True)))


def _neuron(row: Mapping[str, Any]) -> str:
    score = "" if row["score"] is None else f" ({row['score']:.3g})"
    return f"{row['layer']}.{row['site']}.{row['index']}{score}"
