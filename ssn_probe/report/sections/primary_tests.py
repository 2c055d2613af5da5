"""What did the primary arm change in each language, and could a change have been missed?"""

import polars as pl

from ssn_probe.report.cells import change_cell, language_cell, p_value
from ssn_probe.report.conditions import Row, summary_row
from ssn_probe.report.document import Folded, Table
from ssn_probe.report.finished import FinishedRun
from ssn_probe.study.arms import BASELINE, TESTED, ArmName
from ssn_probe.study.summary import AVERAGE, untouched
from ssn_probe.text import counted


def primary_tests(run: FinishedRun) -> Folded | None:
    """Per language, what the primary arm changed, Holm's p, and the smallest change that would have shown."""
    recipe, findings = run.recipe, run.findings
    if recipe.primary is None or findings.summary is None:
        return None
    rows = findings.summary.filter(measure="asr", role=TESTED, arm=recipe.primary)
    by_language = {row["language"]: row for row in rows.rows(named=True)}
    if not by_language:
        return None
    body = tuple(
        (
            language_cell(language, findings.anchor),
            change_cell(row),
            p_value(row["p_holm"]),
            _would_have_shown(row, _before(findings.summary, recipe.primary, language, findings.anchor)),
        )
        for language in [*findings.evaluated, AVERAGE]
        if (row := by_language.get(language))
    )
    head = ("language", "change of ASR, points", "Holm p (McNemar)", "smallest change that would have shown")
    family = sum(row["p_holm"] is not None for row in by_language.values())
    title = f"Tests: {recipe.primary} against the baseline, and what could have been missed"
    return Folded(title, (Table(head, body, _explanation(family)),))


def _before(summary: pl.DataFrame, arm: str, language: str, anchor: str | None) -> float | None:
    """The ASR of the untouched model in a language, or on the average of the arm."""
    if language == AVERAGE:
        return untouched(summary, ArmName(arm), "asr", anchor)
    row = summary_row(summary, BASELINE, "asr", role=BASELINE, language=language)
    return None if row is None else row["value"]


def _would_have_shown(row: Row, before: float | None) -> str:
    if row["detectable"] is None or before is None:
        return "unknown: the difference has no spread"
    figure = f"{100 * row['detectable']:.1f}"
    possible = row["detectable"] <= max(before, 1 - before)
    return figure if possible else f"none: {figure} is more than any possible change"


def _explanation(family: int) -> str:
    adjusted = f"Holm's p adjusts it over the {counted(family, 'language')} of the average. " if family else ""
    return (
        "McNemar's exact test asks whether the arm turns failures into successes as often as the reverse on the same "
        f"prompts. {adjusted}It compares the arm with the baseline and says nothing about other sets: whether these "
        "neurons matter is the question of the rank test among sets found under exchanged labels. A dash: prompts "
        "share clusters, some lack a verdict in one arm, or the row is outside the average. The smallest change that "
        "would have shown, in points, is 2.8 standard errors of the difference as measured (80 % power, two-sided "
        ".05): a true change below it could have been missed, so a large p is no sign that there is none."
    )
