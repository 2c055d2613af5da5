"""A judge's certificate in a report, and ASR corrected for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ssn_probe.report.certificate import CORRECTED, QUALITY, READING, corrected_rows, judge_of_asr, quality_rows
from ssn_probe.report.markdown_tables import section, table
from ssn_probe.study.judged_again import asr_rows
from ssn_probe.text import markdown


def certificate_section(manifest: Mapping[str, Any], summary: pl.DataFrame) -> str:
    """The certificate of the judge behind ASR, where there was one when the run was made."""
    judge = judge_of_asr(manifest)
    if judge is None or "certificate" not in judge or summary.filter(measure="asr").is_empty():
        return ""
    return section("ASR corrected for its judge", *certified_parts(judge, asr_rows(summary, manifest["anchor"])))


def certified_parts(judge: Mapping[str, Any], asr: Sequence[Mapping[str, Any]]) -> list[str]:
    """The corrected ASR, how to read it, and the certificate; nothing without one."""
    certificate = judge.get("certificate")
    if not certificate:
        return []
    against = f"{markdown(judge['name'])} against the labels of {markdown(certificate['data']['name'])}, refusals in %:"
    return [
        table(CORRECTED, _escaped(corrected_rows(asr, certificate), 2)),
        f"{READING}\n",
        f"{against}\n",
        table(QUALITY, _escaped(quality_rows(certificate), 1)),
    ]


def _escaped(rows: Sequence[Sequence[str]], names: int) -> list[list[str]]:
    """The rows with their first cells, which are names, as markdown."""
    return [[*map(markdown, row[:names]), *row[names:]] for row in rows]
