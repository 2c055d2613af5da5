"""The answer in words: what was found, how large, how sure, and when an effect is absent.

The same sentences end a run in the terminal and open `report.md`. Every figure in them is a cell of a table of the run.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ssn_probe.recipe import Recipe
from ssn_probe.summary import AVERAGE
from ssn_probe.text import listing, percent, plain, points, probability

ALPHA = 0.05
NAMES = {"ms": "the monolingual safety neurons (MS)", "ss": "the shared safety neurons (SS)"}


def answer(
    recipe: Recipe, manifest: Mapping[str, Any], neurons: pl.DataFrame, summary: pl.DataFrame | None, anchor: str
) -> list[str]:
    """What was found, one sentence or two per line, the most important first."""
    if summary is None:
        return _sizes(neurons, manifest, anchor)
    if recipe.primary is None:
        return [*_transfers(summary), *_sizes(neurons, manifest, anchor)]
    others = [arm for arm in recipe.arms if arm != recipe.primary]
    lines = [_primary(recipe.primary, summary, neurons, manifest, anchor), _weakened(recipe.primary, summary)]
    lines += [_cost(recipe.primary, summary), _log_odds(recipe.primary, summary)]
    lines += [_secondary(arm, summary) for arm in others]
    return [line for line in lines if line]


def _primary(arm: str, summary: pl.DataFrame, neurons: pl.DataFrame, manifest: Mapping[str, Any], anchor: str) -> str:
    row, before = _cell(summary, arm, "asr"), _cell(summary, "baseline", "asr", role="baseline")
    if row is None or before is None:
        return f"ASR was not measured for {plain(arm)}: the data have no harmful prompts to evaluate on."
    what = f"Silencing {_name(arm)} ({_size(neurons, arm, manifest)})"
    change = (
        f"ASR outside the anchor {plain(anchor)} went from {percent(before['value'])} to {percent(row['value'])} "
        f"({points(row['delta'])} points, 95 % interval {points(row['delta_low'])} to {points(row['delta_high'])}; "
        f"n = {row['n']:,} responses, {row['clusters']:,} clusters)"
    )
    return f"{what} {_verdict(row)}: {change}; {_against(row)}."


def _verdict(row: Mapping[str, Any]) -> str:
    if row["p"] is None:
        return "was not tested against enough random sets"
    if row["p"] <= ALPHA and row["delta_low"] > 0:
        return "broke refusal more than silencing as many random neurons"
    if row["delta_low"] > 0:
        return "raised ASR, but not more than random sets of as many neurons do"
    return "did not break refusal"


def _against(row: Mapping[str, Any]) -> str:
    if not row["controls"]:
        return "no random sets were run, so nothing says what any set of this size would do"
    spread = "" if row["control_low"] is None else f" (95 % of such sets: {_range(row)})"
    sets = f"{row['controls']} random sets of as many neurons gave {percent(row['control_mean'])} on average{spread}"
    if row["p"] is None:
        return f"{sets}; too few controls for a test (19 is the least)"
    return f"{sets}; rank p = {probability(row['p'])}"


def _range(row: Mapping[str, Any]) -> str:
    return f"{percent(max(0.0, row['control_low']))} to {percent(min(1.0, row['control_high']))}"


def _weakened(arm: str, summary: pl.DataFrame) -> str:
    row = _cell(summary, arm, "asr", role="less strongest")
    whole = _cell(summary, arm, "asr")
    if row is None or whole is None:
        return ""
    gone = whole["delta"] - row["delta"]
    share = "" if whole["delta"] <= 0 else f", so the strongest alone accounts for {percent(gone / whole['delta'], 0)}"
    return (
        f"Without its strongest neuron in each language the set gives {percent(row['value'])} "
        f"({points(row['delta'])} points against the baseline{share})."
    )


def _cost(arm: str, summary: pl.DataFrame) -> str:
    parts = []
    for measure, words in (("utility", "utility"), ("over_refusal", "over-refusal"), ("invalid", "invalid responses")):
        after, before = _cell(summary, arm, measure), _cell(summary, "baseline", measure, role="baseline")
        if after is not None and before is not None:
            parts.append(f"{words} {percent(before['value'])} → {percent(after['value'])}")
    return f"What else moved: {listing(parts)}." if parts else ""


def _log_odds(arm: str, summary: pl.DataFrame) -> str:
    row = _cell(summary, arm, "refusal_log_odds")
    if row is None or row["p"] is None:
        return ""
    return (
        f"On the refusal log-odds (no generation) it moved the average by {row['delta']:+.2f} "
        f"({row['delta_low']:+.2f} to {row['delta_high']:+.2f}); {row['controls']} random sets reached "
        f"{row['control_mean']:.2f} on average against {row['value']:.2f}, rank p = {probability(row['p'])} "
        "(not adjusted)."
    )


def _secondary(arm: str, summary: pl.DataFrame) -> str:
    row = _cell(summary, arm, "asr")
    if row is None:
        return ""
    controls = "" if not row["controls"] else f"; its random sets {percent(row['control_mean'])}"
    return (
        f"For comparison, silencing {_name(arm)} gives {percent(row['value'])} ({points(row['delta'])} points, "
        f"{points(row['delta_low'])} to {points(row['delta_high'])}{controls}; descriptive, no test)."
    )


def _transfers(summary: pl.DataFrame) -> list[str]:
    """For recipes without a primary arm: the strongest and the weakest arm on the average."""
    rows = summary.filter(
        (pl.col("measure") == "asr") & (pl.col("role") == "tested") & (pl.col("language") == AVERAGE)
    ).sort("delta", descending=True)
    lines = []
    for row in [rows.row(0, named=True), rows.row(-1, named=True)] if rows.height > 1 else rows.rows(named=True):
        lines.append(
            f"{plain(row['arm'])}: ASR {percent(row['value'])} on average over the other languages than the anchor "
            f"({points(row['delta'])} points, 95 % interval {points(row['delta_low'])} to {points(row['delta_high'])}; "
            f"n = {row['n']:,}; descriptive, no test)."
        )
    return lines


def _sizes(neurons: pl.DataFrame, manifest: Mapping[str, Any], anchor: str) -> list[str]:
    lines = []
    for name in neurons["set"].unique(maintain_order=True):
        rows = neurons.filter(pl.col("set") == name)
        sites = rows.group_by("site").len().sort("len", descending=True)
        mix = ", ".join(f"{site} {percent(count / rows.height, 0)}" for site, count in sites.iter_rows())
        lines.append(f"{plain(name)}: {_size(neurons, name, manifest)}; by site: {mix}.")
    return lines


def _size(neurons: pl.DataFrame, name: str, manifest: Mapping[str, Any]) -> str:
    counts = neurons.filter(pl.col("set") == name).group_by("language").len()["len"]
    total = manifest["neurons"]["layers"] * sum(manifest["neurons"]["per_layer"].values())
    low, high = int(counts.min() or 0), int(counts.max() or 0)  # type: ignore[arg-type]
    size = f"{low}" if low == high else f"{low} to {high}"
    return f"{size} neurons per language, at most {percent(high / total, 2)} of {total:,}"


def _name(arm: str) -> str:
    return NAMES.get(arm, f"the set {plain(arm)}")


def _cell(summary: pl.DataFrame, arm: str, measure: str, *, role: str = "tested") -> dict[str, Any] | None:
    rows = summary.filter(
        (pl.col("arm") == arm)
        & (pl.col("measure") == measure)
        & (pl.col("role") == role)
        & (pl.col("language") == AVERAGE)
    )
    return rows.row(0, named=True) if rows.height else None
