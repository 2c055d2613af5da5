"""The answer in words: what was found, how large, how sure, and when an effect was not shown.

The same sentences end a run in the terminal and open `report.md`. Every figure in them is a cell of a table of the run.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from ssn_probe.neurons import SITES
from ssn_probe.report.phrases import sentence, verdict
from ssn_probe.spec import (
    Amplify,
    Each,
    Expand,
    Patch,
    Recipe,
    Trains,
    last_of,
)
from ssn_probe.spec.anchors import shared_with_anchor
from ssn_probe.spec.labels import set_label
from ssn_probe.spec.node import Node
from ssn_probe.study.arms import BASELINE, PLACEBO, WEAKENED, ArmName
from ssn_probe.study.summary import AVERAGE, averaged
from ssn_probe.text import listing, percent, plain, points, probability

COSTS = {"utility": "utility", "over_refusal": "over-refusal", "invalid": "invalid responses"}
"""What an arm may cost, by measure."""
MOST_NAMED = 8
"""So many languages are named; more are counted."""


def answer(
    recipe: Recipe, manifest: Mapping[str, Any], neurons: pl.DataFrame, summary: pl.DataFrame | None, anchor: str | None
) -> list[str]:
    """What was found, one sentence or two per line, the most important first."""
    if summary is None:
        return _sizes(recipe, manifest, neurons)
    if recipe.primary is None:
        lines = [
            _baseline(summary, anchor),
            *_descriptive(summary, anchor),
            *_dose_curves(recipe, manifest, summary, anchor),
        ]
        return [*lines, *_sizes(recipe, manifest, neurons)]
    doses = {arm for arms in _dosed(recipe) for arm in arms}
    others = [arm for arm in recipe.arms if arm != recipe.primary and arm not in doses]
    lines = [_primary(recipe, manifest, summary, anchor), _trained(recipe, manifest)]
    lines.append(_weakened(recipe.primary, summary))
    lines += [_placebo(recipe.primary, summary), _cost(recipe, summary, anchor), _log_odds(recipe.primary, summary)]
    lines += [
        *_dose_curves(recipe, manifest, summary, anchor),
        *(_secondary(recipe, arm, summary, anchor) for arm in others),
    ]
    return [line for line in lines if line]


def _primary(recipe: Recipe, manifest: Mapping[str, Any], summary: pl.DataFrame, anchor: str | None) -> str:
    arm = str(recipe.primary)
    row, before = _cell(summary, arm, "asr"), _before(recipe, arm, summary, "asr", anchor)
    source = _source(recipe, arm, anchor)
    if row is None or before is None:
        return f"ASR was not measured for {plain(arm)}: there are no judged harmful prompts."
    what = f"{sentence(_doing(recipe, arm, anchor))} ({_size(recipe, manifest, arm, anchor)})"
    change = (
        f"ASR {_where(summary, arm, anchor, source)} went from {percent(before)} to {percent(row['value'])} "
        f"({_change(row)}; n = {row['n']:,} responses, {row['clusters']:,} clusters)"
    )
    own = _cell(summary, "baseline", "asr", role="baseline", language=source) if source else None
    goal = "" if own is None else f"; untouched, {plain(str(source))} itself is at {percent(own['value'])}"
    return f"{what} {verdict(recipe.arms[arm], row)}: {change}; {_against(row)}{goal}."


def _doing(recipe: Recipe, arm: str, anchor: str | None) -> str:
    source = _source(recipe, arm, anchor)
    return recipe.arms[arm].phrase(_name(recipe, arm), None if source is None else plain(source))


def _source(recipe: Recipe, arm: str, anchor: str | None) -> str | None:
    node = last_of(recipe.arms[arm])
    return node.source or anchor if isinstance(node, Patch) else None


def _before(recipe: Recipe, arm: str, summary: pl.DataFrame, measure: str, anchor: str | None) -> float | None:
    """The baseline in the arm's own languages: it may not be run in some, or leave one more out of its average."""
    row = _cell(summary, arm, measure)
    return None if row is None or row["delta"] is None else round(row["value"] - row["delta"], 12)


def _where(summary: pl.DataFrame, arm: str, anchor: str | None, source: str | None = None) -> str:
    """Which languages an arm's average is over: all but the anchor, and a Patch's source, or those that it names."""
    languages = averaged(summary, ArmName(arm), "asr", anchor)
    usual = averaged(summary, ArmName(BASELINE), "asr", anchor, role=BASELINE)
    alike = not languages or languages == usual - {source}
    return _outside(anchor, source) if alike else f"on the average of {_list(languages)}"


def _list(languages: Collection[str]) -> str:
    named = len(languages) <= MOST_NAMED
    return listing([plain(one) for one in sorted(languages)]) if named else f"{len(languages)} languages"


def _outside(anchor: str | None, source: str | None = None) -> str:
    if anchor is None and source is None:
        return "over all languages"
    left_out = "" if anchor is None else f"outside the anchor {plain(anchor)}"
    if source in (None, anchor):
        return left_out
    return f"{left_out + ' and' if left_out else 'outside'} the source {plain(str(source))}"


