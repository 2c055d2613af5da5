"""A measure per language as a file to publish: csv (tidy, every column), LaTeX (booktabs) or markdown.

The csv has the summary's own rows: one per language × arm × role, shares as fractions of 1. LaTeX and markdown have
languages down and arms across, in per cent with intervals. Names from recipes and data are escaped: a spreadsheet takes
none for a formula, LaTeX none for a command.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe import __version__
from ssn_probe.errors import ResultError, nearest
from ssn_probe.files import write_text
from ssn_probe.report.cells import ABSENT, language_cell
from ssn_probe.report.conditions import by_condition, leaves_out_its_own
from ssn_probe.report.document import Table
from ssn_probe.report.markdown import part_as_markdown
from ssn_probe.report.measure_tables import OWN_LEFT_OUT, TITLES, Column, columns_of, digits_of, plain_number, written
from ssn_probe.report.sections.task_scores import NOTE as TASK_NOTE
from ssn_probe.report.sections.task_scores import TITLE as TASK_TITLE
from ssn_probe.report.sections.task_scores import task_grid
from ssn_probe.runs.folder import RunFolder
from ssn_probe.runs.integrity import showing
from ssn_probe.study.arms import BASELINE, TESTED
from ssn_probe.study.comparisons import COMPARISONS
from ssn_probe.study.summary import AVERAGE
from ssn_probe.text import plain

TASKS = "lm_eval"
"""The scores of lm-eval are exported under the name of their table."""
Number = Callable[[float, int], str]


def export(run: RunFolder, path: str | Path, measure: str = "asr") -> Path:
    """Writes a measure per language to `path`, in the format that its name ends in; returns the path.

    Raises ResultError for another ending, and where the run did not measure `measure`.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ResultError(f"cannot export to {path.name!r}", f"Give a name that ends in {', '.join(FORMATS)}.")
    with showing(run):
        text = _text(run, path.suffix, measure)
    write_text(path, text)
    return path


def _text(run: RunFolder, suffix: str, measure: str) -> str:
    if measure == TASKS:
        return _tasks(run, suffix)
    summary = run.table("summary")
    known = list(summary["measure"].unique(maintain_order=True))
    if measure not in known:
        hint = nearest(measure, known) if known else "Its summary is empty."
        raise ResultError(f"{run.name} has no measure {measure!r}", hint)
    return FORMATS[suffix](run, summary.filter(measure=measure), measure)


def _beside(run: RunFolder, measure: str) -> pl.DataFrame | None:
    known = (run.path / "comparisons.parquet").is_file()
    return run.table("comparisons").filter(measure=measure) if known else None


def _tasks(run: RunFolder, suffix: str) -> str:
    """The scores of lm-eval, whose table has tasks down."""
    scores = run.table(TASKS)
    if suffix == ".csv":
        return csv(scores)
    head, body = task_grid(scores)
    if suffix == ".md":
        return f"**{TASK_TITLE}**\n\n{part_as_markdown(Table(tuple(head), tuple(map(tuple, body)), TASK_NOTE))}\n"
    lines = [_latex_row([latex(cell).replace("±", "$\\pm$") for cell in row]) for row in body]
    return _tabular(f"{TASK_TITLE}. {TASK_NOTE}", head, lines, 3)


def _note(manifest: Mapping[str, Any], columns: Sequence[Column]) -> str:
    sets = {
        f"{column.title}: the mean of {COMPARISONS[column.comparison].counted(row['sets'])}, and where 95 % fall."
        for column in columns
        if column.comparison is not None
        for row in column.rows.values()
    }
    own = any(leaves_out_its_own(column.rows, manifest["anchor"]) for column in columns)
    return (
        f"In brackets: 95 % intervals. {f'{OWN_LEFT_OUT} ' if own else ''}"
        f"{' '.join([*sorted(sets), ABSENT])}: not measured. "
        f"Model {manifest['model']['name']}, recipe {manifest['recipe']}, key {manifest['key'][:16]}."
    )


# ── formats ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _csv(_run: RunFolder, rows: pl.DataFrame, _measure: str) -> str:
    return csv(rows)


