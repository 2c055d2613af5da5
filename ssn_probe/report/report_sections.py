"""The order of a report: its sections, which report.md and report.html share, after the answer and the claims."""

from collections.abc import Iterator
from dataclasses import replace

from ssn_probe.report.conclusions import described_section, never_section
from ssn_probe.report.document import Section
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.learning_curves import curve_section, trained_section
from ssn_probe.report.recipe_sets import distinct_sets, same_sets_note, without_repeats
from ssn_probe.report.sections.against_planted_truth import truth_section
from ssn_probe.report.sections.comparison_sections import comparisons_section
from ssn_probe.report.sections.counts_and_asr import counts_sections
from ssn_probe.report.sections.dose_table import doses_section
from ssn_probe.report.sections.double_dissociation import dissociation_section
from ssn_probe.report.sections.how_it_was_made import gates_sections, made_section, notes_section
from ssn_probe.report.sections.judge_certificate import certificate_section
from ssn_probe.report.sections.measures import asr_section, measures_section
from ssn_probe.report.sections.other_judges import judges_section
from ssn_probe.report.sections.set_reliability import null_section, overlap_section, stability_section
from ssn_probe.report.sections.sets_after_training import found_again_section
from ssn_probe.report.sections.task_scores import tasks_section
from ssn_probe.report.sections.transfer_matrix import transfer_sections
from ssn_probe.report.sections.verified_neurons import verification_section
from ssn_probe.report.sections.where_neurons_are import neurons_section


def sections_of(run: FinishedRun) -> list[Section]:
    """What a report of the run says, in order."""
    sections = [*_leading(run), *_effects(run), *_of_sets(run), *_training(run), *_how(run)]
    return [section for section in sections if section is not None]


def _leading(run: FinishedRun) -> Iterator[Section | None]:
    """The main table, what it describes, what it cannot show, and what to know before trusting it."""
    crossed = _crossed(run)
    yield from crossed if run.recipe.primary is None else ()
    yield asr_section(run)
    distinct = replace(run, findings=without_repeats(run.findings, distinct_sets(run.recipe)))
    yield described_section(distinct)
    yield never_section(distinct)
    yield notes_section(run.manifest["warnings"])
    yield measures_section(run)
    yield from crossed if run.recipe.primary is not None else ()


def _crossed(run: FinishedRun) -> list[Section | None]:
    """Sets against behaviours or languages: what a recipe without a primary arm is about."""
    findings = run.findings
    if findings.summary is None:
        return []
    crossed = dissociation_section(findings.dissociation, findings.summary, findings.comparisons, findings.anchor)
    return [crossed, *transfer_sections(run.recipe, findings.summary)]


def _effects(run: FinishedRun) -> Iterator[Section | None]:
    recipe, findings = run.recipe, run.findings
    yield comparisons_section(recipe, findings)
    if findings.summary is not None:
        yield doses_section(recipe, findings.summary, findings.anchor)
    if findings.curves is not None:
        yield curve_section(findings.curves, findings.anchor)


def _of_sets(run: FinishedRun) -> Iterator[Section | None]:
    """What the sets are; without arms, where they are comes first. The first section says which names are one set."""
    names = distinct_sets(run.recipe)
    findings = without_repeats(run.findings, names)
    found = [
        *(null_section(findings.robustness), stability_section(findings.robustness)),
        verification_section(findings.verification),
        *(truth_section(findings.truth), overlap_section(findings.overlap)),
        neurons_section(findings.neurons, run.manifest),
    ]
    ordered = found if run.recipe.arms else reversed(found)
    first, *others = (section for section in ordered if section is not None)
    note = same_sets_note(names)
    yield replace(first, parts=(note, *first.parts)) if note else first
    yield from others
    if findings.summary is not None:
        yield from counts_sections(run.recipe, run.manifest, findings.summary)


def _training(run: FinishedRun) -> Iterator[Section | None]:
    yield trained_section(run.manifest)
    yield found_again_section(run.findings.found_again)


def _how(run: FinishedRun) -> Iterator[Section | None]:
    """The judge, tasks of others, and how the run was made."""
    if run.findings.summary is not None:
        yield certificate_section(run.manifest, run.findings.summary)
    yield tasks_section(run.findings.tasks)
    yield from gates_sections(run.manifest)
    yield made_section(run.recipe, run.manifest)
    yield judges_section(run.manifest)
