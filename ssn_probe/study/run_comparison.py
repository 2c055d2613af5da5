"""Two runs on the same prompts: how much higher is a measure in the second, prompt by prompt?

Compared are the untouched models, the arms, and the change that an arm makes to its untouched model (a difference of
differences). A difference and its interval are those of an arm beside its baseline (`study.summary.paired`), on rows
that are matched over runs instead of over arms; p is the test that belongs to that interval (`stats.interval_test`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl

from ssn_probe.stats import Estimate, holm
from ssn_probe.stats.interval_test import interval_p
from ssn_probe.study.arms import BASELINE, TESTED, ArmName
from ssn_probe.study.comparable_runs import KEYS, StoredRun, arm_pairs, counted_pairs, one_judge, same_prompts
from ssn_probe.study.run_differences import RunDifference, run_differences
from ssn_probe.study.summary import (
    AVERAGE,
    IN_LANGUAGE,
    LANGUAGE_LOG_ODDS,
    LOG_ODDS,
    MEASURES,
    in_language,
    matched,
    ordered,
    outside_average,
    paired,
    values_of,
)

UNTOUCHED, ARM, CHANGE = "untouched", "arm", "change"
CONTEXTS = {
    "asr": "harmful",
    "over_refusal": "lookalike",
    "utility": "harmless",
    IN_LANGUAGE: "harmful",
    LOG_ODDS: "harmful",
    LANGUAGE_LOG_ODDS: "harmful",
}
"""The measures that are compared, and the context that each reads."""
SCHEMA = {
    **dict.fromkeys(("measure", "compared", "first_arm", "second_arm", "language"), pl.String),
    **dict.fromkeys(("first", "second", "difference", "low", "high"), pl.Float64),
    **dict.fromkeys(("n", "clusters"), pl.Int64),
    **dict.fromkeys(("crossed", "method"), pl.String),
    **dict.fromkeys(("p", "p_holm"), pl.Float64),
}
Tables = tuple[pl.DataFrame, pl.DataFrame]
"""The same rows of the first and of the second run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunComparison:
    """`table`: `SCHEMA`, see `compared_values`. `pairs`: how many prompts pair, in words. `judge`: whose verdicts these
    are, None where nobody judged. `differs`: everything else that the runs do not have in common."""

    first: StoredRun
    second: StoredRun
    table: pl.DataFrame
    pairs: str
    judge: str | None
    differs: tuple[RunDifference, ...]
    notes: tuple[str, ...]


def compare_runs(
    first: StoredRun, second: StoredRun, arms: Sequence[str] = (), notes: Sequence[str] = ()
) -> RunComparison:
    """Both runs on the prompts that they share; `arms`: which ones, as `A` or `A=B`, by default the primary ones.
    `notes`: what a reader must know beside what is found here.

    Raises ResultError where too few prompts pair, and JudgeError where no judge judged both.
    """
    named = arm_pairs(first, second, arms)
    prompts = same_prompts(first, second)
    judge, samples = one_judge(first, second, prompts.rows)
    values = [
        dict(values_of(frame, run.log_odds, run.language_odds))
        for frame, run in zip(samples, (first, second), strict=True)
    ]
    both = {
        name: (_of_prompts(values[0][name], prompts.rows[context]), _of_prompts(values[1][name], prompts.rows[context]))
        for name, context in CONTEXTS.items()
        if context in prompts.rows and all(name in one for one in values)
    }
    table = compared_values(both, named, (first.manifest["anchor"], second.manifest["anchor"]))
    differs = run_differences(first, second)
    notes = [*notes, *prompts.notes, *_notes(first, second, table, named)]
    return RunComparison(
        first=first,
        second=second,
        table=table,
        pairs=counted_pairs(prompts.rows),
        judge=judge,
        differs=differs,
        notes=tuple(notes),
    )


