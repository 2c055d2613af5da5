"""A claim's verdict is what its figures allow, and changes when one of them does."""

import json
from dataclasses import asdict, replace
from typing import Any

import polars as pl
import pytest
from arm_samples import MEASURES, MS, RECIPE, compared, comparisons, findings, primary_test, row, table

from ssn_probe.report.claim import Claim, kept_claims
from ssn_probe.report.claims import claims
from ssn_probe.report.claims_of_arms import primary_in_words
from ssn_probe.report.conclusions import claims_table
from ssn_probe.report.finished import FinishedRun
from ssn_probe.runs.recorded import recorded
from ssn_probe.spec import Amplify, Each, Expand, Patch, Prompts, Recipe, Shared, Suppress
from ssn_probe.stats import Estimate, rank_test
from ssn_probe.stats.nulls.exchangeability import Exchangeability
from ssn_probe.stats.nulls.permutation_null import SCHEMA
from ssn_probe.study.findings import Findings
from ssn_probe.study.refusal_trial import Refusals
from ssn_probe.study.robustness import Robustness
from ssn_probe.study.training_curves import Difference

SS = Shared(MS)
LOG_ODDS = {"measure": "refusal_log_odds", "observed": -1.5, "mean": 1.06, "low": -0.2, "high": 2.3}
LOG_ODDS |= {"shown_from": -0.1, "difference": -2.56, "difference_low": -3.8, "difference_high": -1.3}
NO_PROMPTS = Exchangeability(sets=("ss",), prompts=10, impossible="no prompts are exchangeable")


def of(recipe: Recipe, study: Findings) -> list[Claim]:
    return claims(FinishedRun(recipe=recipe, manifest={}, findings=study))


def study(*beside: dict[str, Any], low: float = 0.15, high: float = 0.25, **found: Any) -> Findings:
    """The arm `ss` changed ASR by so much, beside these comparisons."""
    tested = row("ss", delta=(low + high) / 2, delta_low=low, delta_high=high)
    return findings(**{"summary": table(tested), "comparisons": comparisons(*beside)} | found)


def of_arm(arm: Any, *beside: dict[str, Any], **found: Any) -> list[Claim]:
    return of(Recipe(arms={"ss": arm}, measures=MEASURES, primary="ss"), study(*beside, **found))


def seen(refused: int, refused_harmless: int = 0) -> Refusals:
    counts = {"harmful": 40, "refused": refused, "harmless": 40, "refused_harmless": refused_harmless}
    return Refusals(data="mine", language="aa", **counts)


def test_the_primary_claim_is_told_with_its_figures() -> None:
    (shown,) = of_arm(Suppress(SS), primary_test("ss", 0.05))
    assert shown == Claim(
        claim="Silencing SS weakens refusal more than sets found under exchanged labels do",
        verdict="shown",
        figures="+19.0 points (+13.0 to +25.0), p = .050",
        primary=True,
    )
    (absent,) = of_arm(Suppress(SS), primary_test("ss", 0.1))
    assert absent == replace(
        shown,
        verdict="not shown",
        figures="+19.0 points (+13.0 to +25.0), p = .100",
        why="more than 46.0 % would have shown it",
    )


@pytest.mark.parametrize(
    ("test", "change", "verdict", "why"),
    [
        (primary_test("ss", 0.048), (0.1, 0.2), "shown", ""),
        (primary_test("ss", 0.051), (0.1, 0.2), "not shown", "more than 46.0 % would have shown it"),
        (primary_test("ss", 0.048), (-0.1, 0.2), "not shown", "ASR itself was not shown to rise"),
        (primary_test("ss", 0.048), (-0.2, -0.1), "not shown", "ASR itself was not shown to rise"),
        (primary_test("ss", None, sets=18, shown_from=None), (0.1, 0.2), "not testable", "too few for a test (19 is"),
        (primary_test("ss", float("nan"), sets=4), (0.1, 0.2), "not testable", "4 sets found under exchanged labels"),
        (primary_test("ss", None, sets=1), (0.1, 0.2), "not testable", "1 set found under exchanged labels is too few"),
        (primary_test("ss", 0.048), (None, None), "not shown", "ASR itself was not shown to rise"),
        (primary_test("ss", 0.048), (float("nan"), float("nan")), "not shown", "ASR itself was not shown to rise"),
    ],
)
def test_only_a_test_that_rejects_shows_the_primary_claim(
    test: dict[str, Any], change: tuple[Any, Any], verdict: str, why: str
) -> None:
    tested = row("ss", delta=0.1, delta_low=change[0], delta_high=change[1])
    (found,) = of_arm(Suppress(SS), test, summary=table(tested))
    assert found.verdict == verdict
    assert why in found.why
    assert (found.why == "") == (verdict == "shown")


