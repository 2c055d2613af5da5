"""A run's tables without the texts that are not passed on."""

from collections.abc import Mapping
from dataclasses import replace

import polars as pl

from ssn_probe.report.page.sample_responses import BEGINNING
from ssn_probe.study.findings import Findings

TEXTS = ("response", "reason", "error")
"""Columns that hold what a model or a judge wrote, or the words of an error."""


def redacted(table: pl.DataFrame, *, why: str | None, whole: bool) -> pl.DataFrame:
    """Of harmful prompts no text, of others the beginning; none at all where there is a `why`. `whole`: all of it."""
    texts = [name for name in TEXTS if name in table.columns]
    if (whole and why is None) or not texts:
        return table
    if why is not None or "context" not in table.columns:
        return table.with_columns(pl.lit(None, pl.String).alias(name) for name in texts)
    kept = pl.when(pl.col("context") != "harmful")
    return table.with_columns(kept.then(pl.col(name).str.slice(0, BEGINNING)).alias(name) for name in texts)


def redacted_findings(findings: Findings, *, why: str | None, whole: bool) -> Findings:
    """The same for the responses that a page shows."""
    if findings.samples is None:
        return findings
    return replace(findings, samples=redacted(findings.samples, why=why, whole=whole))


def redacted_tables(tables: Mapping[str, pl.DataFrame], *, why: str | None, whole: bool) -> dict[str, pl.DataFrame]:
    return {name: redacted(table, why=why, whole=whole) for name, table in tables.items()}
