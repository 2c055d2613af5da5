"""`report.md`: the answer first, then a table per question, then how it was made. For a pull request or an issue."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ssn_probe.report.conclusions import NONE, Beside, conclusions
from ssn_probe.report.learning_curves import CHART, CHART_TITLE, curve_section, trained_section
from ssn_probe.report.markdown_tables import section
from ssn_probe.report.measure_tables import TITLES, measure_section, reading
from ssn_probe.report.recipe_sets import beside_without_repeats, distinct_sets, same_sets_note, without_repeats
from ssn_probe.report.sections.against_planted_truth import truth_section
from ssn_probe.report.sections.counts_and_asr import counts_section
from ssn_probe.report.sections.how_it_was_made import gates_section, made_section, notes_section
from ssn_probe.report.sections.primary_tests import tests_section
from ssn_probe.report.sections.set_reliability import null_section, overlap_section, stability_section
from ssn_probe.report.sections.sets_after_training import found_again_section
from ssn_probe.report.sections.transfer_matrix import transfer_section
from ssn_probe.report.sections.where_neurons_are import mix_section, neurons_section
from ssn_probe.spec import ASR, OverRefusal, Recipe, Utility
from ssn_probe.text import markdown

TABLES_OF = {ASR: ("asr", "asr_paper", "invalid"), OverRefusal: ("over_refusal",), Utility: ("utility",)}
"""What the report shows of each measure that a recipe asks for."""


def report(
    recipe: Recipe,
    manifest: Mapping[str, Any],
    neurons: pl.DataFrame,
    overlap: pl.DataFrame | None,
    summary: pl.DataFrame | None,
    beside: Beside = NONE,
    *,
    curve: pl.DataFrame | None = None,
    again: pl.DataFrame | None = None,
) -> str:
    """The whole report as markdown. `beside`: what no arm shows; `curve`, `again`: the tables of those names."""
    parts = ["\n".join(f"{markdown(line)}\n" for line in manifest["answer"])]
    parts += [f"*{markdown(recipe.question)}*\n" if recipe.question.strip() else ""]
    if curve is not None:
        parts.append(f"{curve_section(curve, manifest['anchor'])}\n![{CHART_TITLE}]({CHART}.svg)\n")
    parts += [trained_section(manifest), found_again_section(again)]
    if summary is not None:
        parts += _measures(recipe, manifest, summary)
        parts += [tests_section(recipe, manifest, summary), transfer_section(recipe, summary)]
        parts += [counts_section(recipe, manifest, summary)]
    names = distinct_sets(recipe)
    beside = beside_without_repeats(beside, names)
    neurons = neurons.filter(pl.col("set").is_in(list(names)))
    parts += [conclusions(recipe, manifest, summary, beside), same_sets_note(names), truth_section(beside.truth)]
    parts += [null_section(beside.robustness), stability_section(beside.robustness)]
    parts += [neurons_section(neurons, manifest), mix_section(neurons, manifest)]
    parts += [overlap_section(without_repeats(overlap, names))]
    parts += [notes_section(manifest["warnings"]), gates_section(manifest), made_section(recipe, manifest)]
    return "\n".join(part for part in parts if part)


def _measures(recipe: Recipe, manifest: Mapping[str, Any], summary: pl.DataFrame) -> list[str]:
    """The tables of what the recipe asked to measure, and of the log-odds where they were read; after the first, how to
    read them.
    """
    asked = {name for measure in recipe.measures for name in TABLES_OF[type(measure)]}
    parts = []
    for name in TITLES:
        rows = summary.filter(measure=name)
        if rows.height:
            parts.append(measure_section(recipe, manifest["evaluated"], manifest["anchor"], rows))
        elif name in asked:
            parts.append(section(TITLES[name], "Not measured: no data."))
    return [*parts[:1], reading(recipe, summary), *parts[1:]] if parts else []