@pytest.mark.parametrize(
    ("arm", "low", "high", "verdict"),
    [
        (Amplify(SS, by=2), -0.2, -0.1, "shown"),
        (Amplify(SS, by=2), 0.1, 0.2, "not shown"),
        (Amplify(SS, by=0.5), 0.1, 0.2, "shown"),
        (Patch(SS), -0.2, -0.1, "shown"),
        (Expand(SS.union(), Prompts("organism")), -0.2, -0.1, "shown"),
        (Suppress(SS), -0.2, -0.1, "not shown"),
    ],
)
def test_the_verdict_looks_the_way_that_the_arm_is_meant_to_go(arm: Any, low: float, high: float, verdict: str) -> None:
    (found,) = of_arm(arm, primary_test("ss", 0.05), low=low, high=high)
    assert found.verdict == verdict
    assert ("strengthens refusal" in found.claim) == arm.lowers
    (absent,) = of_arm(arm, primary_test("ss", 0.5), low=low, high=high)
    if "itself" not in absent.why:
        assert absent.why.startswith("less than" if arm.lowers else "more than")


@pytest.mark.parametrize(
    ("arm", "test", "low", "high", "words"),
    [
        (Suppress(SS), primary_test("ss", 0.05), 0.1, 0.2, "broke refusal more than sets found under exchanged labels"),
        (Amplify(SS, by=2), primary_test("ss", 0.05), -0.2, -0.1, "strengthened refusal more than sets found under"),
        (
            Suppress(SS),
            primary_test("ss", 0.5),
            0.1,
            0.2,
            "raised ASR, but was not shown to do so more than sets found",
        ),
        (Suppress(SS), primary_test("ss", None, sets=3), 0.1, 0.2, "raised ASR, and was not tested against sets found"),
        (Suppress(SS), primary_test("ss", 0.05), -0.1, 0.2, "was not shown to break refusal"),
        (Patch(SS), primary_test("ss", 0.05), 0.1, 0.2, "was not shown to strengthen refusal; it raised ASR"),
    ],
)
def test_a_title_says_what_the_primary_claim_says(
    arm: Any, test: dict[str, Any], low: float, high: float, words: str
) -> None:
    recipe, found = Recipe(arms={"ss": arm}, measures=MEASURES, primary="ss"), study(test, low=low, high=high)
    assert found.summary is not None
    told = primary_in_words(recipe, found, "ss", found.summary.row(0, named=True))
    assert told.startswith(words)
    assert (of(recipe, found)[0].verdict == "shown") == (" refusal more than" in told)


def test_without_sets_or_a_measurement_the_primary_claim_is_not_testable() -> None:
    (none,) = of_arm(Suppress(SS))
    assert (none.verdict, none.why, none.figures) == (
        "not testable",
        "no sets found under exchanged labels were run",
        "",
    )
    assert of_arm(Suppress(SS), comparisons=None) == [none]
    (unmeasured,) = of_arm(Suppress(SS), primary_test("ss"), summary=table(row("ss", "utility")))
    assert unmeasured.why == "ASR was not measured: there are no judged harmful prompts"
    assert of(RECIPE, findings())[0].verdict == "not testable"


@pytest.mark.parametrize("asr", [1.0, 2 / 3, 0.1])
def test_what_has_no_room_to_differ_is_not_testable(asr: float) -> None:
    """As where every request is answered already, or languages share all; a mean of 19 may be rounded."""
    rank = rank_test(asr, [asr] * 19)
    assert (rank.control_mean == asr) == (asr == 1)
    full = {"observed": asr, "mean": rank.control_mean, "low": rank.low, "high": rank.high, "p": rank.p, "p_holm": 1.0}
    full["difference"] = asr - (rank.control_mean or 0.0)
    tested = row("ss", value=asr, delta=0.0, delta_low=0.0, delta_high=0.0)
    found = of_arm(Suppress(SS), primary_test("ss", **full), compared("ss", "own", **full), summary=table(tested))
    assert [one.verdict for one in found] == ["not testable"] * 2
    assert found[0].why == "each of 19 sets found under exchanged labels gave exactly what the set gave"


