"""What compared sets do beside what a tested set does: one row per arm × measure × comparison × language.

The set is the unit: all sets run on the same prompts, so more prompts make each figure more precise but say nothing
about other sets. The rank of the primary arm's ASR among the sets of exchanged labels, on the average over languages,
is the one primary test.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from ssn_probe.neurons import EVERY, NEURON
from ssn_probe.neurons import SCHEMA as NEURONS
from ssn_probe.spec import Each, Recipe
from ssn_probe.stats import ControlTest, holm, rank_test
from ssn_probe.study.arms import ALONE, TESTED, Arm, ArmName, sets_beside
from ssn_probe.study.comparisons import COMPARISONS, LABELS, sets_generating, sets_reading
from ssn_probe.study.summary import (
    AVERAGE,
    IN_LANGUAGE,
    KL,
    LANGUAGE_LOG_ODDS,
    LOG_ODDS,
    in_language,
    ordered,
    outside_average,
    values_of,
)
from ssn_probe.study.workbench import Workbench

SCHEMA = {
    **dict.fromkeys(("arm", "set_language"), pl.String),
    "step": pl.Int64,
    **dict.fromkeys(("measure", "comparison", "language"), pl.String),
    "sets": pl.Int64,
    "empty": pl.Int64,
    **dict.fromkeys(("neurons", "neurons_mean"), pl.Float64),
    **dict.fromkeys(("observed", "mean", "low", "high"), pl.Float64),
    **dict.fromkeys(("difference", "difference_low", "difference_high"), pl.Float64),
    **dict.fromkeys(("shown_from", "p", "p_holm"), pl.Float64),
    "primary": pl.Boolean,
}
MEMBERS = {
    **dict.fromkeys(("arm", "set_language", "comparison"), pl.String),
    "set": pl.Int64,
    **{name: kind for name, kind in NEURONS.items() if name != "score"},
}
"""The table of the neurons of tested sets, where `comparison` and `set` are null, and of the sets beside them."""
TESTS = {(name, "asr") for name, comparison in COMPARISONS.items() if comparison.tested} | {(LABELS, LOG_ODDS)}
"""The comparisons and measures whose rank, on the average over languages, is a test; all others are descriptions."""

FALLING = (LOG_ODDS, IN_LANGUAGE, LANGUAGE_LOG_ODDS)
"""The measures that fall where what carries them is silenced; all others rise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Beside:
    """A tested arm on a measure, and the sets of a comparison beside it: samples with the measure as `y`."""

    name: ArmName
    measure: str
    comparison: str
    tested: pl.DataFrame
    sets: pl.DataFrame


