"""Screen, then verify: exact effects near the threshold, chosen without labels; what an audit of the others counts."""

from dataclasses import replace
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
from ssn_probe.neurons.selection import select_neurons
from ssn_probe.report.markdown import as_markdown
from ssn_probe.report.sections.verified_neurons import verification_section
from ssn_probe.spec import Final, FinalAblation
from ssn_probe.study.contrast_effects import prompt_effects
from ssn_probe.study.identify_steps import identify_steps
from ssn_probe.study.importance import importance, reads_of, score_inputs, scored, verified
from ssn_probe.study.measurements import tokens_of
from ssn_probe.study.steps import rows_of_steps
from ssn_probe.study.unlabelled_contexts import alike, telling, two_groups
from ssn_probe.study.verification import Verified, expected_passes, in_fixed_order, to_verify
from ssn_probe.study.verification_audit import audit, taken, upper_bound
from ssn_probe.study.verification_table import NODE, Verifying, audited, verification_notes, verification_table
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.exact_effects import exact_effects

PROMPTS = Prompts("organism", languages=("qaa",), limit=30)
MS = SafetyNeurons(PROMPTS, effect="refusal:1", rule="difference", top=0.02, sites=("q",), verify=0.1)
RECIPE = Recipe(sets={"ms": MS})


@pytest.fixture(scope="module")
def organism() -> Subject:
    return load_subject("organism")


@pytest.fixture(scope="module")
def bench(organism: Subject) -> Workbench:
    return bench_for(RECIPE, organism)


@pytest.mark.parametrize("rule", ["difference", "paper"])
def test_exchanged_labels_verify_the_same_neurons(organism: Subject, rule: str) -> None:
    few = Prompts("organism", languages=("qaa",), limit=6)
    node = replace(MS, prompts=few, effect=Final(probes=4), rule=rule)
    recipe = Recipe(sets={"ms": node})
    here = verified(bench_for(recipe, organism), node, "qaa")
    assert here.neurons
    assert here == verified(exchanged_bench(recipe, organism, 2), node, "qaa")


def test_what_is_ablated_is_noted_as_it_is_done(organism: Subject) -> None:
    few = Prompts("organism", languages=("qaa",), limit=2)
    node = replace(MS, prompts=few, effect=Final(probes=4), rule="harmful")
    said: list[str] = []
    scored(bench_for(Recipe(sets={"ms": node}), organism), node, "qaa", "harmful", note=said.append)
    assert any(text.startswith("qaa: ") and " neurons near a threshold, prompt 1 of " in text for text in said)
    assert said[-1] == ""


def test_exact_effects_stand_in_the_place_of_estimates(bench: Workbench) -> None:
    chosen, plain = verified(bench, MS, "qaa"), replace(MS, verify=None)
    rows = bench.data[PROMPTS].select("identify", "harmful", "qaa")
    complete = chosen.complete[::3]
    assert 0 < len(chosen.complete) < len(chosen.neurons)
    wanted = exact_effects(bench.subject, tokens_of(bench, rows), complete, reads_of(bench, MS, "qaa"), resumed=False)
    found, estimated = scored(bench, MS, "qaa", "harmful"), scored(bench, plain, "qaa", "harmful")
    for column, (layer, site, index) in enumerate(complete):
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
    changes = {"top": 0.1, "rule": "paper", "verify": 0.2, "audit_seed": 1, "pool": "layer", "verify_most": 0.1}
    different = [replace(MS, **{name: value}) for name, value in changes.items()]
    keys = [str(score_inputs(bench, node, "qaa", "harmful")) for node in (MS, plain, *different)]
    assert len(set(keys)) == len(keys)