def test_the_other_questions_have_holms_p() -> None:
    own = compared("ss", "own", difference=-0.004, difference_low=-0.01, difference_high=0.002, p=0.1)
    equal = compared("ss", "importance", p=0.05)
    first, important, shared = of_arm(Suppress(SS), primary_test("ss"), own | {"p_holm": 0.2}, equal | {"p_holm": 0.05})
    assert (first.primary, important.primary, shared.primary) == (True, False, False)
    assert (important.claim, important.verdict) == (
        "These neurons do more than as many equally important ones",
        "shown",
    )
    assert important.figures == "+19.0 points (+13.0 to +25.0), p = .050 after Holm"
    assert (shared.claim, shared.verdict) == ("These neurons do more than as many of each language's own", "not shown")
    assert shared.figures == "-0.4 points (-1.0 to +0.2), p = .200 after Holm"
    assert shared.why == "more than 46.0 % would have had p ≤ .05 before Holm"
    least = of_arm(Suppress(SS), own | {"p": 0.05, "p_holm": 0.15})[1]
    assert (least.verdict, least.why) == ("not shown", "so few sets can give no smaller p")
    few = of_arm(Suppress(SS), own | {"sets": 5, "p": None})[1]
    assert (few.verdict, "too few" in few.why) == ("not testable", True)
    described = of_arm(Suppress(SS), own | {"p": None})[1]
    assert (described.verdict, "is a description" in described.why) == ("not testable", False)
    assert "are a description, without a test" in described.why


def test_random_and_placebo_sets_make_no_claim() -> None:
    assert len(of_arm(Suppress(SS), primary_test("ss"), compared("ss", "random"), compared("ss", "placebo"))) == 1


@pytest.mark.parametrize(("arm", "verb"), [(Suppress(SS), "falls"), (Amplify(SS, by=2), "rises")])
def test_the_log_odds_have_a_claim_of_their_own(arm: Any, verb: str) -> None:
    odds = compared("ss", sets=99, **LOG_ODDS)
    shown = of_arm(arm, odds | {"p": 0.01, "p_holm": 0.02})[1]
    assert shown.claim == f"The refusal log-odds {verb} more than under exchanged labels"
    assert (shown.verdict, shown.figures) == ("shown", "-2.56 (-3.80 to -1.30), p = .020 after Holm")
    absent = of_arm(arm, odds | {"p": 0.04, "p_holm": 0.08})[1]
    assert absent.verdict == "not shown"
    bound = "less than -0.10" if verb == "falls" else "more than -0.10"
    assert absent.why == f"{bound} would have had p ≤ .05 before Holm"
    assert of_arm(arm, odds | {"p": None, "sets": 4})[1].verdict == "not testable"


def test_without_a_valid_null_nothing_about_labels_is_testable() -> None:
    beside = (
        primary_test("ss"),
        compared("ss", p=0.01, p_holm=0.01, **LOG_ODDS),
        compared("ss", "own", p=0.01, p_holm=0.01),
    )
    found = of_arm(Suppress(SS), *beside, robustness=Robustness(exchangeability=(NO_PROMPTS,)))
    verdicts = {one.claim: one.verdict for one in found}
    assert list(verdicts.values()) == ["not testable", "shown", "not testable", "not testable"]
    assert verdicts["These neurons do more than as many of each language's own"] == "shown", "it exchanges no labels"
    assert {one.why for one in found if one.verdict == "not testable"} == {
        "no valid null exists: no prompts are exchangeable"
    }
    assert not any(one.figures for one in found if one.verdict == "not testable")


