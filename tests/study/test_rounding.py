"""Does a run say when half precision chooses other neurons than float32, and only then?"""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from ssn_probe import Expand, Final, Local, Prompts, Recipe, SafetyNeurons, Training, run
from ssn_probe.model.out_of_memory import OutOfMemory
from ssn_probe.model.precision import CannotWidenError
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import KEYS
from ssn_probe.runs.cache import Cache
from ssn_probe.spec.node import digest
from ssn_probe.study import rounding
from ssn_probe.study.identify_steps import identify_steps, notes_on_rounding
from ssn_probe.study.plan import make_plan
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.steps import rows_of_steps
from ssn_probe.study.workbench import Workbench

PROMPTS = Prompts("organism", languages=("qaa",), limit=rounding.FEW)
"""As many as are scored in float32, too, so that brute force can tell what the whole set would be."""
TRAINED = Prompts("organism", languages=("qaa",), limit=8)
MS = SafetyNeurons(PROMPTS, effect=Local("last"), top=0.3)


@pytest.fixture(scope="module")
def half() -> Subject:
    return load_subject("organism:planted-ffn", dtype="bfloat16")


@pytest.fixture
def sensitive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The organism is so small that rounding changes one neuron in a hundred at most: here that is enough."""
    monkeypatch.setattr(rounding, "SAME", 1.0)


def bench_of(subject: Subject, cache: Cache | None = None) -> Workbench:
    plan = make_plan(Recipe(sets={"ms": MS}))
    return Workbench(subject=subject, data=plan.data, anchor=plan.anchor, cache=cache)


def notes(bench: Workbench, node: SafetyNeurons = MS) -> list[str]:
    return list(rounding.rounding_notes(bench, [node]))


def test_it_counts_the_neurons_that_scoring_in_float32_replaces(half: Subject, sensitive: None) -> None:
    bench = bench_of(half)
    own, wide = (evaluate(bench, one).frame for one in (MS, replace(MS, scoring_dtype="float32")))
    same = own.join(wide, on=KEYS, how="semi").height
    assert rounding.rounding(bench, MS).row(0) == (own.height, same)
    assert 0 < same < own.height
    (note,) = notes(bench)
    assert f"effect=local:last: of the {own.height:,} that" in note
    assert f"{own.height - same:,} are others in float32. -T scoring_dtype=float32" in note


def test_what_ablation_changes_of_a_set_is_no_rounding(half: Subject, sensitive: None) -> None:
    plain = SafetyNeurons(PROMPTS, effect=Final(probes=1), top=0.02, sites=("o",))
    checked = replace(plain, verify=0.9, verify_most=0.2)
    bench = bench_of(half)
    sets = [evaluate(bench, one).frame.select(KEYS) for one in (plain, checked)]
    assert not sets[0].equals(sets[1])
    assert notes(bench, checked) == notes(bench, plain)
    assert len(rows_of_steps(rounding.rounding_steps(bench, lambda: bench, [plain, checked]))) == 1


def test_nothing_is_asked_where_nothing_can_be_gained(half: Subject) -> None:
    full = load_subject("organism:planted-ffn", weights=False)
    wide = replace(MS, scoring_dtype="float32")
    for subject, node in ((full, MS), (half, wide)):
        bench = bench_of(subject)
        assert not list(rounding.rounding_steps(bench, lambda bench=bench: bench, [node]))
        assert not notes(bench, node)


def test_its_step_is_in_the_plan(half: Subject) -> None:
    rows = rows_of_steps(identify_steps(bench_of(half), Recipe(sets={"ms": MS, "more": replace(MS, top=0.1)})))
    assert [row.prompts for row in rows] == [8, 16]
    assert rows[1].label == "local effect of every neuron (organism, first 4, 8 prompts in float32, last)"
    assert rows[1].cost.dtype == "float32"


@pytest.mark.parametrize(("same", "words"), [(100, ""), (99, ""), (98, "2 are others"), (None, "was not measured")])
def test_it_speaks_where_more_than_one_in_a_hundred_changes(
    half: Subject, monkeypatch: pytest.MonkeyPatch, same: int | None, words: str
) -> None:
    found = pl.DataFrame({"taken": 100, "same": same})
    monkeypatch.setattr(rounding, "rounding", lambda bench, node: found)
    told = notes(bench_of(half))
    assert len(told) == bool(words)
    assert words in "".join(told)


@pytest.mark.parametrize("error", [OutOfMemory("full", "less", 1), CannotWidenError("elsewhere", "load it")])
def test_a_run_goes_on_where_it_cannot_be_measured(
    half: Subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    def failing(*_: object) -> None:
        raise error

    bench = bench_of(half, Cache(root=tmp_path))
    evaluate(bench, MS)
    with monkeypatch.context() as patched:
        patched.setattr(rounding, "computing_in", failing)
        (note,) = notes(bench)
    assert "was not measured: the weights in float32 do not fit" in note
    assert notes(bench_of(half, Cache(root=tmp_path, compute=False, derive=True))) == [note]


def test_what_was_measured_is_kept(half: Subject, tmp_path: Path, sensitive: None) -> None:
    bench = bench_of(half, Cache(root=tmp_path))
    steps = list(identify_steps(bench, Recipe(sets={"ms": MS})))
    assert not notes(bench_of(half, Cache(root=tmp_path, compute=False, derive=True)))  # as of an earlier release
    for step in steps:
        assert not step.is_done()
        step.run()
        assert step.is_done()
    assert len({digest(dict(step.key())) for step in steps}) == 3
    assert notes(bench_of(half, Cache(root=tmp_path, compute=False, derive=True))) == notes(bench) != []


def test_a_set_that_is_found_again_after_training_is_asked_about_in_the_trained_model(
    half: Subject, tmp_path: Path, sensitive: None
) -> None:
    trained = Expand(MS.of("qaa"), TRAINED, training=Training(lr=1e-2, steps=2))
    study = Recipe(sets={"again": MS.after(trained)})
    plan = make_plan(study)
    bench = Workbench(subject=half, data=plan.data, anchor=plan.anchor, cache=Cache(root=tmp_path))
    rows = rows_of_steps(identify_steps(bench, study))
    assert (
        rows[-1].label == "after training: local effect of every neuron (organism, first 4, 8 prompts in float32, last)"
    )
    weights = {name: tensor.clone() for name, tensor in half.model._module.named_parameters()}
    for step in identify_steps(bench, study):
        step.run()
        assert step.is_done()
    first, second = notes_on_rounding(bench, study)
    assert second.startswith(
        "after training: bfloat16 rounds so much that other neurons are chosen by effect=local:last"
    )
    assert first != second.removeprefix("after training: "), "the trained model has other effects"
    assert all(tensor.equal(weights[name]) for name, tensor in half.model._module.named_parameters())
    derived = replace(bench, cache=Cache(root=tmp_path, compute=False, derive=True), memory={})
    assert list(notes_on_rounding(derived, study)) == [first, second]


@pytest.mark.slow
def test_a_run_says_it_everywhere(tmp_path: Path, sensitive: None) -> None:
    result = run(MS, model="organism:planted-ffn", dtype="bfloat16", out=tmp_path)
    warnings = result.manifest["warnings"]
    (note,) = [one for one in warnings if "bfloat16 rounds so much" in one]
    assert note.replace("_", r"\_") in (result.path / "report.md").read_text(encoding="utf-8")
    assert "bfloat16 rounds so much" in str(result).replace("\n", " ")
    wide = run(replace(MS, scoring_dtype="float32"), model="organism:planted-ffn", dtype="bfloat16", out=tmp_path)
    assert not any("rounds so much" in one for one in wide.manifest["warnings"])
    assert "neurons scored in | float32" in (wide.path / "report.md").read_text(encoding="utf-8")