def test_the_audit_counts_those_not_verified(bench: Workbench) -> None:
    chosen, found = verified(bench, MS, "qaa"), audited(bench, MS, "qaa")
    assert not set(chosen.neurons) & set(chosen.audited)
    assert len(chosen.audited) == 20
    assert found.missed <= found.rejected <= found.audited == 20
    assert found.covered <= found.band
    assert 0.5 * found.spent < found.computed < 0.9 * found.spent  # two or three of seven tokens run once for several
    assert found.bound == upper_bound(found.missed, found.rejected)
    table = verification_table([Verifying(bench=bench, nodes=[MS, replace(MS, verify=None)])])
    assert table is not None
    assert table.select("effect", "language", "verified", "bound").rows() == [
        ("refusal:1", "qaa", found.verified, found.bound)
    ]
    (note,) = verification_notes(table)
    assert f"it would take {found.missed} with" in note
    assert verification_table([Verifying(bench=bench, nodes=[replace(MS, verify=None)])]) is None
    assert not list(verification_notes(None))
    section = verification_section(table)
    assert section is not None
    assert "qaa" in as_markdown(section)
    assert verification_section(None) is None
    assert verified(bench, replace(MS, audit_seed=1), "qaa").audited != chosen.audited


def test_every_node_that_verifies_has_rows_and_a_note_of_its_own(organism: Subject) -> None:
    few = Prompts("organism", languages=("qaa",), limit=2)
    node = replace(MS, prompts=few, effect=Final(probes=4), rule="harmful", sites=("k",))
    others = [replace(node, **change) for change in ({"sites": ("v",)}, {"pool": "layer"}, {"effect": Final(probes=2)})]
    nodes = [node, *others]
    here = bench_for(Recipe(sets={str(n): one for n, one in enumerate(nodes)}), organism)
    table = verification_table([Verifying(bench=here, nodes=nodes)])
    assert table is not None
    assert table.height == len(nodes)
    assert table.n_unique(NODE) == len(nodes)
    assert "after" not in table.columns
    notes = list(verification_notes(table))
    assert len(set(notes)) == len(nodes)
    assert notes[1].startswith("effect=final(probes=4), rule=harmful, pool=site, sites=v: ")
    section = verification_section(table)
    assert section is not None
    assert "final(probes=4), harmful, top 2 %, pool layer, sites k" in as_markdown(section)


def test_the_plan_has_what_verification_takes(organism: Subject, tmp_path: Path) -> None:
    paper = replace(MS, effect="final", rule="paper", top=0.03, sites=SITES)
    rows = {row.label: row.cost for row in rows_of_steps(identify_steps(bench_for(RECIPE, organism), RECIPE))}
    *_, estimate, exact = rows.values()
    assert (estimate.passes, estimate.effect) == (3, MS.effect)
    assert exact.effect == Ablation()
    # neurons near the threshold and 20 audited, from the middle of four layers on
    near = 2 * (0.02**0.9 - 0.02**1.1) * 512
    assert exact.passes == pytest.approx((near + 20) * 5 / 8)
    assert expected_passes(paper, 1000, 1) == pytest.approx((0.03**0.9 - 0.03**1.1) * 1000 + 20)
    assert expected_passes(replace(paper, verify=0.5), 1000, 1) == 40 + 20  # no more than may be spent
    half = load_subject("organism", dtype="bfloat16", weights=False)
    recipe = replace(RECIPE, sets={"ms": paper})
    (row,) = (row for row in rows_of_steps(identify_steps(bench_for(recipe, half), recipe)) if "verified" in row.label)
    assert (row.cost.effect, row.cost.dtype) == (FinalAblation(), "float32")
    shown = " ".join(str(preview(recipe, out=tmp_path, limit=30, time=False)).split())
    assert f" 60 {60 * row.cost.passes:,.0f}" in shown
    assert "finalablation effects, a neuron for a prompt" in shown


def test_a_neuron_that_the_estimate_hides_is_missed() -> None:
    node = replace(MS, rule="harmful", top=0.2, sites=("ffn",))
    estimates = {"harmful": np.array([[5.0, 4.9, 3, 2, 1]] * 2), "harmless": np.zeros((2, 5))}

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


def read_from(estimates: np.ndarray, harmful: int) -> Any:
    """Effects [prompt, neuron] of one place, `harmful` prompts before harmless ones."""
    return lambda context, *_: estimates[:harmful] if context == "harmful" else estimates[harmful:]