def _of_prompts(frame: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    return frame.join(prompts, on=KEYS, how="semi", maintain_order="left")


def _notes(
    first: StoredRun, second: StoredRun, table: pl.DataFrame, named: Sequence[tuple[ArmName, ArmName]]
) -> Iterator[str]:
    if not named:
        yield "No arm is compared: the runs have none of one name. Name them: --arm A=B."
    digests = [run.manifest["model"].get("digest") for run in (first, second)]
    read = {LOG_ODDS, LANGUAGE_LOG_ODDS} & set(table["measure"])
    if read and (digests[0] is None or digests[0] != digests[1]):
        yield (
            "Log-odds are read from the openings of each model's own responses: their difference between two models is "
            "one of what is read, too."
        )


def compared_values(
    values: Mapping[str, Tables], arms: Sequence[tuple[ArmName, ArmName]], anchors: tuple[str | None, str | None]
) -> pl.DataFrame:
    """One row per measure × what is compared × language, the average last: `SCHEMA`.

    `values`: per measure the rows of both runs with the outcome as `y`. `first`, `second`: the means over the `n`
    prompts that count in both; `difference`: second − first. `compared`: the untouched models, an arm, or its change:
    the arm less its baseline, on prompts that count in all four. `p_holm` adjusts the languages of the average for each
    other, within a measure and what is compared; nothing is adjusted for several measures or arms. An interval without
    width says that the prompts do not vary, and is null, as its p is.
    """
    rows = []
    for measure, (first, second) in values.items():
        for names, kind, pairs in _paired(first, second, arms):
            cells = {"measure": measure, "compared": kind, "first_arm": names[0].title, "second_arm": names[1].title}
            outside = {
                language for frame, anchor in zip(pairs, anchors, strict=True) for language in _outside(frame, anchor)
            }
            rows += [
                cells | row
                for row in _rows(matched(pairs[1], pairs[0]), measure in MEASURES, anchors[0], sorted(outside))
            ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _outside(frame: pl.DataFrame, anchor: str | None) -> list[str]:
    return outside_average(frame, anchor) if frame.height else []


def _paired(
    first: pl.DataFrame, second: pl.DataFrame, arms: Sequence[tuple[ArmName, ArmName]]
) -> Iterator[tuple[tuple[ArmName, ArmName], str, Tables]]:
    """What is compared: the arms' names, the kind, and the rows of both runs."""
    before = first.filter(role=BASELINE), second.filter(role=BASELINE)
    yield (ArmName(BASELINE), ArmName(BASELINE)), UNTOUCHED, before
    for names in arms:
        tested = first.filter(names[0].rows, role=TESTED), second.filter(names[1].rows, role=TESTED)
        yield names, ARM, tested
        yield names, CHANGE, (_change(tested[0], before[0]), _change(tested[1], before[1]))


def _change(tested: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
    return matched(tested, before).with_columns(y=pl.col("y") - pl.col("y_other")).drop("y_other")


def _rows(pairs: pl.DataFrame, is_share: bool, anchor: str | None, outside: list[str]) -> list[dict]:
    """A row per language, the average last, Holm's p written into those of the average."""
    rows = []
    for language in [*ordered(pairs, anchor), AVERAGE]:
        own = in_language(pairs, language, outside)
        if not own.is_empty():
            rows.append({"language": language} | _row(own, is_share, language == AVERAGE))
    family = [row for row in rows if row["language"] not in (AVERAGE, *outside)]
    for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
        row["p_holm"] = p
    return rows


def _row(pairs: pl.DataFrame, is_share: bool, average: bool) -> dict:
    estimate = partial(_estimate, pairs, average)
    found = estimate(0.95)
    means = pairs.group_by("eval_language").agg(pl.col("y", "y_other").mean()).select(pl.col("y", "y_other").mean())
    known = found.high > found.low and (is_share or found.method == "clusters")  # log-odds of 0 are no rates of 0 %
    return {
        "first": means["y_other"][0],
        "second": means["y"][0],
        "difference": found.value,
        "low": found.low if known else None,
        "high": found.high if known else None,
        "n": found.n,
        "clusters": found.clusters,
        "crossed": " × ".join(map(str, found.crossed)) or None,
        "method": found.method,
        "p": interval_p(estimate) if known else None,
        "p_holm": None,
    }


def _estimate(pairs: pl.DataFrame, average: bool, confidence: float) -> Estimate:
    found = paired(pairs, average, confidence)
    assert found is not None
    return found