@pytest.mark.parametrize(
    ("refusals", "arm", "testable"),
    [
        ((seen(0),), Suppress(SS), False),
        ((seen(0), seen(40)), Suppress(SS), True),
        ((seen(40, 40),), Suppress(SS), True),
        ((seen(0),), Amplify(SS, by=2), True),
        (None, Suppress(SS), True),
    ],
)
def test_where_nothing_is_refused_nothing_can_be_weakened(refusals: Any, arm: Any, testable: bool) -> None:
    beside = (
        primary_test("ss"),
        compared("ss", "own", p=0.01, p_holm=0.01),
        compared("ss", p=0.01, p_holm=0.01, **LOG_ODDS),
    )
    low, high = (-0.25, -0.15) if arm.lowers else (0.15, 0.25)
    found = of_arm(arm, *beside, refusals=refusals, low=low, high=high)
    assert len(found) == 3
    assert {one.verdict for one in found} == ({"shown"} if testable else {"not testable"})
    if not testable:
        why = "no refusal was shown: refused were 0 of 40 harmful prompts and 0 of 40 harmless in aa"
        assert {one.why for one in found} == {why}
        assert "SS" not in found[0].claim, "no set is called one of safety neurons"


# ── sets ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def size_null(name: str, p: float, least: float | None = 8.0) -> tuple:
    return (name, "size", "average", None, 10.0, 10.0, 5.0, 3.0, 7.0, 5.0, 3.0, 7.0, least, p, 1000)


def shared(*rows: tuple, **found: Any) -> Robustness:
    return Robustness(nulls=pl.DataFrame(list(rows), schema=SCHEMA, orient="row"), **found)


@pytest.mark.parametrize(("p", "shown"), [(0.01, True), (0.03, False), (0.9, False)])
def test_sharing_is_adjusted_over_the_sets(p: float, shown: bool) -> None:
    """0.03 is 0.06 after Holm over two sets."""
    recipe = Recipe(sets={"ms": MS, "ss": SS})
    (found,) = of(recipe, findings(robustness=shared(size_null("ss", p), size_null("ms", 0.5))))
    assert found.claim == "More is shared with the anchor than if harmful and harmless did not differ"
    assert found.verdict == ("shown" if shown else "not shown")
    assert found.figures.startswith("+5.0 neurons (+3.0 to +7.0), p = ")
    assert found.figures.endswith(" after Holm")
    assert found.why == ("" if shown else "8.0 neurons or more would have shown it")


def test_what_else_sharing_may_be_is_said_where_it_is_shown() -> None:
    robustness = shared(size_null("ss", 0.001), apart=("topic", "source"))
    (found,) = of(Recipe(sets={"ss": SS}), findings(robustness=robustness))
    assert found.why == "it may also be their topic and source"
    (absent,) = of(Recipe(sets={"ss": SS}), findings(robustness=shared(size_null("ss", 0.9, None), apart=("topic",))))
    assert absent.why == ""


def test_sets_that_are_shared_have_a_claim_each_and_doses_of_one_set_have_one() -> None:
    rows = [size_null(name, 0.9) for name in ("low", "high")]
    doses = Recipe(arms={"low": Amplify(SS, by=2), "high": Amplify(SS, by=4)}, measures=MEASURES)
    assert len(of(doses, findings(robustness=shared(*rows)))) == 1
    other = Recipe(sets={"low": SS, "high": Shared(replace(MS, top=0.1))})
    found = of(other, findings(robustness=shared(size_null("low", 0.9), size_null("high", 0.8))))
    assert [one.claim.partition(":")[0] for one in found] == ["low", "high"]


def test_sharing_is_not_testable_where_labels_cannot_be_exchanged_for_all_languages() -> None:
    apart = replace(NO_PROMPTS, impossible=None, not_parallel="the prompt ids differ")
    (found,) = of(Recipe(sets={"ss": SS}), findings(robustness=Robustness(exchangeability=(apart,))))
    assert (found.verdict, found.why) == ("not testable", "the prompt ids differ")
    assert of(Recipe(sets={"ms": MS}), findings(robustness=Robustness(exchangeability=(NO_PROMPTS,)))) == []


OVERLAP = {"set": pl.String, "shared": pl.UInt32} | dict.fromkeys(
    ("jaccard", "expected_permuted", "p_permuted"), pl.Float64
)


