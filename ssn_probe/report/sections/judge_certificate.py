"""A judge's certificate in a report, and ASR corrected for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ssn_probe.report.certificate import CORRECTED, QUALITY, READING, corrected_rows, judge_of_asr, quality_rows
from ssn_probe.report.document import Part, Picture, Section, Table, folded_if_large, section
from ssn_probe.study.judged_again import asr_rows


def certificate_section(manifest: Mapping[str, Any], summary: pl.DataFrame) -> Section | None:
    """The certificate of the judge behind ASR, where there was one when the run was made."""
    judge = judge_of_asr(manifest)
    if judge is None or "certificate" not in judge or summary.filter(measure="asr").is_empty():
        return None
    return section(
        "ASR corrected for its judge", Picture("judge"), *certified_parts(judge, asr_rows(summary, manifest["anchor"]))
    )


def certified_parts(judge: Mapping[str, Any], asr: Sequence[Mapping[str, Any]]) -> list[Part]:
    """The corrected ASR, how to read it, and the certificate; nothing without one."""
    certificate = judge.get("certificate")
    if not certificate:
        return []
    corrected, certified = (
        tuple(map(tuple, rows)) for rows in (corrected_rows(asr, certificate), quality_rows(certificate))
    )
    against = f"{judge['name']} against the labels of {certificate['data']['name']}, refusals in %"
    return [
        folded_if_large("Corrected ASR per arm and language", Table(CORRECTED, corrected)),
        READING,
        folded_if_large(f"The certificate: {against}", Table(QUALITY, certified)),
    ]
