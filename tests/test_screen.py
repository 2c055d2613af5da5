"""`python -m benchmarks.screen`: its figures, and that 16 read-outs rank mean effects as ablation does, at .99."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks import screen
from ssn_probe.model.subject import load_subject
from ssn_probe.spec import Final


def test_ranks_are_within_layers() -> None:
    spearman: Any = spearmanr
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=(2, 40)).round(1)
    assert screen.rho(one, other) == pytest.approx(spearman(one, other)[0])
    layers = np.repeat([3, 8], 20)
    shifted = one + 100 * (layers == 8)  # between layers there is nothing to compare
    assert screen.by_layer(layers, shifted, one) == pytest.approx(1)
    apart = [spearman(one[part], other[part])[0] for part in (slice(20), slice(20, None))]
    assert screen.by_layer(layers, one, other) == pytest.approx(np.mean(apart))


def test_recall_counts_the_largest_of_every_layer() -> None:
    layers, wanted = np.repeat([0, 1], 100), np.tile(np.arange(100.0), 2)
    found = wanted.copy()
    found[99] = -1  # the largest of the first layer is missed
    assert screen.recall(layers, found, wanted, 0.03) == pytest.approx(5 / 6)
    assert screen.recall(layers, found, wanted, 0.005) == pytest.approx(1 / 2)


def test_large_models_are_sampled_at_every_place() -> None:
    whole = load_subject("organism", weights=False)
    assert len(screen.drawn(whole, 8, 10)) == 3584
    large = replace(whole, widths={site: 4 * width for site, width in whole.widths.items()})
    neurons = screen.drawn(large, 8, 3)
    assert len(neurons) == len(set(neurons)) == 3 * 5 * 8
    assert {layer for layer, _, _ in neurons} == {0, 2, 3}


@pytest.mark.slow
def test_sixteen_read_outs_rank_means_as_ablation_does(tmp_path: Path) -> None:
    with screen.opened("tiny-llama", prompts=20, sample=8, layers=10) as task:
        wanted = screen.ablated(task, None, tmp_path)
        assert np.array_equal(screen.ablated(task, None, tmp_path), wanted)
        means = [screen.estimated(task, Final(probes=count)).mean(0) for count in (1, 16)]
        few, many = (screen.by_layer(task.layers, one, wanted.mean(0)) for one in means)
        assert few < 0.99 < many
        shown = screen.cells(task, screen.estimated(task, Final(probes=16)), wanted)[0]
        assert float(shown[:6]) == round(float(many), 4)