def _change(row: Mapping[str, Any]) -> str:
    return f"{points(row['delta'])} points, 95 % interval {points(row['delta_low'])} to {points(row['delta_high'])}"


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


def _trained(recipe: Recipe, manifest: Mapping[str, Any]) -> str:
    """How much of the model the primary arm trained."""
    told = next((one for one in manifest.get("trained") or () if one["arm"] == recipe.primary), None)
    if told is None:
        return ""
    every = next(row for row in told["parameters"] if row["site"] == "all")
    return (
        f"It trained {every['parameters']:,} parameters, {every['percent']:.3f} % of the model, for "
        f"{told['steps']['done']} steps; the delta of step {told['steps']['chosen']} was kept."
    )


def _weakened(arm: str, summary: pl.DataFrame) -> str:
    row, whole = _cell(summary, arm, "asr", role=WEAKENED), _cell(summary, arm, "asr")
    if row is None or whole is None:
        return ""
    return (
        f"Without its strongest neuron in each language the set gives {percent(row['value'])} ({_change(row)}; "
        f"the whole set {points(whole['delta'])})."
    )


def _placebo(arm: str, summary: pl.DataFrame) -> str:
    row = _cell(summary, arm, "asr", role=PLACEBO)
    if row is None:
        return ""
    found = "a set found the same way between topics of harmless prompts"
    return f"Its placebo, {found}, gives {percent(row['value'])} ({_change(row)})."


def _cost(recipe: Recipe, summary: pl.DataFrame, anchor: str | None) -> str:
    arm, parts = str(recipe.primary), []
    for measure, words in COSTS.items():
        after, before = _cell(summary, arm, measure), _before(recipe, arm, summary, measure, anchor)
        if after is not None and before is not None:
            parts.append(f"{words} {percent(before)} → {percent(after['value'])}")
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


def _dosed(recipe: Recipe) -> list[list[str]]:
    """The arms that differ in a factor, or in the number of steps, alone: least first."""
    found: dict[Node, list[str]] = {}
    for name, node in recipe.arms.items():
        if not isinstance(node.neurons, Each) and (alike := _but_the_dose(node)) is not None:
            found.setdefault(alike, []).append(name)
    return [sorted(arms, key=lambda arm: _by(recipe, arm)) for arms in found.values() if len(arms) > 1]


def _but_the_dose(node: Node) -> Node | None:
    """The same node for every dose; None for what has none."""
    if isinstance(node, Amplify):
        return replace(node, by=2.0)
    if isinstance(node, Expand) and node.at is None and node.training.steps is not None:
        return replace(node, training=replace(node.training, steps=None))
    return None


def _by(recipe: Recipe, arm: str) -> float:
    node = recipe.arms[arm]
    if isinstance(node, Expand):
        return float(node.training.steps or 0)
    assert isinstance(node, Amplify)
    return node.by


def _dose_words(recipe: Recipe, arm: str, by: float) -> str:
    return f"{by:g} steps" if isinstance(recipe.arms[arm], Expand) else f"×{by:g}"


def _dose_curves(recipe: Recipe, manifest: Mapping[str, Any], summary: pl.DataFrame, anchor: str | None) -> list[str]:
    """One line per set that is amplified by several factors: ASR beside its random sets, and what each dose costs."""
    lines = []
    for arms in _dosed(recipe):
        untouched = 0.0 if isinstance(recipe.arms[arms[0]], Expand) else 1.0
        doses = [(untouched, _dose("baseline", summary, role="baseline"))]
        kept = {arm: _kept(manifest, arm) for arm in arms}
        doses = sorted([*doses, *((_by(recipe, arm), _dose(arm, summary) + kept[arm]) for arm in arms)])
        told = "; ".join(f"{_dose_words(recipe, arms[0], by)} {words}" for by, words in doses if words)
        tested = "no test"
        if recipe.primary in arms:
            tested = f"only {_dose_words(recipe, arms[0], _by(recipe, recipe.primary))} is tested"
        where = _where(summary, arms[0], anchor)
        lines.append(f"Dose by dose, {_name(recipe, arms[0])} {where}: {told} (descriptive, {tested}).")
    return lines


def _kept(manifest: Mapping[str, Any], arm: str) -> str:
    """The step whose change was measured, where the training chose an earlier one than its last."""
    steps = next((one["steps"] for one in manifest.get("trained") or () if one["arm"] == arm), None)
    return f" (step {steps['chosen']} of {steps['done']})" if steps and steps["chosen"] != steps["planned"] else ""


def _dose(arm: str, summary: pl.DataFrame, *, role: str = "tested") -> str:
    row = _cell(summary, arm, "asr", role=role)
    if row is None:
        return ""
    controls = f" (random sets {percent(row['control_mean'])})" if row["controls"] else ""
    costs = {words: _cell(summary, arm, measure, role=role) for measure, words in COSTS.items() if measure != "invalid"}
    told = [f"{words} {percent(cell['value'])}" for words, cell in costs.items() if cell is not None]
    return ", ".join([f"ASR {percent(row['value'])}{controls}", *told])


