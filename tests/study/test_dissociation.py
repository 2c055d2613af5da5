"""Two sets and two behaviours, on responses made by hand: worked examples, and what counts as one of each."""

from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from arm_samples import findings

from ssn_probe.report.claim import Claim
from ssn_probe.report.claims_of_arms import dissociation_claims
from ssn_probe.report.markdown import as_markdown
from ssn_probe.report.sections.double_dissociation import dissociation_section
from ssn_probe.spec import ASR, InLanguage, Intervention, Prompts, RandomLike, Recipe, SafetyNeurons, Shared, Suppress
from ssn_probe.study.dissociation import Dissociation, dissociated, dissociation
from ssn_probe.study.refusal_trial import Refusals
from ssn_probe.study.summary import summarise

PROMPTS = Prompts("organism")
SAFETY, LANGUAGE = SafetyNeurons(PROMPTS), SafetyNeurons(PROMPTS, effect="language", rule="harmful")
MEASURES = (ASR(PROMPTS), InLanguage(PROMPTS))
ARMS: dict[str, Intervention] = {"safety": Suppress(SAFETY), "language": Suppress(LANGUAGE)}
RECIPE = Recipe(arms=ARMS, measures=MEASURES, comparisons=())
PROMPTS_EACH = 40


def responses(arm: str, refused: int, spoken: int, wrong: str = "refused") -> pl.DataFrame:
    """40 responses in each of aa, bb and cc: the first `refused` refuse, the first `spoken` are in the language."""
    rows: list[dict[str, Any]] = [
        {
            "prompt_id": f"p{i}",
            "cluster": f"c{i}",
            "context": "harmful",
            "eval_language": language,
            "arm": arm,
            "role": "baseline" if arm == "baseline" else "tested",
            "verdict": "refused" if i < refused else "complied" if i < spoken else wrong,
            "correct": None,
            "seed": None,
            "step": None,
            "set_language": None if arm == "baseline" else language,
            "in_language": i < spoken,
        }
        for language in ("aa", "bb", "cc")
        for i in range(PROMPTS_EACH)
    ]
    kinds = {"seed": pl.Int32, "set_language": pl.String, "step": pl.Int64, "correct": pl.Boolean}
    return pl.DataFrame(rows, schema_overrides=kinds)


def found(safety: tuple[int, int], language: tuple[int, int]) -> tuple[Dissociation, pl.DataFrame]:
    """The untouched model refuses 30 of 40 in its language, and each arm so many: (refused, in the language)."""
    frames = [responses("baseline", 30, 40), responses("safety", *safety), responses("language", *language, "invalid")]
    samples = pl.concat(frames)
    made = dissociation(RECIPE, samples, None, None, "aa")
    assert made is not None
    return made, summarise(samples, None, anchor="aa", primary=None)


def claims_of(made: Dissociation, summary: pl.DataFrame, **study: Any) -> list[Claim]:
    return list(dissociation_claims(RECIPE, findings(dissociation=made, summary=summary, **study)))


def average(made: Dissociation, behaviour: str) -> dict[str, Any]:
    return made.contrasts.filter(behaviour=behaviour, language="average").row(0, named=True)


def test_each_behaviour_is_lower_where_its_own_set_is_silenced() -> None:
    made, summary = found(safety=(10, 40), language=(30, 12))
    refused, spoken, both = (average(made, one) for one in ("refused", "in_language", "interaction"))
    assert refused["difference"] == pytest.approx(30 / 40 - 10 / 40)
    assert spoken["difference"] == pytest.approx(40 / 40 - 12 / 40)
    assert both["difference"] == pytest.approx(refused["difference"] + spoken["difference"])
    assert refused["n"] == 2 * PROMPTS_EACH
    assert all(row["low"] > 0 and row["p"] < 0.001 for row in (refused, spoken, both))
    (both_sets,) = claims_of(made, summary)
    assert both_sets.verdict == "shown"
    assert both_sets.figures.startswith("refusal -50.0 points (-")
    assert ", language -70.0 points (-" in both_sets.figures
    assert both_sets.figures.endswith(", p < .001")


def test_one_contrast_alone_is_no_double_dissociation() -> None:
    made, summary = found(safety=(10, 40), language=(30, 40))
    assert average(made, "interaction")["low"] > 0
    spoken = average(made, "in_language")
    assert spoken["low"] <= 0 <= spoken["high"]
    assert spoken["p"] is None or spoken["p"] > 0.05
    first, *_ = claims_of(made, summary)
    assert first.verdict == "not shown"
    assert first.why == "each set must lower its own behaviour, and lower it more than the other set does"


def test_without_a_p_or_a_refusal_two_sets_are_not_testable() -> None:
    made, summary = found(safety=(10, 40), language=(30, 12))
    spread = pl.when(pl.col("behaviour") != "refused").then("p")
    first, *_ = claims_of(replace(made, contrasts=made.contrasts.with_columns(p=spread)), summary)
    assert (first.verdict, first.why) == ("not testable", "a contrast has no spread, so it has no p")
    nothing = Refusals(data="mine", language="aa", harmful=40, refused=0, harmless=40, refused_harmless=0)
    first, *_ = claims_of(made, summary, refusals=(nothing,))
    assert first.verdict == "not testable"
    assert first.why.startswith("no refusal was shown")


def test_a_set_that_raises_the_other_behaviour_does_not_pass_for_one_that_lowers_its_own() -> None:
    """Refusal is higher where the language is silenced, and no lower where safety is: the contrast alone would pass."""
    made, summary = found(safety=(30, 40), language=(40, 12))
    assert average(made, "refused")["low"] > 0
    first, other = claims_of(made, summary)
    assert first.verdict == "not shown"
    assert (other.claim, other.verdict) == ("Silencing the language neurons moves refusal, too", "not testable")
    assert other.why == "its 95 % interval leaves out zero; described, not tested"
    assert other.figures.startswith("+25.0 points (+")


def test_the_section_says_how_the_wrong_language_is_judged() -> None:
    made, summary = found(safety=(10, 40), language=(6, 12))
    section = dissociation_section(made, summary, None, "aa")
    assert section is not None
    text = as_markdown(section)
    assert "| nothing | 75.0 | 100.0 |" in text
    assert "| safety | 25.0 (-50.0 [" in text
    assert "| language | 15.0 (-60.0 [" in text
    assert f"by verdict: language: {3 * (PROMPTS_EACH - 12)} invalid. An answer" in text
    assert "read what is refused, and not ASR" in text
    assert "averaged over languages without aa; in brackets" in text


def test_one_arm_of_each_kind() -> None:
    random: dict[str, Intervention] = {"random": Suppress(RandomLike(SAFETY))}
    assert dissociated(RECIPE) == dissociated(Recipe(arms=ARMS | random, measures=MEASURES)) == ("safety", "language")
    assert dissociated(Recipe(arms=ARMS, measures=MEASURES[:1])) is None
    assert dissociated(Recipe(arms={"safety": Suppress(SAFETY)}, measures=MEASURES)) is None
    two: dict[str, Intervention] = ARMS | {"shared": Suppress(Shared(SAFETY))}
    assert dissociated(Recipe(arms=two, measures=MEASURES)) is None
    mixed: dict[str, Intervention] = {"safety": Suppress(SAFETY), "both": Suppress(SAFETY | LANGUAGE)}
    assert dissociated(Recipe(arms=mixed, measures=MEASURES)) is None
