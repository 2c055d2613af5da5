"""The linear probe, and clusters of neurons that do the same."""

import numpy as np
import pytest

from ssn_probe.errors import RecipeError
from ssn_probe.neurons.activation_clusters import activation_clusters, silhouette
from ssn_probe.neurons.linear_probe import in_deviations, probe_weights

HARMFUL = np.repeat([True, False], [12, 8])


def prompts(seed: int, neurons: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(3.0, 2.0, (20, neurons))


@pytest.mark.parametrize("neurons", [5, 60])
def test_the_weights_are_where_the_penalised_loss_is_least(neurons: int) -> None:
    """The gradient by the weights themselves is zero, with fewer neurons than prompts and with more."""
    features = prompts(1, neurons)
    weights = probe_weights(features, HARMFUL, penalty=0.7)
    standard = (features - features.mean(0)) / features.std(0)
    low, high = -20.0, 20.0
    for _ in range(200):  # the intercept: as many are called harmful as are
        middle = (low + high) / 2
        expected = (1 / (1 + np.exp(-standard @ weights - middle))).sum()
        low, high = (middle, high) if expected < HARMFUL.sum() else (low, middle)
    chance = 1 / (1 + np.exp(-standard @ weights - middle))
    assert np.abs(standard.T @ (chance - HARMFUL) + 0.7 * weights).max() < 1e-5


def test_the_neuron_that_tells_them_apart_stands_out() -> None:
    features = prompts(2, 300)
    features[HARMFUL, 17] += 12
    features[:, 5] = 1.0
    weights = probe_weights(features, HARMFUL)
    assert abs(weights[5]) < 1e-12
    deviations = in_deviations(weights)
    assert deviations.argmax() == 17
    assert deviations[17] > 4
    assert np.allclose(probe_weights(features, ~HARMFUL), -weights, atol=1e-6), "the labels only turn the sign"


def test_no_neuron_stands_out_where_none_differs() -> None:
    assert not in_deviations(probe_weights(np.ones((20, 4)), HARMFUL)).any()


def test_what_is_constant_but_for_its_rounding_has_no_weight() -> None:
    """Effects are kept in half precision with a scale for every prompt, which gives a constant a spread of its own."""
    draw = np.random.default_rng(0)
    features = draw.normal(size=(20, 6)) * [1, 1, 1, 1, 1, 1e-3]
    features[:, :2] = 14.1, -0.02
    scale = 1 + draw.random((20, 1))
    weights = probe_weights((features / scale).astype(np.float16) * scale, HARMFUL)
    assert np.abs(weights[:2]).max() < 1e-12
    assert np.abs(weights[2:]).min() > 1e-3


def groups(sizes: tuple[int, ...], noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    own = np.repeat(np.arange(len(sizes)), sizes)
    return draw.normal(size=(len(sizes), 30))[own] + noise * draw.normal(size=(len(own), 30)), own


@pytest.mark.parametrize("count", [None, 3])
def test_neurons_that_rise_and_fall_together_are_found(count: int | None) -> None:
    profiles, own = groups((5, 7, 4))
    scaled = profiles * np.linspace(0.1, 10, len(own))[:, None] + np.arange(len(own))[:, None]
    assert activation_clusters(scaled, count=count, most=6, seed=0).tolist() == own.tolist()
    order = np.random.default_rng(1).permutation(len(own))
    shuffled = activation_clusters(scaled[order], count=count, most=6, seed=0)
    assert shuffled[0] == 0, "counted in the order of the first member"
    assert ((shuffled[:, None] == shuffled) == (own[order][:, None] == own[order])).all()


def test_few_neurons_are_one_cluster_and_no_more_are_asked_for_than_differ() -> None:
    profiles, _ = groups((1, 1))
    assert activation_clusters(profiles, count=None, most=8, seed=0).tolist() == [0, 0]
    assert activation_clusters(profiles, count=2, most=8, seed=0).tolist() == [0, 1]
    assert activation_clusters(np.repeat(profiles[:1], 4, axis=0), count=None, most=8, seed=0).tolist() == [0] * 4
    with pytest.raises(RecipeError, match="2 neurons with different activations, and 3 clusters"):
        activation_clusters(profiles, count=3, most=8, seed=0)


def test_the_silhouette_by_hand() -> None:
    """Two at a distance of 1, and a third, alone, at 3 and 4: (1 − 1/3 + 1 − 1/4) / 3, and 0 for the one alone."""
    profiles = np.array([[0.0], [-1.0], [3.0]])
    assert silhouette(profiles, np.array([0, 0, 1])) == pytest.approx((2 / 3 + 3 / 4) / 3)
