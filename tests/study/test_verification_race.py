"""The race of verification: who is tried, on how many prompts, what is in doubt, and what is expected of the others."""

from dataclasses import replace
from typing import Any

import numpy as np

from ssn_probe import Prompts, SafetyNeurons
from ssn_probe.study.verification import halts_of, in_turns, to_verify
from ssn_probe.study.verification_band import Candidates, Measured, predicted

MS = SafetyNeurons(Prompts("organism"), effect="refusal:1", rule="harmful", top=0.02, sites=("ffn",), verify=0.2)


def read_from(effects: np.ndarray, harmful: int) -> Any:
    """Effects [prompt, neuron] of one place, `harmful` prompts before harmless ones."""
    return lambda context, *_: effects[:harmful] if context == "harmful" else effects[harmful:]


def test_a_neuron_of_large_local_effect_is_ablated_far_below_the_threshold() -> None:
    """Its effect is three times the estimate; a neuron of the same estimate that is small keeps it."""
    node = replace(MS, effect="final", rule="harmful", top=0.02, sites=("ffn", "o"), verify=0.05)
    estimates = np.tile(np.linspace(1.0, 0.5, 100), (24, 1))
    estimates[:, 0], local = 2.0, np.ones((24, 100))
    estimates[:, [60, 61]], local[:, 60] = 0.8, 2.0
    exact = estimates.copy()
    exact[:, 60] *= 3

    def measure(neurons: Any, rows: Any) -> np.ndarray:
        return exact[rows][:, [index for *_, index in neurons]]

    reads = read_from(estimates, 12), measure, range(24)
    found = to_verify(node, [(0, "ffn")], "qaa", *reads, read_from(local, 12))
    assert (0, "ffn", 60) in found.neurons
    assert (0, "ffn", 61) not in found.neurons
    column = found.neurons.index((0, "ffn", 60))
    assert np.allclose(found.effects[:, column], exact[:, 60], rtol=0.05)
    assert found.prompts[column] < 24  # far above the threshold, as a few prompts show
    without = to_verify(node, [(0, "ffn")], "qaa", *reads)
    assert (0, "ffn", 60) not in without.neurons
    elsewhere = to_verify(node, [(0, "o")], "qaa", *reads, read_from(local, 12))
    assert (0, "o", 60) not in elsewhere.neurons  # of final states those of `ffn` alone
    odds = to_verify(replace(node, effect="refusal:1"), [(0, "o")], "qaa", *reads, read_from(local, 12))
    assert (0, "o", 60) in odds.neurons


def test_what_cannot_be_settled_is_said_to_be_in_doubt() -> None:
    """Estimates that lie close together: all could be on the other side, and no more than may be spent is."""
    random = np.random.default_rng(0)
    exact = 1 + 0.01 * random.random(1000) + 0.3 * random.random((24, 1000))
    estimates = exact * (1 + 0.1 * random.standard_normal(exact.shape))

    def measure(neurons: Any, rows: Any) -> np.ndarray:
        return exact[rows][:, [index for *_, index in neurons]]

    node = replace(MS, rule="harmful", top=0.02, sites=("ffn",), verify=0.2)
    found = to_verify(node, [(0, "ffn")], "qaa", read_from(estimates, 12), measure, range(24))
    assert 0.03 < found.spent <= 0.04
    assert found.doubtful > 100


def test_a_race_halts_and_takes_both_groups_in_turns() -> None:
    assert halts_of(48) == [4, 16, 48]
    assert halts_of(3) == [3]
    group = np.arange(9) % 3 == 0
    for length in range(2, 10, 3):
        assert abs(group[in_turns(group)][:length].mean() - 1 / 3) < 0.2
    assert sorted(in_turns(group)) == list(range(9))


def test_standard_errors_are_those_of_predictions() -> None:
    """Of effects 2 % off alike, 2 % on each group and 10 % on each prompt, some measured on 4 or 16 prompts."""
    random, n, count = np.random.default_rng(2), 900, 48
    estimates = random.gamma(2.0, size=n) * random.gamma(10.0, 0.1, size=(count, n))
    first = np.arange(count) % 2 == 0
    alike_off, apart = 1.05 + 0.02 * random.standard_normal(n), 0.02 * random.standard_normal((2, n))
    exact = estimates * (alike_off + np.where(first[:, None], *apart) + 0.1 * random.standard_normal(estimates.shape))
    candidates = Candidates(
        names=[(0, "ffn", index) for index in range(n)],
        pools=[(slice(0, n), 20)],
        classes=np.ones(n, dtype=np.int64),
        liable=np.zeros(n, dtype=bool),
        estimates=estimates.astype(np.float32),
        groups=np.stack([first / 24, ~first / 24]),
    )
    measured = Measured(candidates)
    for halt, some in ((4, slice(0, 600)), (16, slice(0, 300))):
        columns = np.arange(n)[some]
        rows = np.arange(measured.prompts[some].max(), halt)
        measured.add(columns, rows, exact[np.ix_(rows, columns)])
    now, columns = predicted(measured), slice(0, n)
    for weights in (np.array([1.0, 0.0]), np.array([1.0, -1.0]), np.array([0.5, 0.5])):
        score, error = now.score(weights, columns)
        off = (weights @ (candidates.groups @ exact) - score) / error
        for some in (slice(0, 300), slice(300, 600), slice(600, 900)):
            assert 0.8 < np.sqrt((off[some] ** 2).mean()) < 1.2
            assert (np.abs(off[some]) > 2.5).mean() < 0.04  # .012 of a normal one, of 300
    plain = np.sqrt(((exact.mean(0) - estimates.mean(0)) ** 2).mean())
    assert np.sqrt(((exact.mean(0) - np.array([0.5, 0.5]) @ now.means)[:300] ** 2).mean()) < 0.4 * plain
