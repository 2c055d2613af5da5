"""What rules take in single precision, where that is certain, against double precision."""

import numpy as np
import pytest
from made_up_effects import effects_from, prompt_table, sides

from ssn_probe.errors import DataError
from ssn_probe.neurons.selection import in_top, selected
from ssn_probe.spec import Prompts, SafetyNeurons
from ssn_probe.stats.nulls import array_selection
from ssn_probe.stats.nulls.array_selection import Asked, Samples, means, taken
from ssn_probe.stats.nulls.prompt_effects import Group, groups
from ssn_probe.stats.nulls.single_precision import HARMFUL, HARMLESS, Mix, Screened, ranked_by, weights_of

RULES = ("difference", "harmful", "both", "paper")
PROMPTS, TOP = 120, 0.03


def group_of(effects: np.ndarray) -> Group:
    return next(groups(effects_from(prompt_table(sides(len(effects) // 2)), {("en", 0, "ffn"): effects}), "site"))


def labellings(count: int, prompts: int = PROMPTS) -> Samples:
    harmful = np.random.default_rng(1).random((count, prompts)) < 0.4
    harmful[:, :2] = [True, False]
    return Samples(harmful=harmful, harmless=~harmful)


def in_double(group: Group, samples: Samples, rule: str) -> np.ndarray:
    harmful, harmless = (side[:, 0] for side in means(group, samples))
    return selected(rule, harmful, harmless, lambda score: in_top(score, TOP))


def screened(group: Group, samples: Samples, rule: str) -> tuple[np.ndarray, np.ndarray]:
    weights = {mix: weights_of(mix, *samples.weights(group.present["en"])) for mix in ranked_by(rule)}
    return Screened(group.effects["en"]).taken(rule, TOP, weights)


def both_ways(group: Group, samples: Samples, rule: str) -> tuple[np.ndarray, np.ndarray]:
    node = SafetyNeurons(Prompts("made up"), rule=rule, top=TOP)
    return taken(group, samples, {node: Asked(own=True, mean=False)})[node].own[:, 0], in_double(group, samples, rule)


def test_a_rule_says_what_it_ranks_by() -> None:
    assert ranked_by("difference") == [Mix(1, -1)]
    assert ranked_by("both") == [Mix(1, -0.5)]
    assert ranked_by("harmful") == [HARMFUL]
    assert ranked_by("paper") == [HARMFUL, HARMLESS]


@pytest.mark.parametrize("rule", RULES)
def test_what_is_certain_is_so_in_double_precision_and_most_is_certain(rule: str) -> None:
    random = np.random.default_rng(0)
    scale = 10 ** random.uniform(-6, 3, size=400)
    group = group_of((random.standard_normal((PROMPTS, 400)) * scale + scale / 2).astype(np.float32))
    samples = labellings(300)
    found, certain = screened(group, samples, rule)
    wanted = in_double(group, samples, rule)
    assert wanted.any(axis=1).all()
    assert (found == wanted)[certain].all()
    assert certain.mean() > 0.9
    assert (both_ways(group, samples, rule)[0] == wanted).all()


@pytest.mark.parametrize("rule", RULES)
def test_near_ties_are_decided_in_double_precision(rule: str) -> None:
    """Neurons that differ by less than single precision can see, in pools of many: it alone would be wrong."""
    random = np.random.default_rng(2)
    one = random.standard_normal((PROMPTS, 1)) + 3
    effects = one.astype(np.float32) * np.ones((1, 300), dtype=np.float32)
    moved = random.integers(0, PROMPTS, size=300)
    effects[moved, np.arange(300)] = np.nextafter(effects[moved, np.arange(300)], np.float32(9))
    group, samples = group_of(effects), labellings(200)
    _, certain = screened(group, samples, rule)
    ours, wanted = both_ways(group, samples, rule)
    some = wanted.any(axis=1)
    assert some.sum() > 50
    assert not certain[some].any()
    assert (ours == wanted).all()
    harmful, harmless = (
        weights_of(mix, *samples.weights(group.present["en"])) @ group.effects["en"] for mix in (HARMFUL, HARMLESS)
    )
    alone = selected(rule, harmful, harmless, lambda score: in_top(score, TOP))
    assert (alone != wanted)[some].any(axis=1).mean() > 0.5


@pytest.mark.parametrize("mix", [HARMFUL, HARMLESS, Mix(1, -1), Mix(1, -0.5)])
def test_the_bound_holds(mix: Mix) -> None:
    random = np.random.default_rng(3)
    effects = (random.standard_normal((PROMPTS, 200)) * 10 ** random.uniform(-42, 30, size=200)).astype(np.float32)
    weights = weights_of(mix, *labellings(100).weights(np.ones(PROMPTS, dtype=bool)))
    assert np.abs(weights).max(axis=1) == pytest.approx(np.ones(100), abs=1e-7)
    off = np.abs(weights @ effects - weights.astype(np.float64) @ effects.astype(np.float64))
    assert (off <= Screened(effects).error).all()


def test_silent_neurons_are_certain_and_sums_that_might_overflow_are_not() -> None:
    effects = np.zeros((PROMPTS, 100), dtype=np.float32)
    effects[:, 7] = np.random.default_rng(4).random(PROMPTS) + 1
    samples = labellings(50)
    found, certain = screened(group_of(effects), samples, "harmful")
    assert certain.all()
    assert (np.flatnonzero(found.any(axis=0)) == [7]).all()
    assert found[:, 7].all()
    effects[:, 8] = np.float32(3e38)
    group = group_of(effects)
    assert not screened(group, samples, "difference")[1].any()
    ours, wanted = both_ways(group, samples, "difference")
    assert (ours == wanted).all()


def test_a_pool_without_a_place_takes_nobody() -> None:
    effects = np.ones((PROMPTS, 5), dtype=np.float32)
    weights = {HARMFUL: weights_of(HARMFUL, *labellings(4).weights(np.ones(PROMPTS, dtype=bool)))}
    found, certain = Screened(effects).taken("harmful", 1e-12, weights)
    assert not found.any()
    assert certain.all()


def test_a_language_without_a_label_is_refused() -> None:
    group, nobody = group_of(np.ones((4, 1))), np.array([[False, False, False, False]])
    node = SafetyNeurons(Prompts("made up"), top=TOP)
    with pytest.raises(DataError, match="en has no harmful prompt"):
        taken(group, Samples(harmful=nobody, harmless=~nobody), {node: Asked(own=True, mean=False)})


def test_mixed_weights_are_made_once_where_they_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Mix] = []
    make = array_selection.weights_of
    monkeypatch.setattr(array_selection, "weights_of", lambda mix, *sides: (made.append(mix), make(mix, *sides))[1])
    samples, everyone = labellings(3), np.ones(PROMPTS, dtype=bool)
    first = samples.weights_of(HARMFUL, everyone)
    assert samples.weights_of(HARMFUL, everyone) is first
    samples.weights_of(HARMLESS, everyone)
    assert made == [HARMFUL, HARMLESS]
