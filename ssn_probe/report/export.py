"""A measure per language as a file to publish: csv (tidy, every column), LaTeX (booktabs) or markdown.

The csv has the summary's own rows: one per language × arm × role, shares as fractions of 1. LaTeX and markdown have
languages down and arms across, in per cent with intervals. Names from recipes and data are escaped.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe import __version__
from ssn_probe.errors import ResultError, nearest
from ssn_probe.files import write_text
from ssn_probe.report.markdown import TITLES
from ssn_probe.report.markdown_tables import ABSENT, table
from ssn_probe.runs.folder import RunFolder
from ssn_probe.study.arms import BASELINE, TESTED
from ssn_probe.study.summary import AVERAGE, LOG_ODDS
from ssn_probe.text import markdown, plain

Figures = tuple[float, float | None, float | None]
"""A value and the interval around it, in the unit in which they are printed."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Languages down, arms across; names are as hostile as their sources."""

    title: str
    note: str
    columns: tuple[str, ...]
    languages: tuple[str, ...]
    cells: tuple[tuple[Figures | None, ...], ...]
    averaged: bool
    digits: int

    def lines(self, escape: Callable[[str], str], number: Callable[[float, int], str], absent: str) -> list[list[str]]:
        """The rows as texts, the average last where there is one."""
        return [
            [escape(language), *(_cell(one, self.digits, number, absent) for one in cells)]
            for language, cells in zip(self.languages, self.cells, strict=True)
        ]


def export(run: RunFolder, path: str | Path, measure: str = "asr") -> Path:
    """Writes a measure per language to `path`, in the format that its name ends in; returns the path.

    Raises ResultError for another ending, and where the run did not measure `measure`.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ResultError(f"cannot export to {path.name!r}", f"Give a name that ends in {', '.join(FORMATS)}.")
    summary = run.table("summary")
    known = list(summary["measure"].unique(maintain_order=True))
    if measure not in known:
        raise ResultError(f"{run.name} has no measure {measure!r}", nearest(measure, known) if known else None)
    write_text(path, FORMATS[path.suffix](run, summary.filter(measure=measure), measure))
    return path


def grid(run: RunFolder, rows: pl.DataFrame, measure: str) -> Grid:
    """The untouched model, every tested arm, and what random sets of the same size give; the average last."""
    manifest = run.manifest()
    rows = rows.filter(pl.col("role").is_in([BASELINE, TESTED]))
    cells = {(row["language"], row["arm"]): row for row in rows.iter_rows(named=True)}
    controlled = set(rows.filter(pl.col("controls").is_not_null())["arm"])
    columns = [
        (arm, random)
        for arm in rows["arm"].unique(maintain_order=True)
        for random in ((False, True) if arm in controlled else (False,))
    ]
    present = set(rows["language"])
    languages = [language for language in (*manifest["evaluated"], AVERAGE) if language in present]
    rate = measure != LOG_ODDS
    return Grid(
        title=TITLES[measure],
        note=_note(manifest, rows, rate),
        columns=tuple(f"{arm} random" if random else arm for arm, random in columns),
        languages=tuple(_language(language, manifest["anchor"]) for language in languages),
        cells=tuple(
            tuple(_figures(cells.get((language, arm)), random, rate) for arm, random in columns)
            for language in languages
        ),
        averaged=AVERAGE in present,
        digits=1 if rate else 2,
    )


def _figures(row: Mapping[str, Any] | None, random: bool, rate: bool) -> Figures | None:
    names = ("control_mean", "control_low", "control_high") if random else ("value", "low", "high")
    if row is None or row[names[0]] is None:
        return None
    value, low, high = (_figure(row[name], rate) for name in names)
    assert value is not None
    return value, low, high


def _figure(value: float | None, rate: bool) -> float | None:
    """In per cent, within 0 and 100, or a log-odds."""
    return value if value is None or not rate else 100 * min(1.0, max(0.0, value))


def _language(language: str, anchor: str | None) -> str:
    if language == AVERAGE:
        return AVERAGE if anchor is None else f"{AVERAGE} without {anchor}"
    return f"{language} (anchor)" if language == anchor else language


def _note(manifest: Mapping[str, Any], rows: pl.DataFrame, rate: bool) -> str:
    unit = "In per cent; in" if rate else "In"
    counts = " or ".join(f"{count:,}" for count in rows["controls"].drop_nulls().unique().sort())
    random = f" Random: the mean of {counts} random sets of as many neurons, and where 95 % of such sets fall."
    return (
        f"{unit} brackets: 95 % intervals.{random if counts else ''} {ABSENT}: not measured. "
        f"Model {manifest['model']['name']}, recipe {manifest['recipe']}, key {manifest['key'][:16]}."
    )


# ── formats ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _csv(_run: RunFolder, rows: pl.DataFrame, _measure: str) -> str:
    return rows.write_csv()


def _markdown(run: RunFolder, rows: pl.DataFrame, measure: str) -> str:
    found = grid(run, rows, measure)
    head = ["language", *(markdown(column) for column in found.columns)]
    body = found.lines(markdown, _signed, ABSENT)
    return f"**{found.title}**\n\n{table(head, body)}\n{markdown(found.note)}\n"


def _latex(run: RunFolder, rows: pl.DataFrame, measure: str) -> str:
    found = grid(run, rows, measure)
    body = [_latex_row(line) for line in found.lines(latex, _math, "--")]
    if found.averaged:
        body.insert(-1, "\\midrule")
    lines = [
        f"% {found.title}. {plain(found.note)}",
        f"% Written by ssn-probe {__version__}; needs \\usepackage{{booktabs}}.",
        f"\\begin{{tabular}}{{l{'r' * len(found.columns)}}}",
        "\\toprule",
        _latex_row(["language", *(latex(column) for column in found.columns)]),
        "\\midrule",
        *body,
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


FORMATS: Mapping[str, Callable[[RunFolder, pl.DataFrame, str], str]] = {
    ".csv": _csv,
    ".tex": _latex,
    ".md": _markdown,
}
"""How a table is written, by the ending of the file's name."""


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _cell(figures: Figures | None, digits: int, number: Callable[[float, int], str], absent: str) -> str:
    if figures is None:
        return absent
    value, low, high = figures
    shown = number(value, digits)
    return shown if low is None or high is None else f"{shown} [{number(low, digits)}, {number(high, digits)}]"


def _signed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"


def _math(value: float, digits: int) -> str:
    """A number whose minus is one: in text, LaTeX would set a hyphen."""
    text = _signed(value, digits)
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


def latex(text: str) -> str:
    """`text` as literal text in a LaTeX paragraph or table cell."""
    return re.sub(r"""[\\~^<>|"'`&%$#_{}\[\]*,?!-]""", lambda found: _LATEX[found[0]], plain(text))
