"""A finished run as a card (table per language, claims, notes, answer in words), and the counts of neuron sets.

One renderable for the terminal, the notebook and `print`. Text from prompts, models and files is literal.
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ssn_probe.report.claim import kept_claims
from ssn_probe.report.terminal.claims_table import claims_table
from ssn_probe.runs import folder as results
from ssn_probe.runs import integrity
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec import SITES
from ssn_probe.spec.display import literal
from ssn_probe.text import counted, plain, signed

if TYPE_CHECKING:
    from ssn_probe.report.conditions import Condition, Row
    from ssn_probe.report.measure_tables import Column

ABSENT = "–"
MOST_LANGUAGES = 30
"""Languages of a neuron set that are shown before the rest is counted."""
STRONGEST = 3
"""Neurons named per language."""


def card(run: RunFolder) -> Group:
    """What a run found, and whether its files are as they were written; of a run that did not end, how it ended."""
    manifest, changed = run.manifest(), integrity.warning(run)
    status = results.status(run, manifest)
    warned: list[RenderableType] = [] if changed is None else [literal(f"Warning: {changed}", "bold red")]
    if status != "done":
        ended = literal(f"{run.name}: {status}. {manifest.get('error') or ''}")
        hint = f"What the model answered: ssn-probe results {run.name} --responses"
        responded = any(os.path.lexists(run.path / f"{name}.parquet") for name in ("responses", "samples"))
        return Group(*warned, ended, *([literal(hint)] if responded else []))
    parts = warned
    if os.path.lexists(run.path / "summary.parquet"):
        with integrity.showing(run):
            parts += tables(run)
    if os.path.lexists(run.path / "truth.parquet"):
        with integrity.showing(run):
            parts.append(truth_table(run.table("truth")))
    if found := kept_claims(manifest):
        parts.append(Padding(claims_table(found), (1 if parts else 0, 0, 0, 0)))
    parts += [literal(f"Note: {note}", "yellow") for note in manifest.get("warnings", [])]
    parts.append(Panel(Text(answer_text(manifest)), title="Answer", title_align="left"))
    for name in ("report.html", "report.md"):  # a path is one word to copy: it is never wrapped
        if name == "report.md" or os.path.lexists(run.path / name):
            parts.append(Text(f"{plain(str(run.path))}/{name}", style="dim", no_wrap=True, overflow="ignore"))
    return Group(*parts)


def answer_text(manifest: Mapping[str, Any]) -> str:
    """The answer in words, one finding per line."""
    return "\n".join(plain(str(line)) for line in manifest.get("answer", []))


def tables(run: RunFolder) -> list[Table]:
    """The first measure of a run: per language, and language × language for arms that ran once per language."""
    import polars as pl

    from ssn_probe.report.conditions import by_condition
    from ssn_probe.report.sections.transfer_matrix import transfers
    from ssn_probe.report.terminal.certificate_table import corrected_tables

    summary = run.table("summary").filter(pl.col("role").is_in(["baseline", "tested"]))
    if summary.is_empty():
        return []
    measure = summary["measure"][0]
    conditions = by_condition(summary.filter(measure=measure))
    # The untouched model stands beside the matrices: a change is read against where it began.
    single = {key: rows for key, rows in conditions.items() if key.name.of is key.name.step is None}
    doses = _doses(run, summary.filter("primary")["arm"].unique().to_list())
    single = {key: rows for key, rows in single.items() if key.name.arm not in doses}
    matrices = [matrix(arm, cells, measure) for arm, cells in transfers(summary, measure).items()]
    curves = [curve_table(run.table("curves"))] if os.path.lexists(run.path / "curves.parquet") else []
    corrected = corrected_tables(run, run.manifest(), summary) if measure == "asr" else []
    beside = run.table("comparisons") if os.path.lexists(run.path / "comparisons.parquet") else None
    return [language_table(single, measure, beside), *corrected, *matrices, *curves]


def _doses(run: RunFolder, primary: Sequence[str]) -> set[str]:
    """The arms that are the primary one at another dose (`resolve.is_dose`): they have a line of their own."""
    path = run.path / "recipe.json"
    arms = (results.read_json(path).get("arms") if os.path.lexists(path) else None) or {}
    silenced = [arms[arm]["neurons"] for arm in primary if arms.get(arm, {}).get("kind") == "Suppress"]
    dosed = {name for name, node in arms.items() if node["kind"] in ("Suppress", "Amplify")}
    return {name for name in dosed - set(primary) if arms[name]["neurons"] in silenced}


def curve_table(curves: Any) -> Table:
    """Every learning curve: what is left of ASR after so many steps, and at which over-refusal and utility."""
    steps = [step for step in curves["step"].unique().sort() if step]
    table = _titled("After so many steps: ASR / over-refusal / utility in %, on the average", "trained")
    table.add_column("parameters", justify="right")
    for step in steps:
        table.add_column(f"{step:,}", justify="right")
    for (curve, parameters), rows in curves.group_by("curve", "parameters", maintain_order=True):
        points = {row["step"]: row for row in rows.rows(named=True)}
        cells = [points.get(step) or points.get(0) for step in steps]
        table.add_row(literal(curve), f"{parameters:,}", *(Text(_point(cell)) for cell in cells))
    return table


def truth_table(truth: Any) -> Table:
    """Sets of an organism against what was planted, ranked by each language's own effects and by their average."""
    from ssn_probe.report.sections.against_planted_truth import compared

    table = _titled("Against what was planted: precision / mass in %, average precision", "neurons")
    rows = compared(truth)
    for question in rows["question"].unique(maintain_order=True):
        table.add_column(literal(question), justify="right")
    for (name, ranked_by), found in rows.group_by("set", "ranked_by", maintain_order=True):
        figures = [_against(row) for row in found.rows(named=True)]
        table.add_row(literal(f"{name}, ranked by {ranked_by}" if ranked_by else str(name)), *map(Text, figures))
    return table