def _body(
    run: RunFolder, rows: pl.DataFrame, columns: Sequence[Column], write: tuple[Number, str]
) -> list[tuple[str, ...]]:
    """A line per language, the average last where there is one; the formats differ in how they `write`."""
    number, absent = write
    manifest, present, digits = run.manifest(), set(rows["language"]), digits_of(rows["measure"][0])

    def cell(column: Column, language: str) -> str:
        figures = column.figures(language)
        return absent if figures is None else written(figures, digits, number)

    return [
        (language_cell(language, manifest["anchor"]), *(cell(column, language) for column in columns))
        for language in (*manifest["evaluated"], AVERAGE)
        if language in present
    ]


def _markdown(run: RunFolder, rows: pl.DataFrame, measure: str) -> str:
    columns = _columns(rows, _beside(run, measure))
    head = ("language", *(column.title for column in columns))
    body = _body(run, rows, columns, (plain_number, ABSENT))
    grid = Table(head, tuple(body), _note(run.manifest(), columns))
    return f"**{TITLES[measure]}**\n\n{part_as_markdown(grid)}\n"


def _latex(run: RunFolder, rows: pl.DataFrame, measure: str) -> str:
    columns = _columns(rows, _beside(run, measure))
    lines = _body(run, rows, columns, (_math, "--"))
    body = [_latex_row((latex(name), *cells)) for name, *cells in lines]
    if AVERAGE in set(rows["language"]):
        body.insert(-1, "\\midrule")
    head = ["language", *(column.title for column in columns)]
    return _tabular(f"{TITLES[measure]}. {plain(_note(run.manifest(), columns))}", head, body, 1)


def _tabular(note: str, head: Sequence[str], body: Sequence[str], texts: int) -> str:
    """A booktabs table under a note; the first `texts` columns are aligned on the left."""
    latin = all(character < "\u0250" for line in (*head, *body) for character in line)
    engine = "" if latin else ", and XeLaTeX or LuaLaTeX with a font that has these names"
    lines = [
        f"% {note}",
        f"% Written by ssn-probe {__version__}; needs \\usepackage{{booktabs}}{engine}.",
        f"\\begin{{tabular}}{{{'l' * texts}{'r' * (len(head) - texts)}}}",
        "\\toprule",
        _latex_row([latex(title) for title in head]),
        "\\midrule",
        *body,
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _columns(rows: pl.DataFrame, beside: pl.DataFrame | None) -> list[Column]:
    """The untouched model, every tested arm, and the first comparison beside it."""
    return columns_of(by_condition(rows.filter(pl.col("role").is_in([BASELINE, TESTED]))), beside)


FORMATS: Mapping[str, Callable[[RunFolder, pl.DataFrame, str], str]] = {
    ".csv": _csv,
    ".tex": _latex,
    ".md": _markdown,
}
"""How a table is written, by the ending of the file's name."""


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _math(value: float, digits: int) -> str:
    """A number with a true minus sign: in text, LaTeX would set a hyphen."""
    text = plain_number(value, digits)
    return f"${text}$" if text.startswith("-") else text


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"{{{character}}}" for character in '[]*-,?!"'},
}
"""How each character that means something to LaTeX is written.

Those in braces mean something beside others: `[` and `*` after a row's `\\\\`, and ligatures such as `--` and ``?` ``.
"""


_STARTS_A_FORMULA = r"[=+\-@＝﹦⁼₌＋﹢⁺₊－﹣⁻₋−＠﹫]"
"""What a spreadsheet takes for the start of a formula, and what it may turn into that."""
_IN_FRONT = r"[\s\p{C}\"'`]*"
_FORMULA = rf"(^|[;\t\r\n])({_IN_FRONT})({_STARTS_A_FORMULA})"
"""At the start of a cell, or of what is one where semicolons, tabs or line ends separate cells."""


def csv(table: pl.DataFrame) -> str:
    """`table` as csv in which no text is a formula, or controls a terminal: an apostrophe stands before what would be.

    Numbers stay as they are, also negative ones.
    """
    text = pl.col(pl.String).str.replace_all(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "")
    return table.with_columns(text.str.replace_all(_FORMULA, "$1$2'$3").str.replace(r"^[\t\r\n]", "'$0")).write_csv()


def latex(text: str) -> str:
    """`text` as literal text in a LaTeX paragraph or table cell."""
    return plain(text).translate(str.maketrans(_LATEX))
