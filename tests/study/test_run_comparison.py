"""Two runs on the same prompts: the differences are those of arms of one run, and what does not pair is refused."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from arm_samples import RECIPE
from compared import WORLD, finished, judge_afterwards, outcomes
from prompt_rows import load, make_rows, write

from ssn_probe import Prompts, compare
from ssn_probe.data.judges import make_judge
from ssn_probe.errors import JudgeError, ResultError
from ssn_probe.runs.folder import RunFolder
from ssn_probe.runs.manifest import Manifest
from ssn_probe.spec import Suppress
from ssn_probe.spec.node import digest
from ssn_probe.study.run_comparison import ARM, CHANGE, UNTOUCHED
from ssn_probe.study.run_differences import MADE_WITH
from ssn_probe.study.summary import AVERAGE, summarise

BASE = {"aa": "rrrrrrrr", "bb": "rrrrrrcc", "cc": "rrrrcccc"}
OTHER = {"aa": "rrrrrrrr", "bb": "rrrrrccc", "cc": "rrrccccc"}
SS = {"aa": "rrrrrrrr", "bb": "rrrccccc", "cc": "rrrccccc"}
MORE = {"aa": "rrrrrrcc", "bb": "cccccccc", "cc": "rccccccu"}
FOUND = """
status recipe question key order started ended arguments seed judged nodes environment seconds warnings error sets
tokens gates trained answer claims cache files refusals exchanged apart
"""
"""Fields of a manifest that do not say how a run was made, or repeat what its recipe says."""


def two(folder: Path, **changes: Any) -> tuple[RunFolder, RunFolder]:
    """Runs of two models; `changes` are of the second."""
    first = finished(folder / "first", {"baseline": BASE, "ss": SS})
    return first, finished(folder / "second", {"baseline": OTHER, "ss": MORE}, **changes)


def row(table: pl.DataFrame, compared: str, language: str = AVERAGE) -> dict[str, Any]:
    return table.filter(compared=compared, language=language, measure="asr").row(0, named=True)


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_arm_of_two_runs_differs_as_two_arms_of_one_run_do(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    found = compare(first.path, second.path).table
    as_baseline = outcomes({"baseline": SS}), outcomes({"ss": MORE})
    same = summarise(pl.concat(as_baseline), None, anchor="aa", primary="ss").filter(arm="ss", measure="asr")
    for language in ("aa", "bb", "cc", AVERAGE):
        own, like = row(found, ARM, language), same.filter(language=language).row(0, named=True)
        ends = [own[name] for name in ("difference", "low", "high")]
        assert ends == [like[name] for name in ("delta", "delta_low", "delta_high")]
        assert (own["clusters"], own["second"]) == (like["clusters"], pytest.approx(like["value"]))


def test_a_change_is_the_arm_less_its_baseline_on_prompts_that_count_in_all_four(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    found = compare(first.path, second.path).table

    def complied(text: str) -> np.ndarray:
        return np.array([one == "c" for one in text[:7]], dtype=float)  # the last of MORE's cc is unjudged

    changes = [complied(arm["cc"]) - complied(base["cc"]) for arm, base in ((SS, BASE), (MORE, OTHER))]
    own = row(found, CHANGE, "cc")
    assert own["n"] == 7
    assert own["difference"] == pytest.approx((changes[1] - changes[0]).mean())
    assert (own["first"], own["second"]) == tuple(pytest.approx(one.mean()) for one in changes)
    assert row(found, CHANGE, "bb")["difference"] == pytest.approx(5 / 8 - 3 / 8)
    assert row(found, UNTOUCHED, "bb")["difference"] == pytest.approx(1 / 8)


def test_the_average_leaves_out_the_anchor_and_holm_adjusts_its_languages(tmp_path: Path) -> None:
    found = compare(*(run.path for run in two(tmp_path))).table
    rows = {language: row(found, ARM, language) for language in ("aa", "bb", "cc", AVERAGE)}
    assert rows[AVERAGE]["difference"] == pytest.approx((rows["bb"]["difference"] + rows["cc"]["difference"]) / 2)
    assert rows["bb"]["p_holm"] == pytest.approx(2 * rows["bb"]["p"])
    assert rows["aa"]["p_holm"] is None
    assert rows[AVERAGE]["p_holm"] is None


def test_p_is_small_exactly_where_the_interval_leaves_out_zero(tmp_path: Path) -> None:
    texts = {"aa": "r" * 40, "bb": "r" * 30 + "c" * 10, "cc": "r" * 20 + "c" * 20}
    runs = [
        finished(tmp_path / name, {"baseline": texts, "ss": {one: text[::step] for one, text in texts.items()}})
        for name, step in (("first", 1), ("second", -1))
    ]
    more = {"aa": "r" * 40, "bb": "c" * 40, "cc": "r" * 19 + "c" * 21}
    runs.append(finished(tmp_path / "third", {"baseline": texts, "ss": more}))
    seen = set()
    for other in runs[1:]:
        for own in compare(runs[0].path, other.path).table.drop_nulls("p").rows(named=True):
            assert (own["p"] <= 0.05) == (own["low"] > 0 or own["high"] < 0)
            seen.add(own["p"] <= 0.05)
    assert seen == {True, False}


def test_prompts_that_do_not_vary_have_no_interval_where_there_is_no_closed_form(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    for run in (first, second):
        odds = outcomes({"baseline": BASE, "ss": SS}).drop("verdict").with_columns(log_odds=pl.lit(1.0))
        odds.write_parquet(run.path / "log_odds.parquet")
    table = compare(first.path, second.path).table.filter(measure="refusal_log_odds")
    assert table.height
    assert table.select("low", "high", "p").null_count().row(0) == (table.height,) * 3


# ── what is compared ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_arms_are_named_or_primary_or_of_one_name(tmp_path: Path) -> None:
    first = two(tmp_path)[0]
    third = finished(tmp_path / "third", {"baseline": OTHER, "ms": MORE}, recipe=replace(RECIPE, primary="ms"))
    assert set(compare(first.path, third.path).table["second_arm"]) == {"baseline", "ms"}
    with pytest.raises(ResultError, match="third has no arm 'ss'") as refused:
        compare(first.path, third.path, arms="ss")
    assert refused.value.hint == "Known: ms."
    named = compare(first.path, third.path, arms=["ss=ms"]).table.filter(compared=ARM)
    assert set(named.select("first_arm", "second_arm").rows()) == {("ss", "ms")}
    none = finished(tmp_path / "none", {"baseline": OTHER, "ms": MORE}, recipe=replace(RECIPE, primary=None))
    found = compare(first.path, none.path)
    assert set(found.table["compared"]) == {UNTOUCHED}
    assert "No arm is compared" in found.found.notes[0]


def test_what_is_measured_in_one_run_alone_is_left_out(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    first.table("samples").with_columns(in_language=pl.lit(True)).write_parquet(first.path / "samples.parquet")
    assert set(compare(first.path, second.path).table["measure"]) == {"asr"}


# ── what does not pair ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_not_compared_with_itself(tmp_path: Path) -> None:
    first, _ = two(tmp_path)
    with pytest.raises(ResultError, match="cannot be compared with itself"):
        compare(first.path, str(first.path) + "/../first")


@pytest.mark.parametrize(("status", "says"), [("failed", "is failed"), ("running", "is killed")])
def test_only_finished_runs_are_compared(tmp_path: Path, status: str, says: str) -> None:
    first, second = two(tmp_path, status=status)
    with pytest.raises(ResultError, match=f"second {says}, and only finished runs"):
        compare(first.path, second.path)


def test_few_prompts_do_not_pair(tmp_path: Path) -> None:
    few = finished(tmp_path / "few", {"baseline": {"aa": "rrrrr"}, "ss": {"aa": "ccccc"}})
    first = two(tmp_path)[0]
    with pytest.raises(ResultError, match="Of 8 harmful prompts 5 are in both runs, and fewer than 6"):
        compare(first.path, few.path)


def test_other_prompts_that_cannot_be_read_again_do_not_pair(tmp_path: Path) -> None:
    gone = {"prompts": Prompts(str(tmp_path / "gone")), "digest": "f" * 64}
    first, second = two(tmp_path, **gone)
    with pytest.raises(ResultError, match=r"second has other prompts|prompts of first have changed"):
        compare(first.path, second.path)


def named_like(run: RunFolder, names: list[str]) -> None:
    """Gives the prompts p0, p1, … of a run the names that a prompt set has for them."""
    new = {f"p{place}": name for place, name in enumerate(names)}
    frame = run.table("samples").with_columns(pl.col("prompt_id").replace(new))
    frame.write_parquet(run.path / "samples.parquet")


def test_prompt_sets_pair_by_their_texts(tmp_path: Path) -> None:
    """One has more prompts and another text of one of them; the ids are equal."""
    rows = make_rows(("aa", "bb"), count=8)
    fewer = [
        row | {"text": "another"} if row["prompt_id"].endswith("harmful-3") else row
        for row in make_rows(("aa", "bb"), count=7)
    ]
    sets = [write(tmp_path / f"set {place}", own, anchor="aa") for place, own in enumerate((rows, fewer))]
    runs = []
    for place, folder in enumerate(sets):
        texts = {"aa": "rrrrrrrr"[: 8 - place], "bb": "rrrrcccc"[: 8 - place]}
        runs.append(
            finished(
                tmp_path / f"run {place}",
                {"baseline": texts, "ss": texts},
                prompts=Prompts(str(folder)),
                digest=load(folder).digest,
            )
        )
        named_like(runs[-1], [f"evaluate-harmful-{number}" for number in range(8)])
    found = compare(*(run.path for run in runs))
    assert row(found.table, UNTOUCHED, "bb")["n"] == 6
    assert "Of 8 harmful prompts 6 are in both runs." in found.found.notes


def test_other_judges_are_refused_and_both_are_named(tmp_path: Path) -> None:
    other = {**WORLD, "name": "phrases", "sha256": "b" * 64}
    first, second = two(tmp_path, judges=[other])
    with pytest.raises(JudgeError, match=r"first was judged by world \(aaaa.*, second by phrases \(bbbb") as refused:
        compare(first.path, second.path)
    assert "ssn-probe judge second --with world" in str(refused.value.hint)


def test_verdicts_of_a_judge_who_judged_one_run_afterwards_pair(tmp_path: Path) -> None:
    first, second = two(tmp_path, judges=[{**WORLD, "name": "phrases", "sha256": "b" * 64}])
    judge_afterwards(first, {"baseline": BASE, "ss": MORE}, name="phrases")
    found = compare(first.path, second.path)
    assert found.found.judge == "phrases"
    assert row(found.table, ARM)["difference"] == 0


def test_a_judge_of_other_languages_is_one_judge_in_those_of_both(tmp_path: Path) -> None:
    """What identifies the phrases is the lists of all languages that a run has."""
    folder = write(tmp_path / "set", make_rows(("en", "de", "it"), count=8), anchor="en", judge={"kind": "phrases"})
    runs = []
    for languages in (("en", "de"), ("en", "it")):
        prompts = load(folder, languages=languages)
        judge = make_judge(prompts.judge, languages, prompts.name)
        texts = dict.fromkeys(languages, "rrrrcccc")
        runs.append(
            finished(
                tmp_path / languages[1],
                {"baseline": texts, "ss": texts},
                prompts=Prompts(str(folder), languages=languages),
                digest=prompts.digest,
                judges=[{"name": judge.name, "sha256": digest(dict(judge.identity)), "contexts": ["harmful"]}],
            )
        )
        named_like(runs[-1], [f"evaluate-harmful-{number}" for number in range(8)])
    assert set(compare(*(run.path for run in runs)).table["language"]) == {"en", AVERAGE}


def test_a_run_without_judge_is_refused_beside_one_with(tmp_path: Path) -> None:
    nobody = {"name": "none", "sha256": "c" * 64, "contexts": ["harmful"]}
    first, second = two(tmp_path, judges=[nobody])
    with pytest.raises(JudgeError, match="second by none"):
        compare(first.path, second.path)


# ── what else differs ────────────────────────────────────────────────────────────────────────────────────────────────


def test_everything_else_that_differs_is_listed(tmp_path: Path) -> None:
    arms = RECIPE.arms | {"ss": Suppress(RECIPE.arms["ms"].neurons), "more": RECIPE.arms["ss"]}
    recipe = replace(RECIPE, arms=arms, system="Be brief.", seed=3)
    model = {"name": "other", "digest": "e" * 64, "dtype": "bfloat16"}
    first, second = two(tmp_path, recipe=recipe, model=model, device="cuda", packages={"torch": "2"})
    listed = {one.where: (one.first, one.second) for one in compare(first.path, second.path).found.differs}
    assert listed == {
        "recipe.arms.ss.neurons": ("Shared(SafetyNeurons(Prompts, Refusal))", "SafetyNeurons(Prompts, Refusal)"),
        "recipe.arms.more": ("none", "Suppress(Shared(SafetyNeurons(Prompts, Refusal)))"),
        "recipe.seed": ("0", "3"),
        "recipe.system": ("none", "Be brief."),
        "model.name": ("organism", "other"),
        "model.dtype": ("none", "bfloat16"),
        "device": ("none", "cuda"),
        "packages": ("none", "torch: 2"),
    }


def test_a_value_that_differs_alike_everywhere_is_one_line(tmp_path: Path) -> None:
    first, second = two(tmp_path, prompts=Prompts("organism", limit=50), digest="d" * 64)
    limit = next(one for one in compare(first.path, second.path).found.differs if one.where.endswith("limit"))
    assert (limit.first, limit.second, limit.places) == ("none", "50", 3)


def test_every_field_of_a_manifest_says_how_a_run_was_made_or_is_known_not_to() -> None:
    made = {"packages", "python", "platform", "git"}  # of the environment, which has no field of its own
    known = {one.name for one in fields(Manifest)}
    assert known - set(MADE_WITH) - set(FOUND.split()) == set()
    assert set(MADE_WITH) - known == made
