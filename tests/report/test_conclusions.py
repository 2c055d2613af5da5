"""What is shown, what is described and what no run shows: each sentence changes when its figure does."""

from dataclasses import replace

import polars as pl
import pytest
from arm_samples import comparisons, findings, primary_test, row, table

from ssn_probe.organism.ground_truth import COMPARISON
from ssn_probe.report.claims import claims
from ssn_probe.report.conclusions import claims_section, described_section, never_section
from ssn_probe.report.document import Section
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.markdown import as_markdown
from ssn_probe.spec import ASR, Amplify, Prompts, Recipe, SafetyNeurons, Shared, Suppress
from ssn_probe.stats import Estimate
from ssn_probe.stats.nulls.stability import JACCARD
from ssn_probe.study.arms import WEAKENED
from ssn_probe.study.findings import Findings
from ssn_probe.study.refusal_trial import Refusals
from ssn_probe.study.robustness import Robustness
from ssn_probe.study.training_curves import Difference

PROMPTS = Prompts("organism")
SS = Shared(SafetyNeurons(PROMPTS))


def recipe(arm: Suppress | Amplify) -> Recipe:
    return Recipe(arms={"ss": arm}, measures=(ASR(PROMPTS),), primary="ss")


def found(p: float | None, low: float, high: float, weaker: tuple[float, float] = (0.02, 0.1)) -> Findings:
    tested = row("ss", delta=(low + high) / 2, delta_low=low, delta_high=high)
    alone = row("ss", role=WEAKENED, delta=0.05, delta_low=weaker[0], delta_high=weaker[1])
    return findings(summary=table(tested, alone), comparisons=comparisons(primary_test("ss", p)))


def text_of(made: Section | None) -> str:
    return "" if made is None else as_markdown(made)


def described(study: Findings) -> str:
    return text_of(described_section(FinishedRun(recipe=recipe(Suppress(SS)), manifest={}, findings=study)))


def never(study: Findings) -> str:
    return text_of(never_section(FinishedRun(recipe=recipe(Suppress(SS)), manifest={}, findings=study)))


@pytest.mark.parametrize(("p", "shown"), [(0.048, True), (0.1, False), (None, False)])
def test_the_claims_come_with_their_verdicts(p: float | None, shown: bool) -> None:
    study = found(p, 0.1, 0.2)
    text = text_of(claims_section(claims(FinishedRun(recipe=recipe(Suppress(SS)), manifest={}, findings=study))))
    assert ("| shown |" in text) == shown
    assert ("| not shown |" in text) == (p == 0.1)
    assert ("| not testable |" in text) == (p is None)
    assert ("A claim that is not shown is not refuted" in text) == (p == 0.1)
    assert "+19.0 points (+13.0 to +25.0)" in text
    assert "weakens refusal" not in described(study)


def test_without_its_top_neuron_is_described() -> None:
    assert "Without its top neuron in each language, ss changed ASR by +5.0 points" in described(found(0.05, 0.1, 0.2))


def test_the_set_that_is_ranked_is_told_where_it_is_another_than_the_tested_one() -> None:
    """Prompts whose labels cannot be exchanged take no part: the set of the others is what is ranked."""
    study = found(0.05, 0.1, 0.2)
    assert "labels exchange" not in described(study)
    part = replace(study, comparisons=comparisons(primary_test("ss", observed=0.57)))
    assert "the set of the prompts whose labels exchange, which gave an ASR of 57.0 %" in described(part)


def test_trainings_beside_random_sets_are_told_step_by_step() -> None:
    estimate = Estimate(value=-0.1, low=-0.2, high=0.0, n=10, clusters=10, method="")
    zero = replace(estimate, value=0.0)
    differences = [
        Difference(curve="ss", step=step, measure=measure, random_sets=3, estimate=figures)
        for step in (8, 20)
        for measure, figures in (("asr", estimate), ("utility", zero if step == 8 else estimate))
    ]
    assert (
        "ss less the mean of its 3 random sets, in points: after 8 steps ASR -10.0 (-20.0 to +0.0); after 20 steps ASR "
        "-10.0 (-20.0 to +0.0), utility -10.0 (-20.0 to +0.0) (95 % intervals over prompts, for these very sets)."
    ) in described(findings(differences=tuple(differences)))


def test_where_no_refusal_was_seen_no_neuron_is_one_of_safety() -> None:
    nothing = Refusals(data="mine", language="aa", harmful=40, refused=0, harmless=40, refused_harmless=0)
    text = never(findings(refusals=(nothing, replace(nothing, language="bb"))))
    assert "That any of these neurons are safety neurons: no refusal was shown: refused were 0 of 40 harmful" in text
    assert "harmless in aa and 0 of 40 harmful prompts and 0 of 40 harmless in bb." in text
    assert "are safety neurons" not in never(findings(refusals=(replace(nothing, refused=40),)))
    alone = never(findings(refusals=(nothing, replace(nothing, language="it", harmless=0))))
    assert "harmless in aa and 0 of 40 harmful prompts in it." in alone


@pytest.mark.parametrize(("jaccard", "shown"), [(0.8, True), (0.2, False), (None, False)])
def test_stability(jaccard: float | None, shown: bool) -> None:
    row = dict.fromkeys(JACCARD) | {"set": "ss", "language": "qaa", "jaccard": jaccard, "pairs": 50}
    rows = pl.DataFrame([row], schema=JACCARD)
    text = described(findings(robustness=Robustness(jaccard=rows)))
    assert ("mostly the same neurons for ss" in text) == shown
    assert ("give other neurons for ss" in text) == (jaccard == 0.2)
    assert ("(split-half Jaccard 0.20)" in text) == (jaccard == 0.2), "one row is no span over languages"
    assert ("no half of the prompts gave any" in text) == (jaccard is None)


@pytest.mark.parametrize(
    ("mass", "precision", "words"),
    [
        (0.9, 0.9, "ss is most of what was planted"),
        (0.2, 0.9, "ss is part of what was planted"),
        (0.9, 0.1, "ss is not the set that was planted"),
    ],
)
def test_a_set_that_is_not_the_planted_one_is_said_to_be_so(mass: float, precision: float, words: str) -> None:
    row = dict.fromkeys(COMPARISON) | {"set": "ss", "language": "*", "question": "harmful"}
    row |= {"mass": mass, "precision": precision}
    other = row | {"ranked_by": "average", "mass": 0.5, "precision": 0.5}
    truth = pl.DataFrame([row | {"ranked_by": "own"}, other], schema={**COMPARISON, "ranked_by": pl.String})
    text = described(findings(truth=truth))
    assert words in text
    assert "hown" not in text


def test_figures_of_the_organism_are_about_the_tool() -> None:
    text = never(findings())
    assert "the organism's figures are about the tool" in text
    assert "That these neurons alone carry refusal: others may" in text