def _secondary(recipe: Recipe, arm: str, summary: pl.DataFrame, anchor: str | None) -> str:
    row = _cell(summary, arm, "asr")
    if row is None:
        return ""
    controls = "" if not row["controls"] else f"; its random sets {percent(row['control_mean'])}"
    return (
        f"For comparison, {_doing(recipe, arm, anchor)} gives {percent(row['value'])} ({_change(row)}{controls}; "
        "descriptive, no test)."
    )


def _baseline(summary: pl.DataFrame, anchor: str | None) -> str:
    row = _cell(summary, "baseline", "asr", role="baseline")
    if row is None:
        return "ASR was not measured."
    interval = f"95 % interval {100 * row['low']:.1f} to {100 * row['high']:.1f}"
    return f"Untouched, the model's ASR {_outside(anchor)} is {percent(row['value'])} ({interval}; n = {row['n']:,})."


def _descriptive(summary: pl.DataFrame, anchor: str | None) -> list[str]:
    """For recipes without a primary arm: the largest and the smallest change on the average."""
    of_arms = (pl.col("role") == "tested") & (pl.col("language") == AVERAGE) & (pl.col("measure") == "asr")
    of_arms &= pl.col("step").is_null()
    rows = summary.filter(of_arms).sort("delta", descending=True).rows(named=True)
    return [
        f"{plain(_name_of(summary, row).title)}: ASR {percent(row['value'])} on the average of "
        f"{_others(summary, row, anchor)} ({_change(row)}; n = {row['n']:,}; descriptive, no test)."
        for row in (rows if len(rows) < 3 else [rows[0], rows[-1]])
    ]


def _name_of(summary: pl.DataFrame, row: Mapping[str, Any]) -> ArmName:
    """The arm of a row; one of an arm per language is known by the several languages whose neurons apply."""
    several = summary.filter(arm=row["arm"], role=row["role"], language=AVERAGE)["set_language"].n_unique() > 1
    return ArmName(row["arm"], row["set_language"] if several else None, row["step"])


def _others(summary: pl.DataFrame, row: Mapping[str, Any], anchor: str | None) -> str:
    own = row["set_language"]
    languages = averaged(summary, _name_of(summary, row), "asr", anchor)
    if languages != averaged(summary, ArmName(BASELINE), "asr", anchor, role=BASELINE) - {own}:
        return _list(languages)
    return "the languages but the anchor" + ("" if own in (None, "*") else f" and {plain(own)}, its own")


def _sizes(recipe: Recipe, manifest: Mapping[str, Any], neurons: pl.DataFrame) -> list[str]:
    """The sets that are named or done something to; a learning curve says itself how much was trained."""
    lines = []
    curves = {name for name, node in recipe.arms.items() if isinstance(node, Trains) and node.at is not None}
    for name in neurons["set"].unique(maintain_order=True):
        if name in curves:
            continue
        rows = neurons.filter(pl.col("set") == name)
        counts = {site: rows.filter(pl.col("site") == site).height for site in SITES}
        largest = sorted((site for site in SITES if counts[site]), key=lambda site: -counts[site])
        mix = ", ".join(f"{site} {percent(counts[site] / rows.height, 0)}" for site in largest)
        lines.append(f"{plain(name)}: {_size(recipe, manifest, name, manifest['anchor'])}; by site: {mix}.")
    return lines


def _size(recipe: Recipe, manifest: Mapping[str, Any], name: str, anchor: str | None) -> str:
    """Neurons per language; those of a shared set without the anchor's, which are its whole MS."""
    found: Mapping[str, int] = manifest["sets"][name]
    shared = shared_with_anchor(_expression(recipe, name)) is not None and len(found) > 1
    counts = [count for language, count in found.items() if not (shared and language == anchor)]
    total = manifest["neurons"]["layers"] * sum(manifest["neurons"]["per_layer"].values())
    size = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    where = "for every language" if list(found) == ["*"] else "per language"
    return f"{size} neurons {where}, at most {percent(max(counts) / total, 2)} of {total:,}"


def _expression(recipe: Recipe, name: str) -> Any:
    return recipe.sets[name] if name in recipe.sets else recipe.arms[name].neurons


def _name(recipe: Recipe, arm: str) -> str:
    return set_label(_expression(recipe, arm)) or f"the set {plain(arm)}"


def _cell(
    summary: pl.DataFrame, arm: str, measure: str, *, role: str = "tested", language: str = AVERAGE
) -> dict[str, Any] | None:
    rows = summary.filter(
        (pl.col("arm") == arm)
        & (pl.col("measure") == measure)
        & (pl.col("role") == role)
        & (pl.col("language") == language)
    )
    return rows.row(0, named=True) if rows.height else None
