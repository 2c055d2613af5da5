"""lm-eval on a subject: the numbers of lm-eval's own model, untouched or with the weights that an edit comes to.

The tasks and their data are files that the tests write; nothing is asked of a hub.
"""

import copy
import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from task_files import write_tasks

from ssn_probe.model.subject import Subject
from ssn_probe.neurons import SITES
from ssn_probe.study.lm_eval_tasks import quiet, task_manager
from ssn_probe.tracing.batching import no_progress
from ssn_probe.tracing.edits import NO_EDITS, Edits, suppression
from ssn_probe.tracing.lm_eval_model import lm_eval_model

from . import plain
from .test_effects import module_of

pytest.importorskip("lm_eval")
NEURONS = [(layer, site, index) for layer in range(2) for site in SITES for index in (1, 6)]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with pytest.MonkeyPatch.context() as patched:
        yield write_tasks(tmp_path_factory.mktemp("tasks"), patched)


def run(model: Any, tasks: list[str]) -> dict[str, Any]:
    harness: Any = import_module("lm_eval.evaluator")
    with quiet():
        manager = task_manager(tasks)
        options = {"tasks": tasks, "task_manager": manager, "log_samples": True, "bootstrap_iters": 0}
        found = harness.simple_evaluate(model=model, **options)
    answers = {
        task: [sample["filtered_resps"] for sample in sorted(samples, key=lambda one: one["doc_id"])]
        for task, samples in found["samples"].items()
    }
    scores = {
        task: {name: value for name, value in each.items() if isinstance(value, float)}
        for task, each in found["results"].items()
    }
    return {"answers": answers, "scores": scores}


def theirs(subject: Subject, tasks: list[str]) -> dict[str, Any]:
    harness: Any = import_module("lm_eval.models.huggingface")
    tokenizer = copy.deepcopy(subject.tokenizer)
    return run(harness.HFLM(pretrained=module_of(subject), tokenizer=tokenizer, batch_size=3, max_length=128), tasks)


def ours(subject: Subject, tasks: list[str], edits: Edits = NO_EDITS, batch_size: int = 3) -> dict[str, Any]:
    return run(lm_eval_model(subject, edits, batch_size, no_progress), tasks)


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = [item for _, item in sorted(value.items())]
    return [leaf for item in value for leaf in flat(item)] if isinstance(value, list | tuple) else [value]


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for mine, other in zip(flat(found), flat(wanted), strict=True):
        assert mine == (pytest.approx(other, abs=1e-4) if isinstance(other, float) else other)


def test_the_untouched_model_has_lm_evals_own_numbers(llama: Subject, tasks: list[str]) -> None:
    """Every log-likelihood, whether it is greedy, and every generated text: choices, rolling windows, generation."""
    wanted = theirs(llama, tasks)
    assert len(wanted["scores"]) == 3
    assert len({json.dumps(answer) for answer in wanted["answers"]["reply_qab"]}) > 1
    assert_same(ours(llama, tasks), wanted)
    assert_same(ours(llama, tasks, batch_size=8), wanted)


@pytest.mark.slow
def test_an_edit_equals_changed_weights(llama: Subject, tasks: list[str]) -> None:
    with plain.weights_scaled(module_of(llama), NEURONS, 0.0):
        wanted = theirs(llama, tasks)
    found = ours(llama, tasks, suppression(NEURONS))
    assert_same(found, wanted)
    with pytest.raises(AssertionError):
        assert_same(ours(llama, tasks), wanted)


@pytest.mark.slow
def test_neither_weights_nor_tokenizer_are_changed(llama: Subject, tasks: list[str]) -> None:
    before = {name: weight.clone() for name, weight in module_of(llama).state_dict().items()}
    padding = llama.tokenizer.padding_side, llama.tokenizer.pad_token
    ours(llama, tasks[:1], suppression(NEURONS))
    assert all(bool((before[name] == weight).all()) for name, weight in module_of(llama).state_dict().items())
    assert (llama.tokenizer.padding_side, llama.tokenizer.pad_token) == padding
