"""The rank of a tested set among compared sets, against figures worked out by hand."""

from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from arm_samples import RECIPE, samples, spelled

from ssn_probe.spec import Amplify, Recipe
from ssn_probe.study.comparison_table import MEMBERS, comparison_table
from ssn_probe.study.summary import AVERAGE
from ssn_probe.study.unjudged import notes_on_unjudged

NONE = pl.DataFrame(schema=MEMBERS)


def share(complied: int) -> list[str]:
    return spelled("c" * complied + "r" * (10 - complied))


def beside(role: str, shares: list[int], first: int = 0) -> pl.DataFrame:
    """Sets of a comparison that break so many of ten refusals in bb, and the tested set that breaks eight."""
    tested = [samples("baseline", "baseline", {"bb": share(0)}), samples("ss", "tested", {"bb": share(8)})]
    sets = [samples("ss", role, {"bb": share(some)}, seed=first + number) for number, some in enumerate(shares)]
    return pl.concat([*tested, *sets])


def row_of(frame: pl.DataFrame, recipe: Recipe = RECIPE, members: pl.DataFrame = NONE, **where: Any) -> dict[str, Any]:
    odds, text = where.pop("odds", None), where.pop("text", None)
    table = comparison_table(recipe, frame, odds, text, members, "aa")
    return table.filter(**{"measure": "asr", "language": AVERAGE} | where).row(0, named=True)


def test_the_rank_among_sets_of_exchanged_labels_is_the_primary_p() -> None:
    shares = [1, 2, 3] * 6 + [9]
    row = row_of(beside("labels", shares, first=1))
    assert (row["sets"], row["observed"], row["p"], row["primary"]) == (19, 0.8, pytest.approx(2 / 20), True)
    assert row["mean"] == pytest.approx(sum(shares) / 190)
    assert row["difference"] == pytest.approx(0.8 - sum(shares) / 190)
    assert row["difference_low"] == pytest.approx(0.8 - row["high"])
    assert row["shown_from"] == 0.9, "one of nineteen sets did more, so only more than that would have shown"
    assert row["p_holm"] is None, "the primary test belongs to no family"


def test_the_observed_labels_of_the_prompts_that_take_part_are_ranked_and_not_the_whole_set() -> None:
    """Number 0 is that set: it breaks 5 of 10 where the tested set, of all prompts, breaks 8."""
    row = row_of(beside("labels", [5, *[6] * 10, *[4] * 9]))
    assert (row["sets"], row["observed"], row["p"]) == (19, 0.5, pytest.approx(11 / 20))


def test_random_and_placebo_sets_are_descriptions() -> None:
    for role in ("random", "placebo"):
        row = row_of(beside(role, [1] * 19))
        assert (row["p"], row["primary"], row["sets"]) == (None, False, 19)
        assert row["shown_from"] == 0.1


def test_too_few_sets_are_no_test() -> None:
    row = row_of(beside("labels", [1] * 18, first=1))
    assert (row["p"], row["shown_from"], row["sets"]) == (None, None, 18)


def without_verdicts(frame: pl.DataFrame, role: str, seed: int | None, language: str) -> pl.DataFrame:
    lost = pl.col("seed").eq_missing(pl.lit(seed, pl.Int32)) & (pl.col("role") == role)
    verdict = pl.when(lost & (pl.col("eval_language") == language)).then(pl.lit("unjudged")).otherwise("verdict")
    return frame.with_columns(verdict=verdict)


def test_a_set_without_a_verdict_in_a_language_is_in_no_average() -> None:
    """Every set breaks all in bb and none in cc: without cc a set would be above the tested one, with it below."""
    rates = {"bb": share(10), "cc": share(0)}
    tested = [samples("baseline", "baseline", {"bb": share(0), "cc": share(0)})]
    tested += [samples("ss", "tested", {"bb": share(8), "cc": share(8)})]
    sets = [samples("ss", "labels", rates, seed=seed) for seed in range(1, 21)]
    frame = without_verdicts(pl.concat([*tested, *sets]), "labels", 7, "cc")
    row = row_of(frame)
    assert (row["sets"], row["observed"], row["mean"]) == (19, 0.8, pytest.approx(0.5))
    assert row["p"] == pytest.approx(1 / 20)
    assert [row_of(frame, language=language)["sets"] for language in ("bb", "cc")] == [20, 19]


def test_a_set_without_a_verdict_in_a_language_is_counted_in_a_note() -> None:
    frame = beside("labels", [5, 6, 6], first=1)
    for seed in (1, 3):
        frame = without_verdicts(frame, "labels", seed, "bb")
    _, note = notes_on_unjudged(frame.with_columns(judge=pl.lit("guard")))
    lost = "2 sets found under exchanged labels beside ss got no verdict in bb"
    assert note == f"{lost}, and are not compared with it there or on the average"


