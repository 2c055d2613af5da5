"""NeST in a study: neurons of a probe, clusters by what they do, one change for each, and a whole curve."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from ssn_probe import (
    ASR,
    Expand,
    NeST,
    OverRefusal,
    ProbedNeurons,
    Prompts,
    Recipe,
    SafetyNeurons,
    SparseEdit,
    Training,
)
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.errors import DataError, RecipeError
from ssn_probe.model.chat import encode
from ssn_probe.model.subject import load_subject
from ssn_probe.spec import Exchanged, Peak
from ssn_probe.stats.nulls.mask_algebra import no_null
from ssn_probe.study.plan import make_plan
from ssn_probe.study.probed_sets import clusters_of, probed
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.effects import score

PROMPTS = Prompts("organism", languages=("qaa", "qab"), limit=24)
PEAKS = SafetyNeurons(PROMPTS, effect="peak", sites=("ffn",))
PROBED = ProbedNeurons(PEAKS)
QUICK = Training(lr=1e-3, steps=4, batch=8, patience=None)
NEST = NeST(PROBED.of("qaa"), PROMPTS, training=QUICK, at=(2, 4))


@pytest.fixture(scope="module")
def bench() -> Workbench:
    recipe = Recipe(arms={"nest": NEST}, measures=(ASR(PROMPTS),))
    return Workbench(subject=load_subject("organism"), data=make_plan(recipe).data, anchor="qaa")


def test_a_peak_is_the_largest_activation_of_real_tokens(bench: Workbench) -> None:
    """Against a hook on down_proj, one prompt at a time; padding and the rest of the batch do not reach it."""
    tokens = encode(bench.subject, ["tub", "mip dal kor", "a b c d e f"])
    found = score(Peak(), bench.subject, tokens, sites=("ffn",), batch_size=3)
    module, seen = bench.subject.model._module, []
    layer = module.get_submodule("model.layers.1.mlp.down_proj")
    handle = layer.register_forward_hook(lambda _module, given, _made: seen.append(given[0]))
    try:
        with torch.no_grad():
            for prompt in tokens:
                module(input_ids=torch.tensor([prompt]))
    finally:
        handle.remove()
    for row, activation in enumerate(seen):
        wanted = activation[0].amax(0)
        got = found.values["ffn"][row, 1].float() * found.scale["ffn"][row, 1]
        assert torch.allclose(got, wanted, atol=2e-3 * float(wanted.abs().max()))


def test_the_neurons_have_weights_above_the_threshold(bench: Workbench) -> None:
    found = evaluate(bench, PROBED)
    assert found.languages == ("qaa", "qab")
    assert set(found.frame["site"]) == {"ffn"}
    assert (found.frame["score"] > 2.5).all()
    looser = evaluate(bench, replace(PROBED, threshold=2.0))
    assert len(looser) > len(found)
    assert set(found.frame.rows()) <= set(looser.frame.rows())
    with pytest.raises(DataError, match="no neuron of qaa, qab has a weight above 60"):
        evaluate(bench, replace(PROBED, threshold=60.0))


def test_neurons_of_a_cluster_do_the_same_more_than_others(bench: Workbench) -> None:
    neurons = sorted(evaluate(bench, NEST.neurons).frame.select("layer", "site", "index").rows())
    clusters = clusters_of(bench, NEST, neurons)
    assert sorted(clusters) == neurons
    fixed = clusters_of(bench, replace(NEST, clusters=2), neurons)
    for layer in {neuron[0] for neuron in neurons}:
        own = {cluster for neuron, cluster in fixed.items() if neuron[0] == layer}
        assert own == {0, 1}
    with pytest.raises(RecipeError, match=r"in layer \d there are \d+ neurons with different activations, and 500"):
        clusters_of(bench, replace(NEST, clusters=500), neurons)
    with pytest.raises(RecipeError, match="the probe of NeST has not read q"):
        clusters_of(bench, NEST, [(0, "q", 1)])


@pytest.mark.slow
def test_a_run_has_the_whole_curve_and_a_file_per_step(tmp_path: Path) -> None:
    from ssn_probe.training.delta_file.file import read_delta

    arms = {"nest": NEST, "same neurons": Expand(NEST.neurons, PROMPTS, training=QUICK, at=(2, 4))}
    arms |= {f"edit {rank}": SparseEdit(NEST.neurons, PROMPTS, rank=rank) for rank in (1, 2)}
    quiet = {"comparisons": (), "log_odds_label_sets": 0, "permutations": 0, "half_samples": 0}
    recipe = Recipe(arms=arms, measures=(ASR(PROMPTS), OverRefusal(PROMPTS)), name="study", **quiet)
    run = run_recipe(recipe, Options(out=tmp_path), Console(quiet=True))
    curves = run.table("curves")
    assert curves.filter(curve="nest")["step"].to_list() == [2, 4]
    file = read_delta(run.path / "deltas" / "nest.at-4.safetensors")
    parameters = {row["curve"]: row["parameters"] for row in curves.rows(named=True)}
    assert parameters["nest"] == file.delta.parameters < parameters["same neurons"]
    assert file.about["method"] == "nest"
    edits = [read_delta(run.path / "deltas" / f"edit {rank}.safetensors") for rank in (1, 2)]
    assert [int(np.linalg.matrix_rank(one.rows.parts[0].change)) for one in edits] == [1, 2]
    assert set(run.table("summary").filter(pl.col("arm").str.starts_with("edit"))["measure"]) >= {"asr", "over_refusal"}
    assert curves.filter(pl.col("curve").str.starts_with("edit")).is_empty(), "an edit has no steps"
    assert sorted(file.rows.neurons) == sorted(run.table("neurons").filter(set="nest")["layer", "site", "index"].rows())
    for part in file.rows.parts:
        assert part.clusters is not None
        assert len(np.unique(part.change.numpy(), axis=0)) == len(part.clusters.unique())


def test_there_is_no_null_and_no_exchanged_labels(bench: Workbench) -> None:
    assert "contains ProbedNeurons" in (no_null(PROBED.of("qaa")) or "")
    with pytest.raises(RecipeError, match="no null"):
        probed(bench, _under_labels(PROBED))


def _under_labels(node: ProbedNeurons) -> ProbedNeurons:
    changed = replace(node)
    object.__setattr__(changed, "scored", replace(node.scored, labels=Exchanged(draw=1)))
    return changed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProbedNeurons(PEAKS, threshold=0.0), "threshold is 0"),
        (lambda: ProbedNeurons(PEAKS, penalty=-1.0), "penalty is -1"),
        (lambda: ProbedNeurons(replace(PEAKS, stable=0.9)), "do not apply"),
        (lambda: NeST(PEAKS.of("qaa"), PROMPTS), "found by one probe"),
        (lambda: replace(NEST, clusters=0), "clusters is 0"),
        (lambda: replace(NEST, most=1), "most is 1"),
        (lambda: SparseEdit(PROBED, PROMPTS, rank=0), "rank is 0"),
        (lambda: SparseEdit(PROBED, PROMPTS, keep=-1.0), "keep is -1"),
        (lambda: SparseEdit(PROBED, PROMPTS, ridge=0.0), "ridge is 0"),
        (lambda: SparseEdit(PROBED, PROMPTS, at=(1,)), "has no steps"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make()


def test_prompts_without_a_harmless_half_are_refused_in_the_plan() -> None:
    with pytest.raises(DataError, match="harmless"):
        make_plan(Recipe(sets={"probed": ProbedNeurons(replace(PEAKS, prompts=_harmful_only()))}))


def _harmful_only() -> Prompts:
    from ssn_probe import prompts_from_frame

    rows = [{"prompt_id": f"h{n}", "language": "en", "context": "harmful", "text": f"request {n}"} for n in range(40)]
    return prompts_from_frame(pl.DataFrame(rows), name="half")
