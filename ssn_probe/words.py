"""The answer in words: what was found, how large, how sure, and when an effect was not shown.

The same sentences end a run in the terminal and open `report.md`. Every figure in them is a cell of a table of the run.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ssn_probe.neurons import SITES
from ssn_probe.recipe import Recipe, SafetyNeurons, Shared
from ssn_probe.summary import AVERAGE
from ssn_probe.text import listing, percent, plain, points, probability

ALPHA = 0.05


def answer(
    recipe: Recipe, manifest: Mapping[str, Any], neurons: pl.DataFrame, summary: pl.DataFrame | None, anchor: str | None
) -> list[str]:
    """What was found, one sentence or two per line, the most important first."""
    if summary is None:
        return _sizes(recipe, manifest, neurons)
    if recipe.primary is None:
        return [_baseline(summary, anchor), *_descriptive(recipe, summary), *_sizes(recipe, manifest, neurons)]
    others = [arm for arm in recipe.arms if arm != recipe.primary]
    lines = [_primary(recipe, manifest, summary, anchor), _weakened(recipe.primary, summary)]
    lines += [_cost(recipe.primary, summary), _log_odds(recipe.primary, summary)]
    lines += [_secondary(recipe, arm, summary) for arm in others]
    return [line for line in lines if line]


def _primary(recipe: Recipe, manifest: Mapping[str, Any], summary: pl.DataFrame, anchor: str | None) -> str:
    arm = str(recipe.primary)
    row, before = _cell(summary, arm, "asr"), _cell(summary, "baseline", "asr", role="baseline")
    if row is None or before is None:
        return f"ASR {_where(anchor)} was not measured for {plain(arm)}: there are no judged harmful prompts."
    what = f"Silencing {_name(recipe, arm)} ({_size(recipe, manifest, arm, anchor)})"
    change = (
        f"ASR {_where(anchor)} went from {percent(before['value'])} to {percent(row['value'])} "
        f"({_change(row)}; n = {row['n']:,} responses, {row['clusters']:,} clusters)"
    )
    return f"{what} {_verdict(row)}: {change}; {_against(row)}."


def _where(anchor: str | None) -> str:
    return "over all languages" if anchor is None else f"outside the anchor {plain(anchor)}"


def _change(row: Mapping[str, Any]) -> str:
    return f"{points(row['delta'])} points, 95 % interval {points(row['delta_low'])} to {points(row['delta_high'])}"


def _verdict(row: Mapping[str, Any]) -> str:
    """Failing to reject is no proof of absence: the words stay with what was shown, the interval says how much."""
    if row["p"] is None:
        return "was not tested against enough random sets"
    if row["p"] <= ALPHA and row["delta_low"] > 0:
        return "broke refusal more than silencing as many random neurons"
    if row["delta_low"] > 0:
        return "raised ASR, but was not shown to do so more than random sets of as many neurons"
    return "was not shown to break refusal"


def _against(row: Mapping[str, Any]) -> str:
    if not row["controls"]:
        return "no random sets were run, so nothing says what any set of this size would do"
    spread = "" if row["control_low"] is None else f" (95 % of such sets: {_range(row)})"
    one = row["controls"] == 1
    sets = f"{row['controls']} random set{'' if one else 's'} of as many neurons gave {percent(row['control_mean'])}"
    sets += f"{'' if one else ' on average'}{spread}"
    if row["p"] is None:
        return f"{sets}; too few controls for a test (19 is the least)"
    return f"{sets}; rank p = {probability(row['p'])}"


def _range(row: Mapping[str, Any]) -> str:
    return f"{percent(max(0.0, row['control_low']))} to {percent(min(1.0, row['control_high']))}"


def _weakened(arm: str, summary: pl.DataFrame) -> str:
    row, whole = _cell(summary, arm, "asr", role="less strongest"), _cell(summary, arm, "asr")
    if row is None or whole is None:
        return ""
    return (
        f"Without its strongest neuron in each language the set gives {percent(row['value'])} ({_change(row)}; "
        f"the whole set {points(whole['delta'])})."
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
        f"({row['delta_low']:+.2f} to {row['delta_high']:+.2f}) to {row['value']:.2f}; {row['controls']} random sets "
        f"left it at {row['control_mean']:.2f} on average, rank p = {probability(row['p'])} (not adjusted)."
    )


def _secondary(recipe: Recipe, arm: str, summary: pl.DataFrame) -> str:
    row = _cell(summary, arm, "asr")
    if row is None:
        return ""
    controls = "" if not row["controls"] else f"; its random sets {percent(row['control_mean'])}"
    return (
        f"For comparison, silencing {_name(recipe, arm)} gives {percent(row['value'])} ({_change(row)}{controls}; "
        "descriptive, no test)."
    )


def _baseline(summary: pl.DataFrame, anchor: str | None) -> str:
    row = _cell(summary, "baseline", "asr", role="baseline")
    if row is None:
        return "ASR was not measured."
    interval = f"95 % interval {100 * row['low']:.1f} to {100 * row['high']:.1f}"
    return f"Untouched, the model's ASR {_where(anchor)} is {percent(row['value'])} ({interval}; n = {row['n']:,})."


def _descriptive(recipe: Recipe, summary: pl.DataFrame) -> list[str]:
    """For recipes without a primary arm: the largest and the smallest change on the average."""
    of_arms = (pl.col("role") == "tested") & (pl.col("language") == AVERAGE) & (pl.col("measure") == "asr")
    rows = summary.filter(of_arms).sort("delta", descending=True).rows(named=True)
    return [
        f"{plain(row['arm'])}: ASR {percent(row['value'])} on the average of {_others(row)} ({_change(row)}; "
        f"n = {row['n']:,}; descriptive, no test)."
        for row in (rows if len(rows) < 3 else [rows[0], rows[-1]])
    ]


def _others(row: Mapping[str, Any]) -> str:
    own = row["set_language"]
    return "the languages but the anchor" + ("" if own in (None, "*") else f" and {plain(own)}, its own")


def _sizes(recipe: Recipe, manifest: Mapping[str, Any], neurons: pl.DataFrame) -> list[str]:
    lines = []
    for name in neurons["set"].unique(maintain_order=True):
        rows = neurons.filter(pl.col("set") == name)
        counts = {site: rows.filter(pl.col("site") == site).height for site in SITES}
        largest = sorted((site for site in SITES if counts[site]), key=lambda site: -counts[site])
        mix = ", ".join(f"{site} {percent(counts[site] / rows.height, 0)}" for site in largest)
        lines.append(f"{plain(name)}: {_size(recipe, manifest, name, manifest['anchor'])}; by site: {mix}.")
    return lines


def _size(recipe: Recipe, manifest: Mapping[str, Any], name: str, anchor: str | None) -> str:
    """Neurons per language; those of a shared set without the anchor's, which are its whole MS."""
    found: Mapping[str, int] = manifest["sets"][name]
    shared = isinstance(_expression(recipe, name), Shared) and len(found) > 1
    counts = [count for language, count in found.items() if not (shared and language == anchor)]
    total = manifest["neurons"]["layers"] * sum(manifest["neurons"]["per_layer"].values())
    size = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    where = "for every language" if list(found) == ["*"] else "per language"
    return f"{size} neurons {where}, at most {percent(max(counts) / total, 2)} of {total:,}"


def _expression(recipe: Recipe, name: str) -> Any:
    return recipe.sets[name] if name in recipe.sets else recipe.arms[name].neurons


def _name(recipe: Recipe, arm: str) -> str:
    match _expression(recipe, arm):
        case SafetyNeurons():
            return "the monolingual safety neurons (MS)"
        case Shared(at_least=None, by="intersection"):
            return "the shared safety neurons (SS)"
    return f"the set {plain(arm)}"


def _cell(summary: pl.DataFrame, arm: str, measure: str, *, role: str = "tested") -> dict[str, Any] | None:
    rows = summary.filter(
        (pl.col("arm") == arm)
        & (pl.col("measure") == measure)
        & (pl.col("role") == role)
        & (pl.col("language") == AVERAGE)
    )
    return rows.row(0, named=True) if rows.height else None
