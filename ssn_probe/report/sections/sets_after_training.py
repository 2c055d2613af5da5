"""Are they still the same neurons after training? A sentence per set for the answer, a table for the report."""

import polars as pl

from ssn_probe.report.cells import number, set_language_cell
from ssn_probe.report.document import Section, Table, section
from ssn_probe.text import plain


def found_again_lines(found: pl.DataFrame | None) -> list[str]:
    """One sentence per set."""
    if found is None:
        return []
    return [
        f"{plain(str(name))}: of the neurons before training, {rows['kept'].sum():,} of {rows['before'].sum():,} are "
        f"chosen again (by chance about {rows['expected'].sum():.1f} would be)."
        for (name,), rows in found.group_by("set", maintain_order=True)
    ]


def found_again_section(found: pl.DataFrame | None) -> Section | None:
    """Sizes before and after, what is in both, and what chance gives."""
    if found is None:
        return None
    body = tuple(
        (
            row["set"],
            set_language_cell(row["language"]),
            *(str(row[name]) for name in ("before", "after", "kept")),
            *(number(row[name]) for name in ("jaccard", "expected")),
        )
        for row in found.rows(named=True)
    )
    head = ("set", "language", "before", "after", "in both", "Jaccard", "expected by chance")
    note = (
        "The same expression, evaluated in the model as it is and in the model that training makes. Expected by "
        "chance: independent draws of as many neurons per layer and site; common importance alone gives more. How far "
        "other prompts would change the set is its split-half Jaccard below."
    )
    return section("The sets before and after training", Table(head, body, note))
