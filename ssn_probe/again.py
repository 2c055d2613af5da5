"""Are they still the same neurons? Sets that are identified again in a trained model, beside what they were before."""

from collections.abc import Mapping

import polars as pl

from ssn_probe.lab import Lab
from ssn_probe.neurons import EVERY, NEURON, NeuronSet
from ssn_probe.recipe import After, SetExpression
from ssn_probe.sets import evaluate
from ssn_probe.tables import table
from ssn_probe.text import listing, markdown, plain

SCHEMA = {
    "set": pl.String,
    "language": pl.String,
    "before": pl.Int64,
    "after": pl.Int64,
    "kept": pl.Int64,
    "jaccard": pl.Float64,
    "expected": pl.Float64,
}


def compared_again(
    lab: Lab, expressions: Mapping[str, SetExpression], sets: Mapping[str, NeuronSet]
) -> pl.DataFrame | None:
    """One row per set of the kind `set.after(…)` and language; None where there is no such set.

    `before` and `after` are sizes, `kept` the neurons in both, `jaccard` kept / either. `expected`: how many of `kept`
    independent draws of these sizes per (layer, site) would give, which knows nothing of common importance.
    """
    rows = [
        (name, *_compared(lab, evaluate(lab, node.neurons), sets[name], language))
        for name, node in expressions.items()
        if isinstance(node, After)
        for language in sets[name].languages
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row") if rows else None


def _compared(lab: Lab, before: NeuronSet, after: NeuronSet, language: str) -> tuple[str, int, int, int, float, float]:
    first, second = before.neurons(language).select(NEURON), after.neurons(language).select(NEURON)
    kept = first.join(second, on=NEURON).height
    either = first.height + second.height - kept
    widths = lab.widths()
    places = ["layer", "site"]
    counts = first.group_by(places).len().join(second.group_by(places).len(), on=places, suffix="_after").sort(places)
    expected = sum(n * m / widths[layer, site] for layer, site, n, m in counts.iter_rows())
    return language, first.height, second.height, kept, kept / either if either else float("nan"), float(expected)


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
