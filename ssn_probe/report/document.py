"""A report as values: sections of paragraphs, tables, lists and pictures. `markdown` and `page` write them.

All text in these values is plain: it may hold whatever a model or a file wrote. Who writes it, escapes it.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of cells below a head; the first column names the row. `note`: how to read it, below the table."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """Where a chart of the catalogue stands, by its name; nothing where the run has no such chart."""

    chart: str


@dataclass(frozen=True)
class Folded:
    """Parts that are shown when the reader asks for them."""

    title: str
    parts: tuple["Part", ...]


Part = str | Table | Bullets | Picture | Folded
"""A string is a paragraph."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    parts: tuple[Part, ...]

    @property
    def slug(self) -> str:
        """The name of the section in a link."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


MOST_ROWS, MOST_COLUMNS, FEW_ROWS = 12, 7, 3
"""A table that is larger is folded, unless it is what a reader came for; of few rows it may be a little wider."""


def folded_if_large(title: str, table: Table) -> Table | Folded:
    """The table where it can be read at once; else folded, below its title."""
    large = len(table.rows) > MOST_ROWS or len(table.head) > MOST_COLUMNS + (len(table.rows) <= FEW_ROWS)
    return Folded(title, (table,)) if large else table


def section(title: str, *parts: Part | None) -> Section:
    """A section of the parts that there are."""
    return Section(title, tuple(part for part in parts if part))
