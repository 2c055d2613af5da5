"""A recipe whose neurons are scored in a wider dtype: what it plans, under which keys, and that it finds that set."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from ssn_probe.recipes import suppress_ss

from ssn_probe import Prompts, Recipe, SafetyNeurons, preview
from ssn_probe.errors import ModelError, RecipeError
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.spec.node import from_json, to_json, walk
from ssn_probe.study.host_checks import check_hosted
from ssn_probe.study.identify_steps import identify_steps
from ssn_probe.study.importance import importance, score_inputs
from ssn_probe.study.plan import make_plan
from ssn_probe.study.steps import rows_of_steps
from ssn_probe.study.workbench import Workbench

PROMPTS = Prompts("organism", languages=("qaa",), limit=6)
MS = SafetyNeurons(PROMPTS, effect="local")
WIDE = replace(MS, scoring_dtype="float32")


def bench_of(subject: Subject) -> Workbench:
    plan = make_plan(Recipe(sets={"ms": MS}))
    return Workbench(subject=subject, data=plan.data, anchor=plan.anchor)


def scores(bench: Workbench, node: SafetyNeurons) -> list[float]:
    return importance(bench, node)["harmful"].to_list()


def test_scores_are_those_of_single_precision() -> None:
    """The organism's weights are stored in half precision, so they are the same in both dtypes."""
    half, full = (bench_of(load_subject("organism:planted-ffn", dtype=dtype)) for dtype in ("bfloat16", "float32"))
    wide, rough = scores(half, WIDE), scores(half, MS)
    assert wide == pytest.approx(scores(full, MS), rel=2**-9)
    assert rough != pytest.approx(wide, rel=2**-9)


def test_keys_know_the_dtype_where_it_matters() -> None:
    subject = load_subject("organism", weights=False)  # in single precision
    bench = bench_of(subject)
    before = score_inputs(bench, MS, "qaa", "harmful")
    assert score_inputs(bench, WIDE, "qaa", "harmful") == before
    wider = score_inputs(bench, replace(MS, scoring_dtype="float64"), "qaa", "harmful")
    assert wider == before | {"widened_to": "float64"}
    assert rows_of_steps(identify_steps(bench, Recipe(sets={"ms": WIDE})))[0].cost.dtype is None
    row = rows_of_steps(identify_steps(bench, Recipe(sets={"ms": replace(MS, scoring_dtype="float64")})))[0]
    assert (row.label, row.cost.dtype) == ("local effect of every neuron (organism, first 6, float64)", "float64")


def test_the_parameter_of_every_recipe() -> None:
    made = find_recipe("suppress_ss", {"scoring_dtype": "float32"})
    assert {node.scoring_dtype for node in walk(made) if isinstance(node, SafetyNeurons)} == {"float32"}
    assert from_json(to_json(made)).key == made.key != suppress_ss().key == suppress_ss(scoring_dtype="auto").key
    with pytest.raises(RecipeError, match="scoring_dtype"):
        suppress_ss(scoring_dtype="bfloat16")
    with pytest.raises(RecipeError, match=r"SafetyNeurons\(…\) is scored in a dtype of its own"):
        check_hosted(made)
    check_hosted(suppress_ss())


def test_a_narrower_dtype_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="loaded in float64, which is wider"):
        preview(Recipe(sets={"ms": WIDE}), dtype="float64", out=tmp_path, time=False)


def test_show_knows_the_memory(tmp_path: Path) -> None:
    def shown(node: SafetyNeurons) -> str:
        return str(preview(Recipe(sets={"ms": node}), dtype="bfloat16", out=tmp_path, time=False)).replace("\n", " ")

    wide = re.compile(r"local effects in float32 [\d.]+ .B a prompt, weights then")
    assert wide.search(shown(WIDE))
    assert not re.search(r"local effects \d", shown(WIDE))
    assert wide.search(shown(MS))  # a few prompts, to see whether rounding matters
    assert re.search(r"local effects \d", shown(MS))
