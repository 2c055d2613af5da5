"""The standard error that an estimate by chance gives to the scores of a set."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ssn_probe.model.subject import load_subject
from ssn_probe.neurons.selection import contrast_score
from ssn_probe.spec import Final, Prompts, Recipe, SafetyNeurons, Shared
from ssn_probe.study.importance import chance_errors, effects_at, verified
from ssn_probe.study.pipeline import _neuron_table, _with_errors
from ssn_probe.study.plan import make_plan
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.workbench import Workbench

EFFECT = Final(probes=4)
PROMPTS = Prompts("organism", languages=("qaa", "qab"), limit=10)
MS = SafetyNeurons(PROMPTS, effect=EFFECT, sites=("k", "ffn"), top=0.02)


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return Workbench(subject=load_subject("organism"), data=make_plan(Recipe(sets={"ms": MS})).data, anchor="qaa")


@pytest.mark.parametrize("rule", ["difference", "harmful", "both", "paper"])
def test_it_is_that_of_the_means_that_the_rule_contrasts(bench: Workbench, rule: str) -> None:
    node = replace(MS, rule=rule, top=0.02)
    found = chance_errors(bench, node)
    assert found is not None
    assert found.select("language", "layer", "site", "index").is_unique().all()
    sides = [effects_at(bench, node, "qab", context, 1, "ffn") for context in ("harmful", "harmless")]
    draw, scores = np.random.default_rng(0), []
    for _ in range(1000):  # estimates that err as theirs do
        noisy = [side * (1 + EFFECT.chance * draw.standard_normal(side.shape)) for side in sides]
        scores.append(contrast_score(rule, *(side.mean(0) for side in noisy)))
    errors = found.filter(language="qab", layer=1, site="ffn")["score_error"].to_numpy()
    assert errors == pytest.approx(np.std(scores, axis=0), rel=0.15)


def test_equal_prompts_err_alike(bench: Workbench) -> None:
    """Their read-outs are the same, so that a prompt that is there three times is no better known."""
    once, thrice = (
        replace(prompts, frame=pl.concat(copies), digest=f"{prompts.digest} × {len(copies)}")
        for prompts in [bench.data[PROMPTS]]
        for copies in (
            [prompts.frame],
            [prompts.frame.with_columns(pl.col("prompt_id") + f"-{copy}") for copy in range(3)],
        )
    )
    node = replace(MS, sites=("k",))
    found = [
        chance_errors(Workbench(subject=bench.subject, data={PROMPTS: prompts}, anchor="qaa"), node)
        for prompts in (once, thrice)
    ]
    errors = [table["score_error"].to_numpy() for table in found if table is not None]
    assert errors[1] == pytest.approx(errors[0], rel=1e-3)


def test_verified_neurons_have_none(bench: Workbench) -> None:
    node = replace(MS, verify=0.1, sites=("k",))
    found, chosen = chance_errors(bench, node), verified(bench, node, "qaa")
    assert found is not None
    sure = found.filter(pl.col("score_error") == 0, language="qaa").select("layer", "site", "index").rows()
    assert set(chosen.complete) == set(sure) & set(chosen.neurons)
    assert chosen.complete
    assert len(sure) < found.height / 4


def test_it_stands_beside_the_scores_of_a_languages_own_set(bench: Workbench) -> None:
    nodes = {"ms": MS, "ss": Shared(MS)}
    sets = {name: evaluate(bench, node) for name, node in nodes.items()}
    bare = _neuron_table(sets, None)
    table = _with_errors(bench, nodes, bare)
    assert table.drop("score_error").equals(bare)
    assert (table.filter(set="ms")["score_error"] > 0).all()
    assert table.filter(set="ss")["score_error"].is_null().all()
    local = SafetyNeurons(PROMPTS, effect="local", sites=("ffn",), top=0.02)
    assert _with_errors(bench, {"ms": local}, bare).equals(bare)
