"""Are they still the same neurons after training? For the answer and the report."""

import polars as pl

from ssn_probe.neurons import EVERY
from ssn_probe.report.markdown_tables import table
from ssn_probe.text import listing, markdown, plain


def again_lines(found: pl.DataFrame | None) -> list[str]:
    """One line per set, for the answer."""
    if found is None:
        return []
    return [
        f"{plain(str(name))}: of the neurons before training, {listing(_kept(rows))} are chosen again (by chance about "
        f"{rows['expected'].mean():.1f} would be)."
        for (name,), rows in found.group_by("set", maintain_order=True)
    ]


def _kept(rows: pl.DataFrame) -> list[str]:
    return [
        f"{kept} of {before}{'' if language == EVERY else f' in {plain(language)}'}"
        for language, before, kept in rows.select("language", "before", "kept").iter_rows()
    ]


def again_section(found: pl.DataFrame | None) -> str:
    """The same as a table of the report."""
    if found is None:
        return ""
    body = [
        [
            markdown(row["set"]),
            "every language" if row["language"] == EVERY else markdown(row["language"]),
            *(str(row[name]) for name in ("before", "after", "kept")),
            f"{row['jaccard']:.2f}",
            f"{row['expected']:.2f}",
        ]
        for row in found.rows(named=True)
    ]
    header = ["set", "language", "before", "after", "in both", "Jaccard", "expected by chance"]
    note = (
        "The same expression, evaluated in the model as it is and in the one that training makes. Expected by chance: "
        "independent draws of as many neurons per layer and site; common importance alone gives more. How far other "
        "prompts would change the set is the split-half Jaccard below.\n"
    )
    return f"## The sets before and after training\n\n{table(header, body)}\n{note}"