def comparison_table(
    recipe: Recipe,
    samples: pl.DataFrame,
    log_odds: pl.DataFrame | None,
    text: pl.DataFrame | None,
    members: pl.DataFrame,
    anchor: str | None,
    language_odds: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Columns, see `SCHEMA`. `sets`: how many were run, `empty`: of how many no neuron was found in the language (for
    the average: in no language); `neurons`, `neurons_mean`: their mean number of neurons per language. `observed`: the
    tested set's figure; `mean`: that of the sets; `low`, `high`: where 95 % of such sets fall (mean ± t·s·√(1 + 1/m)).
    `difference`: observed − mean, with what it would be for 95 % of such sets. `shown_from`: the figure that the
    observed one would have had to pass for p ≤ .05, null with fewer than 19 sets. `p`: the rank of the observed figure
    (`stats.rank_test`) where it is a test, `p_holm`: adjusted over all tests of the arm but the primary one.

    Ranked is the tested set; among sets of exchanged labels that of the observed labels of the prompts that take part
    in the exchange (number 0), where it is another than the tested one. On the average are the sets that have a figure
    in every language of the tested set's average: a judge may have given no verdict in one.
    """
    rows = [
        row
        for beside in _besides(recipe, samples, log_odds, text, language_odds)
        for row in _rows(recipe, beside, _members(members, beside), anchor)
    ]
    _adjust(rows)
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def members_of(bench: Workbench, recipe: Recipe, arms: Sequence[Arm]) -> pl.DataFrame:
    """The neurons of every compared arm's set and of the sets beside it, see `MEMBERS`."""
    frames = [pl.DataFrame(schema=MEMBERS)]
    for arm in {(arm.name, arm.set_language): arm for arm in arms if arm.compared}.values():
        node = recipe.arms[arm.name]
        frames.append(_neurons(arm, None))
        for name in arm.compared:
            count = max(sets_generating(recipe, node, name), sets_reading(recipe, node, name))
            frames += [_neurons(other, name) for other in sets_beside(bench, recipe, arm, name, count)]
    return pl.concat(frames)


def _neurons(arm: Arm, comparison: str | None) -> pl.DataFrame:
    assert arm.neurons is not None
    columns = {"arm": arm.name, "set_language": arm.set_language if arm.each else None}
    columns |= {"comparison": comparison, "set": None if comparison is None else arm.seed}
    named = [pl.lit(value, MEMBERS[name]).alias(name) for name, value in columns.items()]
    return arm.neurons.frame.select(*named, "language", *NEURON).select(*MEMBERS)


def _besides(recipe: Recipe, *tables: pl.DataFrame | None) -> Iterator[_Beside]:
    for measure, values in _values(*tables):  # type: ignore[arg-type]
        compared = values.filter(~pl.col("role").is_in(ALONE))
        each = [name for name, node in recipe.arms.items() if isinstance(node.neurons, Each)]
        of = pl.when(pl.col("arm").is_in(each)).then(pl.col("set_language"))
        groups = compared.group_by("arm", of.alias("of"), "step", "role", maintain_order=True)
        for (arm, of_language, step, role), sets in groups:
            name = ArmName(str(arm), of_language, step)  # type: ignore[arg-type]
            tested = values.filter(name.rows, role=TESTED)
            yield _Beside(name=name, measure=measure, comparison=str(role), tested=tested, sets=sets)


def _values(
    samples: pl.DataFrame,
    log_odds: pl.DataFrame | None,
    text: pl.DataFrame | None,
    language_odds: pl.DataFrame | None,
) -> Iterator[tuple[str, pl.DataFrame]]:
    yield from values_of(samples, log_odds, language_odds)
    if text is not None:
        yield KL, text.with_columns(y=pl.col("kl").cast(pl.Float64))


def _rows(recipe: Recipe, beside: _Beside, members: pl.DataFrame, anchor: str | None) -> Iterator[dict[str, Any]]:
    """A row per language, the average last."""
    left_out = outside_average(beside.tested, anchor)
    for language in [*ordered(beside.sets, anchor), AVERAGE]:
        here = replace(
            beside,
            tested=in_language(beside.tested, language, left_out),
            sets=in_language(beside.sets, language, left_out),
        )
        here = replace(here, sets=in_each_language(here.sets, here.tested["eval_language"]))
        if here.sets.height and not _lacks_part(beside.sets, here):
            spoken = list(here.tested["eval_language"].unique())
            own = members.filter(pl.col("language").is_in([EVERY, *spoken]))
            yield _row(recipe, here, own, language)


def in_each_language(sets: pl.DataFrame, languages: pl.Series) -> pl.DataFrame:
    """The rows in some languages of those sets that have some in each of them."""
    known = sets.filter(pl.col("eval_language").is_in(languages.unique().implode()))
    return known.filter(pl.col("eval_language").n_unique().over("seed") == languages.n_unique())


def _lacks_part(sets: pl.DataFrame, here: _Beside) -> bool:
    """Would another set be ranked in place of the one of the prompts that take part, which has no figure here?"""
    return here.comparison == LABELS and 0 in sets["seed"] and 0 not in here.sets["seed"]


def _row(recipe: Recipe, beside: _Beside, members: pl.DataFrame, language: str) -> dict[str, Any]:
    means = _means(beside.sets)
    part = means.pop(0, None) if beside.comparison == LABELS else None
    observed = next(iter(_means(beside.tested).values())) if part is None else part
    falls = (beside.measure in FALLING) != recipe.arms[beside.name.arm].lowers
    test = rank_test(observed, list(means.values()), alternative="less" if falls else "greater")
    tested = language == AVERAGE and (beside.comparison, beside.measure) in TESTS
    primary = tested and (beside.comparison, beside.measure) == (LABELS, "asr") and beside.name.arm == recipe.primary
    return {
        "arm": beside.name.arm,
        "set_language": beside.name.of,
        "step": beside.name.step,
        "measure": beside.measure,
        "comparison": beside.comparison,
        "language": language,
        **_sizes(members, None if part is None else 0, means, beside.tested["eval_language"].n_unique()),
        **_difference(test),
        "shown_from": _shown_from(list(means.values()), falls),
        "p": test.p if tested and recipe.primary == beside.name.arm else None,
        "primary": primary,
    }


def _means(samples: pl.DataFrame) -> dict[int | None, float]:
    """The mean of every set: over prompts, then languages; summed alike however the frame lies in memory."""
    values = samples.group_by("seed", "eval_language", maintain_order=True).agg(pl.col("y"))
    each: dict[int | None, list[float]] = {}
    for seed, outcomes in values.select("seed", "y").iter_rows():
        each.setdefault(seed, []).append(float(np.mean(outcomes)))
    return {seed: float(np.mean(each[seed])) for seed in sorted(each, key=lambda seed: -1 if seed is None else seed)}


def _members(members: pl.DataFrame, beside: _Beside) -> pl.DataFrame:
    """The neurons of a tested set and of the sets beside it."""
    mine = members.filter(pl.col("set_language").eq_missing(pl.lit(beside.name.of)), arm=beside.name.arm)
    return mine.filter(pl.col("comparison").is_null() | (pl.col("comparison") == beside.comparison))


def _sizes(
    members: pl.DataFrame, ranked: int | None, means: Mapping[int | None, float], languages: int
) -> dict[str, Any]:
    """Neurons per language of the `ranked` set and of the others: those of a language-free set count in every one."""
    found = dict(members.group_by("set").len().iter_rows())
    own, others = found.get(ranked, 0), [found.get(number, 0) for number in means]
    parts = 1 if (members["language"] == EVERY).any() else languages
    sizes = {"neurons": own / parts, "neurons_mean": float(np.mean(others)) / parts if others else None}
    return {"sets": len(means), "empty": others.count(0), **sizes}


def _difference(test: ControlTest) -> dict[str, float | None]:
    found: dict[str, float | None] = {"observed": test.observed, "mean": test.control_mean}
    found |= {"low": test.low, "high": test.high}
    ends = {"difference": test.control_mean, "difference_low": test.high, "difference_high": test.low}
    return found | {name: None if end is None else test.observed - end for name, end in ends.items()}


def _shown_from(means: list[float], falls: bool) -> float | None:
    """The figure beyond which the rank would have had p ≤ .05: the ⌊.05·(m + 1)⌋-th most extreme of m sets."""
    count = (len(means) + 1) // 20
    return sorted(means, reverse=not falls)[count - 1] if count else None


def _adjust(rows: list[dict[str, Any]]) -> None:
    """Writes Holm's p over the tests of the primary arm but the primary one."""
    family = [row for row in rows if row["p"] is not None and not row["primary"]]
    for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
        row["p_holm"] = p
