"""A judge's certificate as a table, and the corrected ASR of a run."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from ssn_probe.report.certificate import cell, certificate_of, corrected_asr, kappa, quality
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec.display import literal


def certificate_table(certificate: Mapping[str, Any]) -> Table:
    """Precision, recall and specificity for refusals in %, kappa, and counts, per language."""
    title = f"{certificate['judge']} against {certificate['data']['name']}, refusals in %"
    table = Table(title=literal(title), title_justify="left", box=None, pad_edge=False)
    for header in ("language", "precision", "recall", "specificity", "κ", "n", "invalid", "unjudged"):
        table.add_column(header, justify="left" if header == "language" else "right", no_wrap=True)
    for language, counts in certificate["languages"].items():
        n = sum(count for name, count in counts.items() if name != "unjudged")
        agreed, invalid = kappa(counts), counts["refused_as_invalid"] + counts["other_as_invalid"]
        cells = [*(cell(*pair) for pair in quality(counts).values()), "–" if agreed is None else f"{agreed:.2f}"]
        table.add_row(literal(language), *cells, f"{n:,}", f"{invalid:,}", f"{counts.get('unjudged', 0):,}")
    return table


def corrected_tables(run: RunFolder, manifest: Mapping[str, Any], summary: Any) -> list[Table]:
    """ASR of every arm and language corrected for the judge, where the results folder keeps its certificate."""
    judges = manifest.get("judges", [])
    certificate = certificate_of(run.path.parent / "cache", judges[0]["sha256"]) if len(judges) == 1 else None
    if certificate is None:
        return []
    rows = {(row["arm"], row["language"], row["measure"]): row for row in summary.iter_rows(named=True)}
    table = Table(title="ASR corrected for the judge, %", title_justify="left", box=None, pad_edge=False)
    arms = list(dict.fromkeys(arm for arm, _, measure in rows if measure == "asr"))
    for header in ("language", *arms):
        table.add_column(literal(header), justify="left" if header == "language" else "right")
    for language, counts in certificate["languages"].items():
        if any((arm, language, "asr") in rows for arm in arms):
            table.add_row(literal(language), *(_cell(rows, arm, language, counts) for arm in arms))
    return [certificate_table(certificate), *([table] if table.row_count else [])]


def _cell(rows: Mapping[tuple[str, str, str], Mapping[str, Any]], arm: str, language: str, counts: Any) -> str:
    asr, invalid = (rows.get((arm, language, measure)) for measure in ("asr", "invalid"))
    if asr is None or invalid is None:
        return "–"
    found = corrected_asr(asr["value"], invalid["value"], asr["clusters"], counts)
    if found.value is None or found.low is None or found.high is None:
        return f"– ({found.why})"
    clipped = " (clipped)" if found.clipped else ""
    return f"{100 * found.value:.1f} [{100 * found.low:.0f}, {100 * found.high:.0f}]{clipped}"