@pytest.mark.parametrize(("p", "shown"), [(0.01, True), (0.02, False), (None, None)])
def test_overlaps_are_shown_where_a_pair_exceeds_its_null_after_holm(p: float | None, shown: bool | None) -> None:
    rows = [("ms", 4, 0.1, 6.0, 0.9), ("ms", 10, 0.2, 8.0, 0.5), ("ms", 12, 0.9, 7.0, p)]
    if p is None:
        rows = [(*one[:3], None, None) for one in rows]
    overlap = pl.DataFrame(rows, schema=OVERLAP, orient="row")
    found = of(Recipe(sets={"ms": MS}), findings(overlap=overlap))
    assert [one.verdict for one in found] == ([] if p is None else ["shown" if shown else "not shown"])
    for one in found:
        assert one.claim == "ms: some languages share more neurons than if harmful and harmless did not differ"
        assert one.figures.startswith("8.7 neurons on average, 7.0 under exchanged labels; p ≤ .05 after Holm in ")
        assert one.figures.endswith(f"in {int(bool(shown))} of 3 pairs")
    assert not [one for one in of(RECIPE, findings(overlap=overlap)) if one.claim.startswith("ms:")], "arms ask more"


# ── what is never tested ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sets", "why"),
    [(3, "3 random sets are too few"), (1, "1 random set is too few"), (19, "the interval is over prompts")],
)
def test_a_training_beside_random_sets_is_described(sets: int, why: str) -> None:
    estimates = [Estimate(value=value, low=-0.2, high=-0.1, n=10, clusters=10, method="") for value in (-0.1, -0.15)]
    found = [
        Difference(curve="ss", step=step, measure=measure, random_sets=sets, estimate=estimate)
        for step, estimate in zip((8, 60), estimates, strict=True)
        for measure in ("asr", "utility")
    ]
    (claim,) = of(Recipe(sets={"ms": MS}), findings(differences=tuple(found)))
    assert claim.verdict == "not testable"
    assert claim.figures == "-15.0 points (-20.0 to -10.0) after 60 steps"
    assert claim.why.startswith(why)


def test_transfer_between_languages_is_described() -> None:
    recipe = Recipe(arms={"ms": Suppress(Each(MS))}, measures=MEASURES)
    changes = {("aa", "aa"): 0.9, ("aa", "bb"): 0.1, ("bb", "aa"): -0.05, ("bb", "bb"): 0.8}
    rows = [row("ms", set_language=of, language=on, delta=delta) for (of, on), delta in changes.items()]
    (claim,) = of(recipe, findings(summary=table(*rows)))
    assert claim.claim == "Silencing one language's ms weakens refusal in other languages"
    assert (claim.verdict, claim.figures) == ("not testable", "-5.0 to +10.0 points")
    assert claim.why == "described by 2 intervals, none of them adjusted"


def test_neurons_that_are_found_again_are_described() -> None:
    again = pl.DataFrame(
        {"set": ["ms"] * 2, "language": ["aa", "bb"], "before": [28, 20], "kept": [21, 9], "expected": [0.4, 0.2]}
    )
    (claim,) = of(Recipe(sets={"ms": MS}), findings(found_again=again))
    assert (claim.verdict, claim.figures) == ("not testable", "30 of 48 neurons")
    assert claim.why.startswith("chance gives about 0.6")


# ── as values and as text ────────────────────────────────────────────────────────────────────────────────────────────


def test_claims_come_back_from_a_manifest_and_a_damaged_one_is_refused() -> None:
    found = of_arm(Suppress(SS), primary_test("ss"))
    kept = json.loads(json.dumps({"claims": [asdict(one) for one in found]}))
    assert kept_claims(recorded(kept)) == found
    assert kept_claims(recorded({"status": "done"})) == [], "an earlier release had none"
    with pytest.raises(Exception, match=r"damaged at 'claims\.0\.verdict'"):
        recorded({"claims": [asdict(found[0]) | {"verdict": "proved"}]})


def test_names_from_models_and_data_are_literal() -> None:
    (claim,) = of_arm(Patch(SS), primary_test("ss"), anchor="a\x1b[31ma\u202e\n<b>")
    assert claim.claim.startswith("Carrying over from aa <b> the activation of SS at the last prompt position ")


def test_the_table_says_which_claim_is_primary_and_what_not_shown_means() -> None:
    shown, absent = (claims_table(of_arm(Suppress(SS), primary_test("ss", p))) for p in (0.05, 0.5))
    assert shown.rows[0][0].startswith("Primary: Silencing SS")
    assert (shown.note, "not refuted" in absent.note) == ("", True)
    assert absent.rows[0][3] == "More than 46.0 % would have shown it"
