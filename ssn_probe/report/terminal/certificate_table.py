"""A judge's certificate as a table, and the corrected ASR of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from ssn_probe.report.certificate import (
    CORRECTED,
    QUALITY,
    certificate_of,
    corrected_rows,
    judge_of_asr,
    quality_rows,
)
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec.display import literal
from ssn_probe.study.judged_again import asr_rows


def certificate_table(certificate: Mapping[str, Any]) -> Table:
    """Precision, recall and specificity for refusals in %, kappa, and counts, per language."""
    title = f"{certificate['judge']} against {certificate['data']['name']}, refusals in %"
    return _table(title, QUALITY, quality_rows(certificate), left=1)


def corrected_tables(run: RunFolder, manifest: Mapping[str, Any], summary: Any) -> list[Table]:
    """ASR of every arm and language corrected for the judge: by the certificate that the results folder keeps now."""
    judge = judge_of_asr(manifest)
    if judge is None:
        return []
    kept = certificate_of(run.path.parent / "cache", judge["sha256"])
    later = kept is not None and kept != judge.get("certificate")
    return certified_tables(
        {**judge, "certificate": kept} if later else judge, asr_rows(summary, manifest.get("anchor")), later
    )


def certified_tables(judge: Mapping[str, Any], asr: Sequence[Mapping[str, Any]], later: bool = False) -> list[Table]:
    """The corrected ASR and the certificate of a judge; `later`: than the run's report."""
    certificate = judge.get("certificate")
    if not certificate or not asr:
        return []
    since = " (certified since the report)" if later else ""
    title = f"ASR corrected for {judge['name']}{since}"
    rows = [row[:-1] for row in corrected_rows(asr, certificate, digits=0)]
    return [_table(title, CORRECTED[:-1], rows, left=2), certificate_table(certificate)]


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> Table:
    """A table without the columns that say 0 throughout."""
    table = Table(title=literal(title), title_justify="left", box=None, pad_edge=False)
    columns = [(name, [row[place] for row in rows]) for place, name in enumerate(header)]
    shown = [(name, cells) for name, cells in columns if set(cells) != {"0"}]
    for place, (name, cells) in enumerate(shown):
        # A header may wrap, an interval may not.
        widest = max(map(len, cells), default=0)
        table.add_column(literal(name), justify="left" if place < left else "right", min_width=widest)
    for row in zip(*(cells for _, cells in shown), strict=True):
        table.add_row(*map(literal, row))
    return table
