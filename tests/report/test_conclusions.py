"""What may be concluded is what the figures allow: each sentence changes sides when its figure does."""

from dataclasses import replace

import polars as pl
import pytest
from arm_samples import compared, comparisons, findings, primary_test, row, table

from ssn_probe.organism.ground_truth import COMPARISON
from ssn_probe.report.conclusions import conclusions as sections_of
from ssn_probe.report.conclusions import headlines
from ssn_probe.report.markdown import as_markdown
from ssn_probe.spec import ASR, Amplify, Prompts, Recipe, SafetyNeurons, Shared, Suppress
from ssn_probe.stats.nulls.exchangeability import Exchangeability
from ssn_probe.stats.nulls.permutation_null import SCHEMA
from ssn_probe.stats.nulls.stability import JACCARD
from ssn_probe.study.arms import WEAKENED
from ssn_probe.study.findings import Findings
from ssn_probe.study.robustness import Robustness

MAY_NOT, DESCRIBED = "## What may not be concluded", "## What is described, not tested"
PROMPTS = Prompts("organism")
SS = Shared(SafetyNeurons(PROMPTS))


def conclusions(recipe: Recipe, found: Findings) -> str:
    """The sections as they stand in report.md."""
    return "\n".join(map(as_markdown, sections_of(recipe, found)))


def recipe(arm: Suppress | Amplify) -> Recipe:
    return Recipe(arms={"ss": arm}, measures=(ASR(PROMPTS),), primary="ss")


def found(p: float | None, low: float, high: float, weaker: tuple[float, float] = (0.02, 0.1)) -> Findings:
    tested = row("ss", delta=(low + high) / 2, delta_low=low, delta_high=high)
    alone = row("ss", role=WEAKENED, delta=0.05, delta_low=weaker[0], delta_high=weaker[1])
    return findings(summary=table(tested, alone), comparisons=comparisons(primary_test("ss", p)))


def sides(text: str) -> tuple[str, str, str]:
    """What may be concluded, what may not, and what is described."""
    rest, _, described = text.partition(DESCRIBED)
    may, _, may_not = rest.partition(MAY_NOT)
    return may, may_not, described


@pytest.mark.parametrize(
    ("p", "low", "high", "shown"),
    [(0.048, 0.1, 0.2, True), (0.1, 0.1, 0.2, False), (0.048, -0.1, 0.2, False), (None, 0.1, 0.2, False)],
)
def test_the_arm(p: float | None, low: float, high: float, shown: bool) -> None:
    may, may_not, described = sides(conclusions(recipe(Suppress(SS)), found(p, low, high)))
    assert ("weakens refusal more than" in may) == shown
    assert ("ss weakens refusal more than" in may_not) != shown
    assert "difference of +19.0 points (+13.0 to +25.0)" in (may if shown else may_not)
    assert ("That ss does no more than such sets" in may_not) == (p is not None and not shown)
    assert "Without its top neuron in each language, ss changed ASR by +5.0 points" in described


def test_amplifying_is_judged_by_its_own_direction() -> None:
    amplified = found(0.048, -0.2, -0.1, weaker=(-0.1, 0.1))
    may, may_not, _ = sides(conclusions(recipe(Amplify(SS, by=2)), amplified))
    assert "strengthens refusal more than" in may
    assert "strengthens refusal more than" not in may_not


def test_without_a_valid_null_nothing_is_shown_and_the_reason_is_told() -> None:
    why = "no prompts are exchangeable"
    robustness = Robustness(exchangeability=(Exchangeability(sets=("ss",), prompts=10, impossible=why),))
    rejects = replace(found(0.048, 0.1, 0.2), robustness=robustness)
    may, may_not, _ = sides(conclusions(recipe(Suppress(SS)), rejects))
    assert "weakens refusal" not in may
    assert f"not tested. No valid null exists: {why}." in may_not
    assert "p =" not in may_not
    assert f"not tested, because no valid null exists: {why}" in headlines(recipe(Suppress(SS)), rejects)[0]


@pytest.mark.parametrize(("p_holm", "room", "shown"), [(0.04, 0.1, True), (0.06, 0.1, False), (0.04, 0.0, False)])
def test_other_tests_show_only_what_they_reject_after_holm(p_holm: float, room: float, shown: bool) -> None:
    figures = {"observed": 0.6, "mean": 0.6 - room, "low": 0.6 - room, "high": 0.6 - room, "p": 0.02}
    own = compared("ss", "own", **figures, p_holm=p_holm)
    rows = comparisons(primary_test("ss", 0.3), own)
    may, may_not, _ = sides(conclusions(recipe(Suppress(SS)), replace(found(0.3, 0.1, 0.2), comparisons=rows)))
    assert ("Is it that languages share them?" in may) == shown
    assert ("Is it that languages share them?" in may_not) != shown
    assert ("Not testable" in may_not) == (room == 0)


def size_null(name: str, p: float) -> tuple:
    return (name, "size", "average", None, 10.0, 10.0, 5.0, 3.0, 7.0, 5.0, 3.0, 7.0, 8.0, p, 1000)


@pytest.mark.parametrize(("p", "shown"), [(0.01, True), (0.03, False), (0.9, False)])
def test_sharing_is_adjusted_over_the_sets(p: float, shown: bool) -> None:
    """0.03 is 0.06 after Holm over two sets."""
    nulls = [size_null("ss", p), size_null("ms", 0.5)]
    robustness = Robustness(nulls=pl.DataFrame(nulls, schema=SCHEMA, orient="row"))
    line = headlines(replace(recipe(Suppress(SS)), sets={"ms": SS.neurons}), findings(robustness=robustness))[0]
    assert line.startswith("Shown: more is shared" if shown else "Not shown: that more is shared")
    assert "difference +5.0 (+3.0 to +7.0)" in line
    assert ("8.0 or more would have shown it" in line) != shown


@pytest.mark.parametrize(("jaccard", "shown"), [(0.8, True), (0.2, False), (None, False)])
def test_stability(jaccard: float | None, shown: bool) -> None:
    row = dict.fromkeys(JACCARD) | {"set": "ss", "language": "qaa", "jaccard": jaccard, "pairs": 50}
    rows = pl.DataFrame([row], schema=JACCARD)
    text = conclusions(recipe(Suppress(SS)), findings(robustness=Robustness(jaccard=rows)))
    assert sides(text)[0] == "", "a description shows nothing"
    assert ("mostly the same ss" in sides(text)[2]) == shown
    assert ("other neurons than ss" in sides(text)[2]) == (jaccard == 0.2)
    assert ("no half of the prompts gave any" in sides(text)[2]) == (jaccard is None)


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
    study = findings(truth=truth)
    line, _ = headlines(recipe(Suppress(SS)), study)
    assert line.startswith("Against what was planted: ss ")
    assert "hown" not in line
    assert words in sides(conclusions(recipe(Suppress(SS)), study))[2]


def test_figures_of_the_organism_are_about_the_tool() -> None:
    text = conclusions(recipe(Suppress(SS)), findings())
    assert "the organism's figures are about the tool" in sides(text)[1]


def test_doses_of_one_set_give_one_finding() -> None:
    rows = [size_null(name, 0.9) for name in ("low", "high")]
    robustness = Robustness(nulls=pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    doses = Recipe(arms={"low": Amplify(SS, by=2), "high": Amplify(SS, by=4)}, measures=(ASR(PROMPTS),))
    sharing, never = headlines(doses, findings(robustness=robustness))
    assert sharing.count("more is shared") == 1
    assert never.startswith("Not shown by any of this: that these neurons alone carry refusal; ")
