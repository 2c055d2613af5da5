"""Screen, then verify: exact effects near the threshold, chosen without labels; what an audit of the others counts."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from studies import bench_for, exchanged_bench

from ssn_probe import Ablation, Prompts, Recipe, SafetyNeurons, preview
from ssn_probe.errors import RecipeError
from ssn_probe.model.precision import computing_in
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES
from ssn_probe.neurons.selection import contrast_score, select_neurons
from ssn_probe.report.markdown import as_markdown
from ssn_probe.report.sections.verified_neurons import verification_section
from ssn_probe.spec import FinalAblation
from ssn_probe.study.contrast_effects import prompt_effects
from ssn_probe.study.identify_steps import identify_steps
from ssn_probe.study.importance import importance, reads_of, score_inputs, scored, verified
from ssn_probe.study.measurements import tokens_of
from ssn_probe.study.steps import rows_of_steps
from ssn_probe.study.verification import (
    _highest,
    expected_passes,
    near_threshold,
    to_verify,
    tried_prompts,
    upper_bound,
)
from ssn_probe.study.verification_table import audited, verification_notes, verification_table
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.exact_effects import exact_effects

PROMPTS = Prompts("organism", languages=("qaa",), limit=30)
MS = SafetyNeurons(PROMPTS, effect="refusal:1", rule="difference", top=0.02, sites=("q", "ffn"), verify=0.2)
RECIPE = Recipe(sets={"ms": MS})


@pytest.fixture(scope="module")
def organism() -> Subject:
    return load_subject("organism")


@pytest.fixture(scope="module")
def bench(organism: Subject) -> Workbench:
    return bench_for(RECIPE, organism)


@pytest.mark.parametrize("rule", ["difference", "both", "paper", "harmful"])
def test_exchanged_labels_verify_the_same_neurons(organism: Subject, bench: Workbench, rule: str) -> None:
    node = replace(MS, rule=rule, top=0.05)
    here = verified(bench, node, "qaa")
    assert here.neurons
    assert here == verified(exchanged_bench(RECIPE, organism, 3), node, "qaa")


def test_exact_effects_stand_in_the_place_of_estimates(bench: Workbench) -> None:
    chosen, plain = verified(bench, MS, "qaa"), replace(MS, verify=None)
    rows = bench.data[PROMPTS].select("identify", "harmful", "qaa")
    wanted = exact_effects(
        bench.subject, tokens_of(bench, rows), chosen.neurons, reads_of(bench, MS, "qaa"), resumed=False
    )
    found, estimated = scored(bench, MS, "qaa", "harmful"), scored(bench, plain, "qaa", "harmful")
    for column, (layer, site, index) in enumerate(chosen.neurons):
        assert np.isclose(found.means[site][layer, index], wanted[:, column].mean(), rtol=1e-3, atol=1e-5)
    others = {site: np.ones_like(values, dtype=bool) for site, values in found.means.items()}
    for layer, site, index in chosen.neurons:
        others[site][layer, index] = False
    assert all(np.array_equal(found.means[site][keep], estimated.means[site][keep]) for site, keep in others.items())
    assert any(not np.array_equal(found.means[site], estimated.means[site]) for site in others)


def test_means_and_single_prompts_are_of_the_same_effects(bench: Workbench) -> None:
    effects, means = prompt_effects(bench, MS), importance(bench, MS)
    harmful = effects.prompts["harmful"].to_numpy()
    for layer, site in effects.places:
        rows = means.filter(layer=layer, site=site)
        assert np.allclose(effects.read("qaa", layer, site)[harmful].mean(0), rows["harmful"], atol=1e-6)
    assert select_neurons(means, rule=MS.rule, top=0.02, pool="site").frame.height


def test_the_key_holds_the_threshold_only_where_it_matters(bench: Workbench) -> None:
    plain = replace(MS, verify=None)
    assert score_inputs(bench, plain, "qaa", "harmful") == score_inputs(
        bench, replace(plain, top=0.1), "qaa", "harmful"
    )
    changes = {"top": 0.1, "rule": "paper", "verify": 0.1, "audit_seed": 1, "pool": "layer"}
    different = [replace(MS, **{name: value}) for name, value in changes.items()]
    keys = [str(score_inputs(bench, node, "qaa", "harmful")) for node in (MS, plain, *different)]
    assert len(set(keys)) == len(keys)


def test_the_audit_counts_those_not_verified(bench: Workbench) -> None:
    chosen, found = verified(bench, MS, "qaa"), audited(bench, MS, "qaa")
    assert not set(chosen.neurons) & set(chosen.audited)
    assert len(chosen.audited) == 20
    assert found.missed <= found.rejected <= found.audited == 20
    assert found.covered <= found.band
    assert found.bound == upper_bound(found.missed, found.rejected)
    table = verification_table(bench, [MS, replace(MS, verify=None)])
    assert table is not None
    assert table.select("effect", "language", "verified", "bound").rows() == [
        ("refusal", "qaa", found.verified, found.bound)
    ]
    (note,) = verification_notes(table)
    assert f"it would take {found.missed} with" in note
    assert verification_table(bench, [replace(MS, verify=None)]) is None
    assert not list(verification_notes(None))
    section = verification_section(table)
    assert section is not None
    assert "qaa" in as_markdown(section)
    assert verification_section(None) is None
    assert verified(bench, replace(MS, audit_seed=1), "qaa").audited != chosen.audited


def test_the_plan_has_what_verification_takes(organism: Subject, tmp_path: Path) -> None:
    paper = replace(MS, effect="final", rule="paper", top=0.03, sites=SITES)
    rows = {row.label: row.cost for row in rows_of_steps(identify_steps(bench_for(RECIPE, organism), RECIPE))}
    *_, estimate, exact = rows.values()
    assert (estimate.passes, estimate.effect) == (3, MS.effect)
    assert exact.effect == Ablation()
    # .02^.8 of 2,560 neurons and 20 that are audited, from the middle of four layers on average
    assert exact.passes == pytest.approx((0.02**0.8 * 2560 + 20) * 5 / 8)
    assert expected_passes(paper, 1000, 1, 400) == pytest.approx(
        (0.03**0.8 - 0.03**1.2) * 1000 + (0.03**0.4 - 0.03**0.8) * 1000 * 4 / 400 + 20
    )
    half = load_subject("organism", dtype="bfloat16", weights=False)
    recipe = replace(RECIPE, sets={"ms": paper})
    (row,) = (row for row in rows_of_steps(identify_steps(bench_for(recipe, half), recipe)) if "verified" in row.label)
    assert (row.cost.effect, row.cost.dtype) == (FinalAblation(), "float32")
    shown = " ".join(str(preview(recipe, out=tmp_path, limit=30, time=False)).split())
    assert f" 60 {60 * row.cost.passes:,.0f}" in shown
    assert "finalablation effects, a neuron for a prompt" in shown


def test_a_neuron_that_the_estimate_hides_is_missed() -> None:
    from ssn_probe.study.verification import Verified, audit

    node = replace(MS, rule="harmful", top=0.2, sites=("ffn",))
    estimates = {"harmful": np.array([[5.0, 4, 3, 2, 1]] * 2), "harmless": np.zeros((2, 5))}

    def read(context: str, _layer: int, _site: str) -> np.ndarray:
        return estimates[context]

    chosen = Verified(neurons=(), audited=((0, "ffn", 3), (0, "ffn", 4)), total=5)
    exact: dict[Any, tuple[float, float]] = {(0, "ffn", 3): (9.0, 0.0), (0, "ffn", 4): (1.0, 0.0)}
    found = audit(node, [(0, "ffn")], "qaa", chosen, (read, read), exact)
    assert (found.rejected, found.missed, found.band, found.covered) == (2, 1, 2, 0)


def test_the_bound_covers() -> None:
    """Of 2,000 audits of 40 neurons with a share of 10 % missed, no more than 5 % have a bound below it."""
    counts = np.random.default_rng(0).binomial(40, 0.1, 2000)
    below = np.mean([upper_bound(int(count), 40) < 0.1 for count in counts])
    assert below <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert upper_bound(0, 0) == upper_bound(3, 3) == 1.0


@pytest.mark.parametrize("rule", ["difference", "both", "paper", "harmful"])
def test_the_band_of_dead_neurons_single_prompts_and_permuted_ones(rule: str) -> None:
    node, random = replace(MS, rule=rule, top=0.1), np.random.default_rng(0)
    effects = random.gamma(2.0, size=(7, 50))
    one, share = near_threshold(node, effects[:3], effects[3:])
    other = near_threshold(node, effects[[6, 0, 4]], effects[[5, 2, 1, 3]])
    assert np.array_equal(one, other[0])
    assert np.array_equal(share, other[1])
    assert 0 < one.sum() < 50
    assert not near_threshold(node, np.zeros((1, 50)), np.zeros((1, 50)))[0].any()
    assert near_threshold(node, effects[:1], effects[1:2])[0].any()
    dead = to_verify(node, [(0, "ffn")], "qaa", lambda *_: np.zeros((1, 3)), np.array)
    assert dead.neurons == ()
    assert len(dead.audited) == 3


def test_a_neuron_is_verified_that_comes_near_the_threshold_where_it_is_tried() -> None:
    node, tried = replace(MS, rule="harmful", top=0.1, sites=("ffn",), verify=0.05), []
    estimates = np.array([[10.0, 6, 5, 4.5, 3, 1, 1, 1, 1, 1]] * 2)

    def trial(neurons: Any) -> np.ndarray:
        tried.extend(index for _, _, index in neurons)
        return np.array([1.2, 2.0, 1.0])

    found = to_verify(node, [(0, "ffn")], "qaa", lambda *_: estimates, trial)
    assert tried == [1, 2, 3]  # from .4 of the threshold on, and below the band
    assert [index for _, _, index in found.neurons] == [0, 2]
    assert found.tried == 3
    rows = tried_prompts([[number] for number in range(9)])
    assert len(rows) == 4
    assert [8 - row for row in tried_prompts([[number] for number in range(9)][::-1])] == rows


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan"), True, "x"])
def test_a_band_that_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(RecipeError, match="verify is"):
        replace(MS, verify=share)


def test_what_cannot_be_verified_is_refused() -> None:
    assert replace(MS, verify=0).verify is None
    with pytest.raises(RecipeError, match="refusal:1"):
        SafetyNeurons(PROMPTS, effect="refusal", verify=0.2)
    with pytest.raises(RecipeError, match="no estimate"):
        SafetyNeurons(PROMPTS, effect="local", verify=0.2)
    with pytest.raises(RecipeError, match="fdr has none"):
        SafetyNeurons(PROMPTS, effect="refusal:1", fdr=0.05, verify=0.2)
    with pytest.raises(RecipeError, match="audit_seed"):
        replace(MS, audit_seed=-1)


def test_half_precision_is_verified_in_single(bench: Workbench) -> None:
    tokens = tokens_of(bench, bench.data[PROMPTS].select("identify", "harmful", "qaa"))[:1]
    half = load_subject("organism", dtype="bfloat16")
    with computing_in(half, "float32") as wide:
        found = exact_effects(wide, tokens, [(1, "ffn", 3), (0, "q", 2)])
    rounded = exact_effects(half, tokens, [(1, "ffn", 3), (0, "q", 2)])
    assert found.dtype == torch.float32
    assert not torch.allclose(found, rounded, rtol=1e-4)


@pytest.mark.parametrize("rule", ["difference", "both"])
def test_no_labelling_gives_a_neuron_more_than_its_highest_score(rule: str) -> None:
    effects = np.random.default_rng(1).gamma(1.0, size=(6, 30))
    effects[:, 0] = [3, 3, 1, 1, 1, 1]
    highest = _highest(rule, effects.mean(0), effects.std(0), 2, 4)
    labels = [np.isin(np.arange(6), some) for some in combinations(range(6), 2)]
    scores = np.array([contrast_score(rule, effects[one].mean(0), effects[~one].mean(0)) for one in labels])
    assert (scores.max(axis=0) <= highest + 1e-12).all()
    assert scores.max(axis=0)[0] == pytest.approx(highest[0])