def test_sets_are_averaged_over_the_languages_of_the_tested_set_alone() -> None:
    rates = {"bb": share(2), "cc": share(10)}
    sets = [
        samples("ss", role, rates, seed=seed) for role, seed in (("tested", None), *(("labels", n) for n in (1, 2)))
    ]
    row = row_of(without_verdicts(pl.concat(sets), "tested", None, "cc"))
    assert (row["observed"], row["mean"]) == (pytest.approx(0.2), pytest.approx(0.2))


def test_nothing_is_ranked_in_place_of_a_set_without_verdicts() -> None:
    """Number 0 is the set of the prompts that take part, which is ranked where it is another than the tested one."""
    rates = {"bb": share(2), "cc": share(2)}
    sets = [
        samples("ss", role, rates, seed=seed) for role, seed in (("tested", None), *(("labels", n) for n in (0, 1)))
    ]
    found = comparison_table(RECIPE, without_verdicts(pl.concat(sets), "labels", 0, "bb"), None, None, NONE, "aa")
    assert list(found.filter(measure="asr")["language"]) == ["cc"]


def test_an_arm_that_is_not_the_primary_one_is_described() -> None:
    row = row_of(beside("labels", [1] * 19, first=1), replace(RECIPE, primary="ms"))
    assert (row["p"], row["primary"]) == (None, False)
    assert (
        comparison_table(RECIPE, beside("labels", [1] * 19), None, None, NONE, "aa")
        .filter(language="bb")["p"]
        .null_count()
    )


def odds_of(frame: pl.DataFrame) -> pl.DataFrame:
    rise = pl.when(role="tested").then(-2.0).when(role="labels").then(2.9).otherwise(3.0)
    return frame.drop("verdict", "context").with_columns(log_odds=rise)


def test_log_odds_fall_when_refusal_breaks_and_their_p_is_adjusted() -> None:
    frame = beside("labels", [1] * 19, first=1)
    row = row_of(frame, odds=odds_of(frame), measure="refusal_log_odds")
    assert (row["p"], row["p_holm"], row["primary"]) == (pytest.approx(1 / 20), pytest.approx(1 / 20), False)
    assert row["difference"] == pytest.approx(-4.9)


def test_what_silencing_lowers_is_shown_below_the_lowest_set() -> None:
    """As the refusal log-odds does, the language's own fall, and responses in the language become fewer."""
    frame = beside("random", [1] * 19)
    odds = odds_of(frame).with_columns(log_odds=pl.when(role="tested").then(-2.0).otherwise(3.0 + pl.col("seed") / 10))
    found = comparison_table(RECIPE, frame, None, None, NONE, "aa", odds).filter(measure="language_log_odds")
    assert list(found.filter(language=AVERAGE)["shown_from"]) == [3.0]
    frame = beside("random", [1] * 10 + [2] * 9).with_columns(in_language=pl.col("verdict") == "refused")
    assert row_of(frame, measure="in_language")["shown_from"] == 0.8


def test_an_arm_that_should_lower_asr_is_tested_downwards() -> None:
    frame = beside("labels", [9] * 19, first=1)
    assert row_of(frame)["p"] == pytest.approx(1.0)
    falls = replace(RECIPE, arms=RECIPE.arms | {"ss": Amplify(RECIPE.arms["ss"].neurons, by=2)})
    row = row_of(frame, falls)
    assert (row["p"], row["shown_from"]) == (pytest.approx(1 / 20), 0.9)


def test_sizes_and_empty_sets() -> None:
    """The tested set has two neurons in bb; of the three sets one has none, one has one, one has three."""
    numbers = [None, None, 2, 3, 3, 3]
    members = pl.DataFrame(
        [
            ("ss", None, None if number is None else "labels", number, "bb", 0, "ffn", place)
            for place, number in enumerate(numbers)
        ],
        schema=MEMBERS,
        orient="row",
    )
    row = row_of(beside("labels", [1, 2, 3], first=1), members=members)
    assert (row["neurons"], row["empty"], row["neurons_mean"]) == (2, 1, pytest.approx(4 / 3))
    part = pl.concat([members, members[-1:].with_columns(set=pl.lit(0, pl.Int64))])
    row = row_of(beside("labels", [5, 1, 2, 3]), members=part)
    assert (row["observed"], row["neurons"], row["neurons_mean"]) == (0.5, 1, pytest.approx(4 / 3)), "of the ranked set"