def _against(row: Mapping[str, Any]) -> str:
    shares = (ABSENT if row[name] is None else f"{100 * row[name]:.0f}" for name in ("precision", "mass"))
    found = row["average_precision"]
    return f"{' / '.join(shares)}, {ABSENT if found is None else f'{found:.2f}'}"


def _titled(title: str, first: str) -> Table:
    table = Table(title=literal(title), title_justify="left", box=None, pad_edge=False)
    table.add_column(literal(first))
    return table


def _point(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ABSENT
    figures = (row[measure] for measure in ("asr", "over_refusal", "utility"))
    return " / ".join(ABSENT if figure is None else f"{100 * figure:.0f}" for figure in figures)


def language_table(
    conditions: Mapping["Condition", Mapping[str, "Row"]], measure: str, comparisons: Any = None
) -> Table:
    """A measure per language: every arm with its interval, and the mean of the first comparison beside it."""
    from ssn_probe.report.measure_tables import SHORT, columns_of

    beside = None if comparisons is None else comparisons.filter(measure=measure)
    columns = [column for column in columns_of(conditions, beside) if len(conditions) <= 4 or not column.comparison]
    short = len(columns) > 5  # so that it fits 80 columns
    table = Table(box=None, pad_edge=False)
    table.add_column(literal(SHORT.get(measure, measure)))
    languages = list(dict.fromkeys(language for rows in conditions.values() for language in rows))
    cells = [[_column_cell(column, language, short) for language in languages] for column in columns]
    for column, own in zip(columns, cells, strict=True):
        style, widest = "dim" if column.comparison else "", max(map(len, own), default=0)
        # A header may wrap, an interval may not.
        table.add_column(literal(column.title), justify="right", style=style, min_width=widest)
    for language, *row in zip(languages, *cells, strict=True):
        table.add_row(literal(language), *row)
    return table


def _column_cell(column: "Column", language: str, short: bool) -> Text:
    row, figures = column.rows.get(language), column.figures(language)
    if row is None or figures is None:
        return Text(ABSENT)
    from ssn_probe.report.measure_tables import DIGITS, digits_of, written

    if row["measure"] in DIGITS:  # no share
        alone = short or column.comparison
        return Text(written((figures[0], None, None) if alone else figures, digits_of(row["measure"])))
    return Text(f"{figures[0]:.1f}" if column.comparison else interval(row, short=short))


def matrix(arm: str, cells: Mapping[tuple[str, str], "Row"], measure: str) -> Table:
    """Rows: whose neurons; columns: the language evaluated; a cell: the change in points, its interval beneath."""
    from ssn_probe.report.measure_tables import DIGITS, SHORT
    from ssn_probe.report.sections.transfer_matrix import sides

    sources, targets = sides(cells)
    name = SHORT.get(measure, measure)
    what = name if measure in DIGITS else f"{name.removesuffix(', %')} in points"
    title = f"Change of {what}. Row: whose {arm}; column: the language evaluated."
    table = _titled(title, f"{arm} of")
    for target in targets:
        table.add_column(literal(target), justify="right")
    for source in sources:
        own = [_change(cells.get((source, target)), measure, source == target) for target in targets]
        table.add_row(literal(source), *own)
    return table


def _change(row: Mapping[str, Any] | None, measure: str, own: bool) -> Text:
    if row is None or row["delta"] is None:
        return Text(ABSENT)
    from ssn_probe.report.measure_tables import DIGITS, digits_of

    scale, digits = (1, digits_of(measure)) if measure in DIGITS else (100, 0)
    # Narrow, so that seven languages fit 80 columns.
    value, low, high = (round(scale * row[name], digits) + 0.0 for name in ("delta", "delta_low", "delta_high"))
    interval = f"\n[{low:.{digits}f},{high:.{digits}f}]"
    return Text.assemble((signed(value, digits), "bold" if own else ""), (interval, "dim"))


def interval(row: Mapping[str, Any], *, short: bool = False, digits: int = 0) -> str:
    """A share with its 95 % interval in per cent; `short`: the share alone."""
    value = f"{100 * row['value']:.1f}"
    return value if short else f"{value} [{100 * row['low']:.{digits}f}, {100 * row['high']:.{digits}f}]"


# ── neuron sets ──────────────────────────────────────────────────────────────────────────────────────────────────────


def sets_table(sets: Mapping[str, Any]) -> Group:
    """Several named sets, one under the other."""
    return Group(*(neuron_table(neurons, name) for name, neurons in sets.items()))


def charts_table(charts: Mapping[str, Any]) -> Table:
    """The charts of a run and what they say."""
    table = _titled(counted(len(charts), "chart"), "chart")
    table.add_column("what it shows")
    for name, chart in charts.items():
        table.add_row(name, literal(chart.title))
    return table


def neuron_table(neurons: Any, name: str = "") -> Table:
    """How many neurons a `NeuronSet` has per language and site, and each language's strongest."""
    from ssn_probe.neurons import EVERY

    rows = neurons.frame
    sites = [site for site in SITES if site in rows["site"].unique()]
    size = counted(rows.height, "neuron")
    where = "for every language" if neurons.language_free else f"in {counted(len(neurons.languages), 'language')}"
    table = _titled(f"{name}: {size} {where}" if name else f"{size} {where}", "language")
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
