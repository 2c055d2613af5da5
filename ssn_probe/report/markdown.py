"""`report.md`: the answer first, then a table per question, then how it was made. For a pull request or an issue."""

from collections.abc import Sequence

import polars as pl

from ssn_probe.report.charts.comparison_chart import COMPARISON_CHART_TITLE, compared
from ssn_probe.report.conclusions import conclusions
from ssn_probe.report.document import Bullets, Folded, Part, Picture, Section, Table
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.learning_curves import CHART_TITLE, curve_section, trained_section
from ssn_probe.report.markdown_tables import section, table
from ssn_probe.report.measure_tables import TITLES, measure_section, reading, text_note
from ssn_probe.report.recipe_sets import distinct_sets, same_sets_note, without_repeats
from ssn_probe.report.sections.against_planted_truth import truth_section
from ssn_probe.report.sections.comparison_sections import comparisons_section
from ssn_probe.report.sections.counts_and_asr import counts_section
from ssn_probe.report.sections.dose_table import doses_section
from ssn_probe.report.sections.double_dissociation import dissociation_section
from ssn_probe.report.sections.how_it_was_made import gates_section, made_section, notes_section
from ssn_probe.report.sections.judge_certificate import certificate_section
from ssn_probe.report.sections.other_judges import judges_section
from ssn_probe.report.sections.primary_tests import tests_section
from ssn_probe.report.sections.set_reliability import null_section, overlap_section, stability_section
from ssn_probe.report.sections.sets_after_training import found_again_section
from ssn_probe.report.sections.task_scores import tasks_section
from ssn_probe.report.sections.transfer_matrix import transfer_section
from ssn_probe.report.sections.where_neurons_are import mix_section, neurons_section
from ssn_probe.spec import ASR, InLanguage, LMEval, OverRefusal, Perplexity, Recipe, Utility
from ssn_probe.study.summary import IN_LANGUAGE, KL, LANGUAGE_LOG_ODDS, PERPLEXITY
from ssn_probe.text import markdown

TABLES_OF = {
    ASR: ("asr", "asr_paper", "invalid"),
    OverRefusal: ("over_refusal",),
    Utility: ("utility",),
    InLanguage: (IN_LANGUAGE, LANGUAGE_LOG_ODDS),
    Perplexity: (KL, PERPLEXITY),
    LMEval: (),
}
"""What the report shows of each measure that a recipe asks for."""


def report(run: FinishedRun) -> str:
    """The whole report as markdown."""
    recipe, manifest, findings = run.recipe, run.manifest, run.findings
    summary, anchor = findings.summary, findings.anchor
    parts = ["\n".join(f"{markdown(line)}\n" for line in manifest["answer"])]
    parts += [f"*{markdown(recipe.question)}*\n" if recipe.question.strip() else ""]
    if findings.curves is not None:
        parts.append(f"{curve_section(findings.curves, anchor)}\n![{CHART_TITLE}](plots/curves.svg)\n")
    parts += [trained_section(manifest), found_again_section(findings.found_again)]
    if summary is not None:
        parts += _measures(recipe, findings.evaluated, anchor, summary, findings.comparisons)
        crossed = dissociation_section(findings.dissociation, summary, findings.comparisons, anchor)
        picture = f"![{COMPARISON_CHART_TITLE}](plots/comparisons.svg)\n" if compared(recipe, findings) else ""
        parts += [crossed, doses_section(recipe, summary), comparisons_section(recipe, findings, picture)]
        parts += [certificate_section(manifest, summary)]
        parts += [tests_section(recipe, manifest, summary), transfer_section(recipe, summary)]
        parts += [tasks_section(findings.tasks), counts_section(recipe, manifest, summary)]
    names = distinct_sets(recipe)
    findings = without_repeats(findings, names)
    parts += [conclusions(recipe, findings), same_sets_note(names), truth_section(findings.truth)]
    parts += [null_section(findings.robustness), stability_section(findings.robustness)]
    parts += [
        as_markdown(one)
        for one in (neurons_section(findings.neurons, manifest), mix_section(findings.neurons, manifest))
    ]
    parts += [overlap_section(findings.overlap)]
    parts += [notes_section(manifest["warnings"]), gates_section(manifest), made_section(recipe, manifest)]
    parts += [judges_section(manifest)]
    return "\n".join(part for part in parts if part)


def _measures(
    recipe: Recipe,
    evaluated: Sequence[str],
    anchor: str | None,
    summary: pl.DataFrame,
    comparisons: pl.DataFrame | None,
) -> list[str]:
    """The tables of what was asked to be measured, and of the log-odds where read; how to read them after the first."""
    asked = {name for measure in recipe.measures for name in TABLES_OF[type(measure)]}
    parts = []
    for name in TITLES:
        rows = summary.filter(measure=name)
        if rows.height and name == KL:
            parts.append(f"{measure_section(recipe, evaluated, anchor, rows, comparisons)}\n{text_note(summary)}")
        elif rows.height:
            parts.append(measure_section(recipe, evaluated, anchor, rows, comparisons))
        elif name in asked:
            parts.append(section(TITLES[name], "Not measured: no data."))
    return [*parts[:1], reading(recipe, comparisons), *parts[1:]] if parts else []


def as_markdown(section: Section) -> str:
    """A section as markdown; its text is escaped."""
    parts = (f"{_part(part)}\n" for part in section.parts)
    return "\n".join([f"## {markdown(section.title)}\n", *parts])


def _part(part: Part) -> str:
    match part:
        case str():
            return markdown(part)
        case Table(head, rows, note):
            grid = table([markdown(cell) for cell in head], [[markdown(cell) for cell in row] for row in rows])
            return f"{grid}\n{markdown(note)}" if note else grid.rstrip("\n")
        case Bullets(lines):
            return "\n".join(f"- {markdown(line)}" for line in lines)
        case Picture(chart):
            return f"![{chart}](plots/{chart}.svg)"
        case Folded(title, parts):
            inner = "\n\n".join(_part(inner) for inner in parts)
            return f"<details><summary>{markdown(title)}</summary>\n\n{inner}\n\n</details>"
