"""The order of a report: its sections, which report.md and report.html share."""

from collections.abc import Iterator

from ssn_probe.report.document import Section
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.sections.where_neurons_are import mix_section, neurons_section


def sections_of(run: FinishedRun) -> list[Section]:
    """What a report of the run says, in order."""
    return list(_sections(run))


def _sections(run: FinishedRun) -> Iterator[Section]:
    yield neurons_section(run.findings.neurons, run.manifest)
    yield mix_section(run.findings.neurons, run.manifest)
