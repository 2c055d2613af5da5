"""The nodes of the recipe language: what may be written, what each default is, what is refused and with which hint."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ssn_probe import (
    ASR,
    Amplify,
    OverRefusal,
    Patch,
    Prompts,
    RandomLike,
    Recipe,
    SafetyNeurons,
    Shared,
    Suppress,
    Utility,
    paper,
)
from ssn_probe.errors import RecipeError
from ssn_probe.spec import (
    RULES,
    SITES,
    Ablation,
    Combine,
    Each,
    Final,
    FinalAblation,
    Local,
    Measure,
    NeuronFile,
    Of,
    Only,
    Refusal,
    UnionOf,
)
from ssn_probe.spec.node import from_json, to_json

PROMPTS = Prompts("a folder that does not exist")
MS = SafetyNeurons(PROMPTS)
OTHER = NeuronFile("other.csv")


@pytest.mark.parametrize(
    ("name", "node"),
    [("local", Local()), ("final", Final()), ("finalablation", FinalAblation()), ("refusal", Refusal())],
)
def test_an_effect_may_be_given_by_name(name: str, node: Any) -> None:
    assert SafetyNeurons(PROMPTS, effect=name) == SafetyNeurons(PROMPTS, effect=node)


def test_a_name_may_carry_the_value_of_a_parameter() -> None:
    assert SafetyNeurons(PROMPTS, effect="ablation:0.01") == SafetyNeurons(PROMPTS, effect=Ablation(0.01))
    assert SafetyNeurons(PROMPTS, effect="local:last") == SafetyNeurons(PROMPTS, effect=Local("last"))
    assert SafetyNeurons(PROMPTS, effect="refusal:1") == SafetyNeurons(PROMPTS, effect=Refusal(at=1))
    for text, said in {
        "ablation:2": "candidates is 2.0",
        "ablation:half": "Ablation.candidates is 'half'",
        "refusal:2": "at is 2.0",
        "loca:last": "unknown effect 'loca'",
    }.items():
        with pytest.raises(RecipeError, match=said):
            SafetyNeurons(PROMPTS, effect=text)


@pytest.mark.parametrize(
    ("rule", "share"), [("difference", 0.005), ("harmful", 0.005), ("both", 0.005), ("paper", 0.03)]
)
def test_every_rule_has_its_share(rule: str, share: float) -> None:
    assert RULES[rule] == share
    assert SafetyNeurons(PROMPTS, rule=rule).top == share
    assert SafetyNeurons(PROMPTS, rule=rule) == SafetyNeurons(PROMPTS, rule=rule, top=share)


def test_numerically_equal_expressions_are_equal() -> None:
    assert SafetyNeurons(PROMPTS, top=1) == SafetyNeurons(PROMPTS, top=1.0)
    backwards = tuple(reversed(SITES))
    assert SafetyNeurons(PROMPTS, sites=backwards).sites == SITES
    assert SafetyNeurons(PROMPTS, sites=("ffn", "q", "ffn")) == SafetyNeurons(PROMPTS, sites=("q", "ffn"))


@pytest.mark.parametrize("top", [0, 0.0, -0.1, 1.0001, 2, True, "0.1", (0.1,), float("nan"), float("inf")])
def test_top_outside_its_interval(top: Any) -> None:
    with pytest.raises(RecipeError, match="top is") as caught:
        SafetyNeurons(PROMPTS, top=top)
    assert caught.value.hint


def study(**changes: Any) -> Recipe:
    return Recipe(**({"arms": {"ms": Suppress(MS)}, "measures": (ASR(PROMPTS),)} | changes))


NO_SET = r"not a neuron set|\.neurons is"
REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "effect": (lambda: SafetyNeurons(PROMPTS, effect="locl"), "unknown effect 'locl'", "'local'"),
    "effect node": (lambda: SafetyNeurons(PROMPTS, effect=PROMPTS), "effect is", ""),  # type: ignore[arg-type]
    "rule": (lambda: SafetyNeurons(PROMPTS, rule="diference"), "unknown rule 'diference'", "'difference'"),
    "pool": (lambda: SafetyNeurons(PROMPTS, pool="layers"), "unknown pool 'layers'", "'layer'"),
    "site": (lambda: SafetyNeurons(PROMPTS, sites=("q", "fnn")), "unknown site 'fnn'", "'ffn'"),
    "no site": (lambda: SafetyNeurons(PROMPTS, sites=()), "sites is empty", "ffn"),
    "position": (lambda: Local("first"), "unknown position 'first'", "mean, last"),
    "final position": (lambda: Final("mean"), "unknown position 'mean'", "last"),
    "no probes": (lambda: Final(probes=0), "probes is 0", "FinalAblation"),
    "exact share": (lambda: Final(exact_qk=0.0), "exact_qk is 0.0", "(0, 1]"),
    "ablated position": (lambda: FinalAblation("mean"), "unknown position 'mean'", "last"),
    "only site": (lambda: MS.only(sites=("qq",)), "unknown site 'qq'", "q, k, v, o, ffn"),
    "limit": (lambda: Prompts("a", limit=0), "limit is 0", "1 or more"),
    "prompts": (lambda: SafetyNeurons("organism"), "prompts is 'organism'", ""),  # type: ignore[arg-type]
    "shared twice": (lambda: Shared(MS, anchor="en", at_least=2), "exclude each other", "one of them"),
    "shared mean": (lambda: Shared(MS, at_least=2, by="mean"), "exclude each other", "one of them"),
    "at_least": (lambda: Shared(MS, at_least=0), "at_least is 0", "1 or more"),
    "by": (lambda: Shared(MS, by="average"), "unknown by 'average'", "mean"),
    "shared of": (lambda: Shared(PROMPTS), NO_SET, ""),  # type: ignore[arg-type]
    "random of": (lambda: RandomLike("ms"), NO_SET, ""),  # type: ignore[arg-type]
    "and": (lambda: MS & "ss", NO_SET, ""),  # type: ignore[operator]
    "or": (lambda: MS | PROMPTS, NO_SET, ""),  # type: ignore[operator]
    "minus": (lambda: MS - 3, NO_SET, ""),  # type: ignore[operator]
    "suppress": (lambda: Suppress(PROMPTS), NO_SET, ""),  # type: ignore[arg-type]
    "nothing": (lambda: Recipe(), "neither sets nor arms", "sets="),
    "set": (lambda: Recipe(sets={"ms": Suppress(MS)}), r"sets\['ms'\]", ""),  # type: ignore[dict-item]
    "each": (lambda: Recipe(sets={"ms": MS.each()}), r"sets\['ms'\]", ""),  # type: ignore[dict-item]
    "arm": (lambda: Recipe(arms={"ms": MS}, measures=(ASR(PROMPTS),)), r"arms\['ms'\]", ""),  # type: ignore[dict-item]
    "measure": (lambda: Recipe(sets={"ms": MS}, measures=(PROMPTS,)), "measure", ""),  # type: ignore[arg-type]
    "silence": (lambda: Suppress(MS, to=1), "to is 1", "MeanOf"),
    "amplify of": (lambda: Amplify(PROMPTS, by=2), NO_SET, ""),  # type: ignore[arg-type]
    "amplify by 1": (lambda: Amplify(MS, by=1), "by is 1", "by=2"),
    "amplify by nothing": (lambda: Amplify(MS, by=0), "by is 0", "Suppress"),
    "amplify by less": (lambda: Amplify(MS, by=-2.0), "by is -2.0", "above 0"),
    "amplify without bounds": (lambda: Amplify(MS, by=float("inf")), "by is inf", "finite"),
    "amplify by no number": (lambda: Amplify(MS, by=float("nan")), "by is nan", "finite"),
    "amplify by too much": (lambda: Amplify(MS, by=10**400), "by is 1000", "up to 1,000,000"),
    "patch of": (lambda: Patch("ss"), NO_SET, ""),  # type: ignore[arg-type]
    "patch positions": (lambda: Patch(MS, positions="lst"), "unknown positions 'lst'", "'last'"),
    "arm named with a stray point": (lambda: study(arms={"ms.": Suppress(MS)}), r"named 'ms\.'", "x1.5"),
    "arm named like a parent folder": (lambda: study(arms={"1..2": Suppress(MS)}), "named '1..2'", "x1.5"),
    "a point in the recipe's name": (lambda: study(name="x1.5"), "name is 'x1.5'", "letters"),
    "a measure twice": (lambda: Recipe(sets={"ms": MS}, measures=(ASR(PROMPTS), ASR(Prompts("b")))), "measure", ""),
    "the idea of a measure": (lambda: Recipe(sets={"ms": MS}, measures=(Measure(),)), "measure", "ASR"),
    "controls": (lambda: Recipe(sets={"ms": MS}, controls=-1), "controls is -1", "19"),
    "label sets": (lambda: Recipe(sets={"ms": MS}, label_sets=-1), "label_sets is -1", "19"),
    "comparison": (lambda: Recipe(sets={"ms": MS}, comparisons=("lables",)), "unknown comparison 'lables'", "labels"),
    "log-odds sets": (lambda: Recipe(sets={"ms": MS}, log_odds_label_sets=-1), "is -1", "19"),
    "primary": (lambda: study(primary="sm"), "unknown primary 'sm'", "Allowed: ms"),
    "primary each": (
        lambda: study(arms={"ms": Suppress(MS.each())}, primary="ms"),
        "several arms, one per language",
        "ms.of",
    ),
    "no measures": (lambda: Recipe(arms={"ms": Suppress(MS)}), "no measures", "ASR"),
    "arm named baseline": (lambda: study(arms={"baseline": Suppress(MS)}), "named 'baseline'", "letters"),
    "arm named like one of each": (lambda: study(arms={"ms.of(en)": Suppress(MS)}), r"named 'ms\.of", "letters"),
    "a set and an arm": (lambda: study(sets={"ms": MS}), "name a set and an arm", "leave them out"),
    "a path for a name": (lambda: study(name="../../evil"), "name is", "letters"),
    "too many controls": (lambda: study(controls=10**6), "controls is 1000000", "10,000"),
    "seed": (lambda: Recipe(sets={"ms": MS}, seed=-1), "seed is -1", "0 or more"),
    "random seed": (lambda: RandomLike(MS, seed=-1), "seed is -1", "0 or more"),
    "a set named kind": (lambda: Recipe(sets={"kind": MS}), "has the name 'kind'", "choose another"),
    "no Unicode": (lambda: Prompts("caf\udce9"), r"Prompts\.source is not valid Unicode", "UTF-8"),
    "shared mean of a part": (lambda: Shared(MS.only(layers=[3]), by="mean"), "by='mean'", "SafetyNeurons"),
}


WRONG_TYPES: dict[str, Callable[[], Any]] = {
    "source": lambda: Prompts(5),  # type: ignore[arg-type]
    "limit": lambda: Prompts("a", limit="5"),  # type: ignore[arg-type]
    "languages": lambda: Prompts("a", languages="en"),  # type: ignore[arg-type]
    "sites": lambda: SafetyNeurons(PROMPTS, sites=7),  # type: ignore[arg-type]
    "at_least": lambda: Shared(MS, at_least="2"),  # type: ignore[arg-type]
    "seed": lambda: RandomLike(MS, seed="x"),  # type: ignore[arg-type]
    "path": lambda: NeuronFile(3),  # type: ignore[arg-type]
    "each": lambda: Each("ms"),  # type: ignore[arg-type]
    "silence": lambda: Suppress(MS, to=True),
    "factor": lambda: Amplify(MS, by="2"),  # type: ignore[arg-type]
    "factor as yes": lambda: Amplify(MS, by=True),
    "patched from": lambda: Patch(MS, source=3),  # type: ignore[arg-type]
    "measured prompts": lambda: ASR("organism"),  # type: ignore[arg-type]
    "controls": lambda: Recipe(sets={"ms": MS}, controls="20"),  # type: ignore[arg-type]
    "sets": lambda: Recipe(sets=MS),  # type: ignore[arg-type]
    "measures": lambda: Recipe(sets={"ms": MS}, measures=ASR(PROMPTS)),  # type: ignore[arg-type]
}
CASES = REFUSED | {f"wrong type of {name}": (make, ".", "") for name, make in WRONG_TYPES.items()}


@pytest.mark.parametrize(("make", "message", "hint"), CASES.values(), ids=CASES)
def test_what_cannot_be_is_refused_with_a_hint(make: Callable[[], Any], message: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        make()
    assert caught.value.hint
    assert hint in caught.value.hint


def test_writing_an_expression_reads_nothing() -> None:
    """`PROMPTS` names no folder, and still every expression over it can be written."""
    expression = (Shared(MS, at_least=2) | OTHER).only(layers=[1]) - RandomLike(MS.of("en").union(), 3)
    assert isinstance(expression, Combine)
    assert Recipe(arms={"x": Suppress(expression)}, measures=(ASR(PROMPTS),)).key


def test_operators_build_what_they_say() -> None:
    assert Combine("and", MS, OTHER) == MS & OTHER != OTHER & MS
    assert Combine("or", MS, OTHER) == MS | OTHER
    assert Combine("minus", MS, OTHER) == MS - OTHER
    assert MS.of("en") == Of(MS, "en")
    assert MS.union() == UnionOf(MS)
    assert MS.only(layers=[1, 2], sites=["q"]) == Only(MS, layers=(1, 2), sites=("q",))
    assert MS.each() == Each(MS)


def test_a_recipe_without_arms_is_legal_and_has_defaults() -> None:
    recipe = Recipe(sets={"ms": MS}, measures=(ASR(PROMPTS), OverRefusal(PROMPTS), Utility(PROMPTS)))
    assert (recipe.label_sets, recipe.log_odds_label_sets, recipe.controls) == (19, 99, 59)
    assert (recipe.seed, recipe.arms) == (0, {})


def test_what_an_arm_does_is_part_of_its_key() -> None:
    assert Amplify(MS, by=2) == Amplify(MS, by=2.0) != Amplify(MS, by=3.0)
    assert Patch(MS) == Patch(MS, positions="last") != Patch(MS, source="en")
    recipe = study(arms={"ms x1.5": Amplify(MS, by=1.5), "ms": Patch(MS.each(), source="en")})
    assert from_json(to_json(recipe)) == recipe


@pytest.mark.parametrize(
    ("arm", "lowers"),
    [(Suppress(MS), False), (Amplify(MS, by=0.5), False), (Amplify(MS, by=1.5), True), (Patch(MS), True)],
)
def test_an_arm_says_which_way_asr_is_expected_to_go(arm: Any, lowers: bool) -> None:
    assert arm.lowers is lowers


def test_the_papers_own_set() -> None:
    """Paper, section 3: final effect, attention only, pooled over a layer, the top 3 % of each side."""
    node = paper(PROMPTS)
    assert (node.effect, node.rule, node.sites, node.pool, node.top) == (Final(), "paper", SITES[:4], "layer", 0.03)


def test_a_part_of_a_recipe_asks_the_same_of_less() -> None:
    ss = Shared(MS)
    arms = {"ms": Suppress(MS), "ss": Suppress(ss)}
    whole = Recipe(model="m", sets={"own": MS}, arms=arms, measures=(ASR(PROMPTS),), primary="ss", seed=5)
    alone = whole.part("ss")
    assert alone == replace(whole, sets={}, arms={"ss": Suppress(ss)})
    assert whole.part("ms") == replace(alone, arms={"ms": Suppress(MS)}, primary=None, comparisons=()), "not compared"
    assert replace(whole, primary=None).part("ms").comparisons == whole.comparisons, "every arm is compared"
    assert whole.part("own") == replace(whole, arms={}, measures=(), primary=None)
    with pytest.raises(RecipeError, match="unknown set or arm 'sss'") as error:
        whole.part("sss")
    assert "Did you mean 'ss'" in str(error.value.hint)