def made_up(seed: int, prompts: int = 12, neurons: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Effects of two kinds of prompts, harmful ones first, estimates that are 6 % off, some of half the size, and local
    effects, which are largest of these."""
    random = np.random.default_rng(seed)
    kinds = random.gamma(1.0, size=(2, neurons)) + random.gamma(2.0, size=neurons)
    exact = np.repeat(kinds, prompts, axis=0) * random.gamma(20.0, 1 / 20, size=(2 * prompts, neurons))
    half = random.random(neurons) < 0.02
    off = np.where(half, 0.5, 1.0) * (1 + 0.03 * random.standard_normal(neurons))
    estimates = exact * off * (1 + 0.05 * random.standard_normal(exact.shape))
    return exact, estimates, np.where(half, 2.0, 1.0) * (1 + random.random(exact.shape))


RULES = ["difference", "both", "paper", "harmful"]


@pytest.mark.parametrize("rule", RULES)
def test_neither_order_nor_labels_decide_who_is_verified(rule: str) -> None:
    node, random = replace(MS, rule=rule, top=0.05, sites=("ffn",)), np.random.default_rng(0)
    exact, estimates, local = made_up(3)

    def verified_of(rows: np.ndarray) -> Verified:
        def measure(neurons: Any, some: Any) -> np.ndarray:
            return exact[rows][some][:, [index for *_, index in neurons]]

        read, order = (read_from(some[rows], 12) for some in (estimates, local)), np.argsort(rows)
        return to_verify(node, [(0, "ffn")], "qaa", next(read), measure, order.tolist(), next(read))

    one, other = verified_of(np.arange(24)), verified_of(random.permutation(24))
    assert one == other
    assert 0 < len(one.neurons) < 200
    columns = [index for _, _, index in one.complete]
    rows = [name in one.complete for name in one.neurons]
    assert 0 < len(columns) < len(one.neurons)
    assert np.array_equal(one.effects[:, rows], exact[:, columns])
    count = [(one.effects[:, row] == exact[:, index]).sum() for row, (*_, index) in enumerate(one.neurons)]
    assert tuple(count) == one.prompts
    assert one.spent == sum(count) / (400 * 24)
    assert one.spent <= 0.04


@pytest.mark.parametrize("rule", RULES)
def test_the_set_is_that_of_exact_effects(rule: str) -> None:
    """In ten made-up pools a fifth of the wrong neurons of screened sets are left at most."""
    wrong, screened, share = [], [], []
    for seed in range(10):
        node = replace(MS, rule=rule, top=0.05, verify_most=0.1, sites=("ffn",))
        exact, estimates, local = made_up(seed)

        def measure(neurons: Any, rows: Any, exact: np.ndarray = exact) -> np.ndarray:
            return exact[rows][:, [index for *_, index in neurons]]

        reads = read_from(estimates, 12), measure, range(24), read_from(local, 12)
        found = to_verify(node, [(0, "ffn")], "qaa", *reads)
        mixed, columns = estimates.copy(), [index for *_, index in found.neurons]
        mixed[:, columns] = found.effects
        sets = [taken(node, some[:12].mean(0), some[12:].mean(0)) for some in (exact, mixed, estimates)]
        wrong.append(int((sets[0] != sets[1]).sum()))
        screened.append(int((sets[0] != sets[2]).sum()))
        share.append(found.spent)
    assert sum(wrong) <= 0.2 * sum(screened)
    assert sum(screened) > 10
    assert max(share) <= 0.1


def test_p_is_valid_among_verified_effects() -> None:
    """Labels that say nothing: of 300 studies no more than 5 % have p ≤ .05, though estimates are half of the effects.

    p is the rank of the set's total score among those of 19 exchanged labellings, all from the same verified effects.
    Neurons verified by the observed labels' band instead would reject 15 %.
    """
    node, random, low = replace(MS, rule="difference", top=0.05), np.random.default_rng(5), 0
    for _ in range(300):
        exact = random.gamma(1.0, size=(12, 60))
        off = np.exp(0.3 * random.standard_normal(60)) / 2
        estimates = exact * off * (1 + 0.1 * random.standard_normal(exact.shape))
        rows = random.permutation(12)  # the first six are called harmful

        def measure(neurons: Any, some: Any, exact: np.ndarray = exact[rows]) -> np.ndarray:
            return exact[some][:, [index for *_, index in neurons]]

        read, order = read_from(estimates[rows], 6), np.argsort(rows).tolist()
        found = to_verify(node, [(0, "ffn")], "qaa", read, measure, order)
        columns = np.array([index for *_, index in found.neurons], dtype=int)
        estimates[np.ix_(rows, columns)] = found.effects
        labels = [rows[:6], *(random.permutation(12)[:6] for _ in range(19))]
        scores = [estimates[some].mean(0) - np.delete(estimates, some, axis=0).mean(0) for some in labels]
        totals = [np.sort(score)[-3:].sum() for score in scores]
        low += sum(other >= totals[0] for other in totals[1:]) == 0
    assert low <= 300 * 0.05 + 3 * np.sqrt(300 * 0.05 * 0.95)


@pytest.mark.parametrize("rule", RULES)
def test_dead_neurons_and_single_prompts(rule: str) -> None:
    node, effects = replace(MS, rule=rule, top=0.1), np.random.default_rng(0).gamma(2.0, size=(2, 50))

    def measure(neurons: Any, rows: Any) -> np.ndarray:
        return effects[rows][:, [index for *_, index in neurons]]

    dead = to_verify(node, [(0, "ffn")], "qaa", lambda *_: np.zeros((1, 3)), measure, [0, 1])
    assert dead.neurons == ()
    assert len(dead.audited) == 3
    assert to_verify(node, [(0, "ffn")], "qaa", read_from(effects, 1), measure, [0, 1]).neurons


def test_the_fixed_order_is_that_of_tokens() -> None:
    tokens = [[number] for number in range(9)]
    order = in_fixed_order(tokens)
    assert sorted(order) == list(range(9))
    assert [8 - row for row in in_fixed_order(tokens[::-1])] == order


def test_two_kinds_of_prompts_are_told_apart_without_labels() -> None:
    for seed in range(5):
        effects, kind = made_up(seed)[1], np.random.default_rng(seed).permutation(24) < 12
        rows = np.empty((24, 400))
        rows[kind], rows[~kind] = effects[:12], effects[12:]
        for sign in (np.ones(400), np.random.default_rng(9).choice([-1.0, 1.0], 400)):  # signed effects, too
            group = two_groups(alike(np.split(rows * sign, 2, axis=1)), 12)
            assert (group == kind).all() or (group == ~kind).all()
    assert two_groups(alike([np.zeros((5, 3))]), 2).sum() == 2


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
    for most in (0, 1.5, "all"):
        with pytest.raises(RecipeError, match="verify_most"):
            replace(MS, verify_most=most)  # pyright: ignore[reportArgumentType]


def test_half_precision_is_verified_in_single(bench: Workbench) -> None:
    tokens = tokens_of(bench, bench.data[PROMPTS].select("identify", "harmful", "qaa"))[:1]
    half = load_subject("organism", dtype="bfloat16")
    with computing_in(half, "float32") as wide:
        found = exact_effects(wide, tokens, [(1, "ffn", 3), (0, "q", 2)])
    rounded = exact_effects(half, tokens, [(1, "ffn", 3), (0, "q", 2)])
    assert found.dtype == torch.float32
    assert not torch.allclose(found, rounded, rtol=1e-4)


def test_feed_forward_neurons_tell_prompts_apart_where_there_are_some() -> None:
    """Attention neurons that part the prompts in another way have no say beside those of `ffn`."""
    random, count = np.random.default_rng(0), 12
    kind, other = np.arange(24) < count, np.arange(24) % 2 == 0
    ffn = 1 + np.outer(kind, random.random(40)) + 0.1 * random.random((24, 40))
    attention = 1 + 3 * np.outer(other, random.random(80)) + 0.1 * random.random((24, 80))
    blocks = {(0, "q"): attention, (0, "ffn"): ffn}
    assert telling(list(blocks)) == [(0, "ffn")]
    group = two_groups(alike(blocks[place] for place in telling(list(blocks))), count)
    assert (group == kind).all() or (group == ~kind).all()
    assert telling([(0, "q"), (0, "o")]) == [(0, "q"), (0, "o")]
    alone = two_groups(alike([attention]), count)
    assert (alone == other).all() or (alone == ~other).all()
