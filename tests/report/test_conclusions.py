"""What may be concluded is what the figures allow: each sentence changes sides when its figure does."""

import polars as pl
import pytest
from arm_samples import findings, row, table

from ssn_probe.organism.ground_truth import COMPARISON
from ssn_probe.report.conclusions import conclusions, headlines
from ssn_probe.spec import ASR, Amplify, Prompts, Recipe, SafetyNeurons, Shared, Suppress
from ssn_probe.stats import Estimate
from ssn_probe.stats.nulls.permutation_null import SCHEMA
from ssn_probe.stats.nulls.stability import JACCARD
from ssn_probe.study.arms import WEAKENED
from ssn_probe.study.robustness import Robustness

MAY, MAY_NOT = "## What may be concluded", "## What may not be concluded"
PROMPTS = Prompts("organism")
SS = Shared(SafetyNeurons(PROMPTS))


def recipe(arm: Suppress | Amplify) -> Recipe:
    return Recipe(arms={"ss": arm}, measures=(ASR(PROMPTS),), primary="ss")


def summary(p: float | None, low: float, high: float, weaker: tuple[float, float] = (0.02, 0.1)) -> pl.DataFrame:
    tested = row("ss", controls=20, p=p, delta=(low + high) / 2, delta_low=low, delta_high=high)
    return table(tested, row("ss", role=WEAKENED, delta=0.05, delta_low=weaker[0], delta_high=weaker[1]))


def sides(text: str) -> tuple[str, str]:
    may, _, may_not = text.partition(MAY_NOT)
    return may, may_not


@pytest.mark.parametrize(
    ("p", "low", "high", "shown"),
    [(0.048, 0.1, 0.2, True), (0.1, 0.1, 0.2, False), (0.048, -0.1, 0.2, False), (None, 0.1, 0.2, False)],
)
def test_the_arm(p: float | None, low: float, high: float, shown: bool) -> None:
    may, may_not = sides(conclusions(recipe(Suppress(SS)), findings(summary=summary(p, low, high))))
    assert ("weakens refusal more than" in may) == shown
    assert ("ss weakens refusal more than" in may_not) != shown


def test_amplifying_is_judged_by_its_own_direction() -> None:
    rows = summary(0.048, -0.2, -0.1, weaker=(-0.1, 0.1))
    may, may_not = sides(conclusions(recipe(Amplify(SS, by=2)), findings(summary=rows)))
    assert "strengthens refusal more than" in may
    assert "single neuron: not shown" in may_not


@pytest.mark.parametrize("low", [0.01, -0.01])
def test_the_placebo(low: float) -> None:
    found = Estimate(value=0.05, low=low, high=0.1, n=10, clusters=10, method="cluster bootstrap")
    (line,) = headlines(recipe(Suppress(SS)), findings(beyond_placebo=found))
    assert line.startswith("Shown: " if low > 0 else "Not shown: ")


@pytest.mark.parametrize("p", [0.01, 0.9])
def test_sharing(p: float) -> None:
    null = ("ss", "size", "average", None, 10.0, 10.0, 5.0, 3.0, 7.0, 5.0, 3.0, 7.0, 8.0, p, 1000)
    robustness = Robustness(nulls=pl.DataFrame([null], schema=SCHEMA, orient="row"))
    (line,) = headlines(recipe(Suppress(SS)), findings(robustness=robustness))
    assert line.startswith("Shown: more" if p < 0.05 else "Not shown: that languages share")
    assert "difference +5.0, 95 % interval +3.0 to +7.0" in line
    unsure = "; 8.0 or more would have shown it). Their number is no evidence of shared safety."
    assert line.endswith(unsure) == (p > 0.05)
    assert "about as many" not in line


@pytest.mark.parametrize(("jaccard", "shown"), [(0.8, True), (0.2, False), (None, False)])
def test_stability(jaccard: float | None, shown: bool) -> None:
    row = dict.fromkeys(JACCARD) | {"set": "ss", "language": "qaa", "jaccard": jaccard, "pairs": 50}
    rows = pl.DataFrame([row], schema=JACCARD)
    text = conclusions(recipe(Suppress(SS)), findings(robustness=Robustness(jaccard=rows)))
    assert ("mostly the same ss" in sides(text)[0]) == shown
    assert ("neurons ss consists of" in sides(text)[1]) != shown


@pytest.mark.parametrize(
    ("mass", "precision", "words"),
    [
        (0.9, 0.9, "Shown: ss is most of what was planted"),
        (0.2, 0.9, "Not shown: that ss is all that carries refusal"),
        (0.9, 0.1, "Not shown: that ss is the set that carries refusal: it is not the planted set"),
    ],
)
def test_a_set_that_is_not_the_planted_one_is_said_to_be_so(mass: float, precision: float, words: str) -> None:
    row = dict.fromkeys(COMPARISON) | {"set": "ss", "language": "*", "question": "harmful"}
    row |= {"mass": mass, "precision": precision}
    other = row | {"ranked_by": "average", "mass": 0.5, "precision": 0.5}
    truth = pl.DataFrame([row | {"ranked_by": "own"}, other], schema={**COMPARISON, "ranked_by": pl.String})
    (line,) = headlines(recipe(Suppress(SS)), findings(truth=truth))
    assert line.startswith(words)


def test_figures_of_the_organism_are_about_the_tool() -> None:
    text = conclusions(recipe(Suppress(SS)), findings())
    assert "the organism's figures are about the tool" in sides(text)[1]


def test_doses_of_one_set_give_one_finding() -> None:
    rows = [
        (name, "size", "average", None, 10.0, 10.0, 12.0, 9.0, 14.0, -2.0, -4.0, 1.0, 15.0, 0.9, 1000)
        for name in ("low", "high")
    ]
    robustness = Robustness(nulls=pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    doses = Recipe(arms={"low": Amplify(SS, by=2), "high": Amplify(SS, by=4)}, measures=(ASR(PROMPTS),))
    assert len(headlines(doses, findings(robustness=robustness))) == 1
