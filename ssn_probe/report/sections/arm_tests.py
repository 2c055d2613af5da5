"""What the summary shows beyond a value per arm: tests per language, whose neurons matter for whom, counts against ASR.

Each function makes one section of the report, "" where the run has nothing for it.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ssn_probe.report.markdown_tables import ABSENT, change_cell, language_cell, rate_cell, table
from ssn_probe.spec import Each, Recipe, SetExpression, Suppress
from ssn_probe.spec.anchors import shared_with_anchor
from ssn_probe.stats import Estimate, RankCorrelation, rank_correlation
from ssn_probe.study.arms import BASELINE, TESTED
from ssn_probe.study.summary import AVERAGE, against_placebo
from ssn_probe.text import markdown, points, probability

# ── tests of the primary arm ─────────────────────────────────────────────────────────────────────────────────────────


def significance(
    recipe: Recipe, manifest: Mapping[str, Any], summary: pl.DataFrame, samples: pl.DataFrame | None = None
) -> str:
    """Per language, what the primary arm changed, its two p-values, and the smallest change that would have shown."""
    arm = recipe.primary
    if arm is None:
        return ""
    rows = summary.filter(measure="asr", role=TESTED, arm=arm)
    by_language = {row["language"]: row for row in rows.rows(named=True)}
    if not by_language:
        return ""
    order = [language for language in [*manifest["evaluated"], AVERAGE] if language in by_language]
    anchor = manifest["anchor"]
    body = [[language_cell(language, anchor), *_tested_cells(by_language[language])] for language in order]
    header = ["language", "ASR, points", "McNemar p", "Holm p", "smallest change that would have shown"]
    family = sum(row["p_holm"] is not None for row in by_language.values())
    parts = [f"## Tests: {markdown(arm)} against the baseline\n", table(header, body), _what_is_tested(family)]
    placebo = None if samples is None else against_placebo(samples, arm, anchor, recipe.seed)
    return "\n".join([*parts, *([_placebo(placebo)] if placebo is not None else [])])


def _tested_cells(row: Mapping[str, Any]) -> list[str]:
    ps = [ABSENT if row[name] is None else probability(row[name]) for name in ("p_mcnemar", "p_holm")]
    return [change_cell(row), *ps, _would_have_shown(row)]


def _would_have_shown(row: Mapping[str, Any]) -> str:
    """A change that is larger than any there could be is said to be so."""
    if row["detectable"] is None:
        return "unknown: the difference has no spread"
    before = row["value"] - row["delta"]
    figure = f"{100 * row['detectable']:.1f}"
    return figure if row["detectable"] <= max(before, 1 - before) else f"none: {figure} is more than there is"


def _what_is_tested(family: int) -> str:
    adjusted = f"Holm's adjusts it over the {family} languages tested in the average. " if family else ""
    return (
        "McNemar's exact test asks whether the arm turns failures into successes as often as the reverse on the same "
        f"prompts. {adjusted}It compares the arm with the baseline and says nothing about random sets: whether *these* "
        "neurons matter is the rank test's question, on the average row above. A dash: prompts share clusters, some "
        "lack a verdict in one arm, or the row is outside the average. The smallest change that would have shown, in "
        "points, is 2.8 standard errors of the difference as measured (80 % power, two-sided .05): a true change "
        "below it could have been missed, so a large p is no sign of its absence.\n"
    )


def _placebo(found: Estimate) -> str:
    return (
        f"Against its placebo, a set found the same way among harmless prompts: {points(found.value)} points on the "
        f"average, 95 % interval {points(found.low)} to {points(found.high)} (paired by prompt; descriptive, no "
        "test).\n"
    )


# ── whose neurons matter for whom ────────────────────────────────────────────────────────────────────────────────────


def transfers(summary: pl.DataFrame, measure: str = "asr") -> dict[str, dict[tuple[str, str], dict[str, Any]]]:
    """The cells (language of the neurons, language evaluated) of every arm that ran once per language, by its name."""
    rows = summary.filter(measure=measure, role=TESTED)
    several = pl.col("set_language").filter(pl.col("language") == AVERAGE).n_unique().over("arm") > 1
    rows = rows.filter(several, pl.col("step").is_null())
    found: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for row in rows.filter(pl.col("language") != AVERAGE).rows(named=True):
        found.setdefault(row["arm"], {})[row["set_language"], row["language"]] = row
    return found


def transfer_section(recipe: Recipe, summary: pl.DataFrame) -> str:
    """One language × language table per arm of the kind `set.each()`."""
    before = {row["language"]: row for row in summary.filter(measure="asr", role=BASELINE).rows(named=True)}
    parts = [
        _transfer(name, cells, before, isinstance(recipe.arms[name], Suppress))
        for name, cells in transfers(summary).items()
        if name in recipe.arms and isinstance(recipe.arms[name].neurons, Each)
    ]
    return "\n".join(parts)


def _transfer(name: str, cells: Mapping[tuple[str, str], dict], before: Mapping[str, dict], silenced: bool) -> str:
    sources, targets = (list(dict.fromkeys(pair[side] for pair in cells)) for side in (0, 1))
    verb = "silenced" if silenced else "changed"
    first = ["*baseline ASR*", *(rate_cell(before[target]) if target in before else ABSENT for target in targets)]
    body = [[markdown(source), *(_transfer_cell(cells, source, target) for target in targets)] for source in sources]
    header = [f"{verb}: neurons of", *(markdown(target) for target in targets)]
    note = (
        f"Row: the language whose neurons are {verb}; column: the language evaluated. Change of ASR in points against "
        "the baseline on the same prompts, with its 95 % interval; bold: a language's own neurons. Descriptive: "
        f"{len(cells)} intervals, none adjusted, so about one in twenty misses the truth.\n"
    )
    return f"## Whose neurons matter for whom: {markdown(name)}\n\n{table(header, [first, *body])}\n{note}"


def _transfer_cell(cells: Mapping[tuple[str, str], dict], source: str, target: str) -> str:
    text = change_cell(cells.get((source, target)))
    return f"**{text}**" if source == target and text != ABSENT else text


# ── how many neurons are shared, and how often the model complies ────────────────────────────────────────────────────


def counts_against_asr(sizes: Mapping[str, int], summary: pl.DataFrame, anchor: str | None) -> RankCorrelation:
    """Do languages with more shared neurons comply less? `sizes`: neurons per language; ASR: the baseline's.

    Over the languages of the average that have both figures. Six languages have almost no power: never quote ρ alone.
    """
    asr = {row["language"]: row["value"] for row in summary.filter(measure="asr", role=BASELINE).rows(named=True)}
    languages = [language for language in sizes if language in asr and language not in (anchor, AVERAGE)]
    return rank_correlation([sizes[one] for one in languages], [asr[one] for one in languages])


def counts_section(recipe: Recipe, manifest: Mapping[str, Any], summary: pl.DataFrame) -> str:
    """SS counts beside baseline ASR, for every set that is shared with an anchor."""
    before = {row["language"]: row for row in summary.filter(measure="asr", role=BASELINE).rows(named=True)}
    parts = []
    for name in _shared_with_anchor(recipe) if before else ():
        sizes = {one: count for one, count in manifest["sets"][name].items() if one != manifest["anchor"]}
        body = [[markdown(one), str(sizes[one]), rate_cell(before[one])] for one in sizes if one in before]
        if body:
            found = counts_against_asr(sizes, summary, manifest["anchor"])
            header = ["language", "shared neurons", "baseline ASR"]
            title = f"## Counts against ASR: {markdown(name)}\n"
            parts.append("\n".join([title, table(header, body), f"{correlation_words(found)}\n"]))
    return "\n".join(parts)


def _shared_with_anchor(recipe: Recipe) -> list[str]:
    sets: dict[str, SetExpression | Each] = recipe.sets | {name: arm.neurons for name, arm in recipe.arms.items()}
    return [name for name, node in sets.items() if shared_with_anchor(node)]


def correlation_words(found: RankCorrelation) -> str:
    """The coefficient with all that it takes to read it, never alone."""
    if found.rho is None or found.p is None:
        return f"Spearman's ρ was not computed: {found.note} (n = {found.n} languages)."
    interval = f"95 % interval {found.low:+.2f} to {found.high:+.2f}" if found.low is not None else str(found.note)
    needed = (
        f"no ρ of {found.n} languages could have had p ≤ .05"
        if found.needed is None
        else f"with {found.n} languages only |ρ| ≥ {found.needed:.3f} has p ≤ .05"
    )
    kind = "exact" if found.n <= 8 else "permutation"
    return (
        f"Spearman's ρ = {found.rho:+.2f} ({interval}; {kind} p = {probability(found.p)}; n = {found.n} languages); "
        f"{needed}. Languages are the unit, and not a sample of any: read it as a description."
    )
