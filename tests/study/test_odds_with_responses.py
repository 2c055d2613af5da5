"""Log-odds that come with responses are those that would have been measured, and measured no second time."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from studies import bench_for

from ssn_probe import ASR, Patch, Prompts, Recipe, SafetyNeurons, Suppress
from ssn_probe.model.openings import Direction, Openings
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.runs.cache import Cache
from ssn_probe.spec.node import digest
from ssn_probe.study import measurements
from ssn_probe.study.arm_steps import ArmPass, odds_passes, sample_passes
from ssn_probe.study.arms import expected_arms
from ssn_probe.study.comparisons import LABELS
from ssn_probe.study.measurements import Carry, Change, log_odds, log_odds_inputs, responses, rows_of
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing import effects
from ssn_probe.tracing import generate as generating
from ssn_probe.tracing.batching import no_progress
from ssn_probe.tracing.edits import carried_neurons, carrying, suppression

PROMPTS = Prompts("organism", limit=12, languages=("qaa", "qab"))
STUDY = Recipe(
    arms={"ms": Suppress(SafetyNeurons(PROMPTS)), "patched": Patch(SafetyNeurons(PROMPTS))},
    measures=(ASR(PROMPTS),),
    controls=2,
    label_sets=4,
    log_odds_label_sets=3,
)
NEURONS = [(layer, "ffn", index) for layer in range(2) for index in range(0, 40, 3)]
SILENT = Change(edits=suppression(NEURONS), does=STUDY.arms["ms"])
SHORT = Openings(refusal=((10,), (12,)), compliant=((13,), (17,)))
LONG = Openings(refusal=((10, 11), (12,)), compliant=((13,),))


@pytest.fixture(scope="module")
def subject() -> Subject:
    return load_subject("organism")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per measurement of log-odds by itself, and in how many batches."""
    found: list[int] = []
    measure = effects.refusal_log_odds

    def noted(*given: Any, shelf: Any, **options: Any) -> Any:
        before = len(shelf.parts())
        values = measure(*given, shelf=shelf, **options)
        found.append(len(shelf.parts()) - before)
        return values

    monkeypatch.setattr(effects, "refusal_log_odds", noted)
    return found


def bench_at(subject: Subject, root: Path | None = None) -> Workbench:
    return replace(bench_for(STUDY, subject), batch_size=5, cache=None if root is None else Cache(root=root))


def both(bench: Workbench, change: Change, reads: Openings | Direction, *, together: bool = True) -> tuple[Any, Any]:
    """Responses and log-odds of twelve prompts."""
    prompts = bench.data[PROMPTS]
    rows = rows_of(bench, prompts, "harmful", "qaa")
    made = responses(bench, prompts, rows, "qaa", change, no_progress, reads if together else None)
    return made, log_odds(bench, rows, change, reads, no_progress)


@pytest.fixture(params=["in memory", "in a cache"])
def bench(request: pytest.FixtureRequest, subject: Subject, tmp_path: Path) -> Workbench:
    return bench_at(subject, tmp_path if request.param == "in a cache" else None)


def direction(subject: Subject) -> Direction:
    width = subject.model._module.config.hidden_size
    return Direction(tuple(float(number % 5 - 2) for number in range(width)))


READS: dict[str, Callable[[Subject], Openings | Direction]] = {
    "openings": lambda _subject: SHORT,
    "direction": direction,
}


@pytest.mark.parametrize("reads", READS.values(), ids=READS)
def test_they_come_with_responses(
    bench: Workbench, subject: Subject, passes: list[int], reads: Callable[[Subject], Openings | Direction]
) -> None:
    made, odds = both(bench, SILENT, reads(subject))
    assert not passes
    alone, wanted = both(bench_at(subject), SILENT, reads(subject), together=False)
    assert len(passes) == 1
    assert made.equals(alone)
    assert odds.to_numpy() == pytest.approx(wanted.to_numpy(), abs=1e-4, rel=1e-5)
    assert odds.std() > 0.01


def test_longer_openings_and_carried_values_are_measured_by_themselves(bench: Workbench, passes: list[int]) -> None:
    both(bench, SILENT, LONG)
    assert len(passes) == 1
    edits = carrying(NEURONS, "by hand")
    assert carried_neurons(edits)
    prompts = bench.data[PROMPTS]
    rows = rows_of(bench, prompts, "harmful", "qaa")
    carry = Carry({"from": "nowhere"}, lambda: pytest.fail("nothing has to run"))
    assert measurements._beside(bench, rows, Change(edits=edits, carry=carry), SHORT) is None
    assert measurements._beside(bench, rows, SILENT, SHORT) is not None


def test_what_was_measured_before_stays(subject: Subject, tmp_path: Path, passes: list[int]) -> None:
    """Then responses alone are missing, and no second value of a prompt is written."""
    first = bench_at(subject, tmp_path)
    rows = rows_of(first, first.data[PROMPTS], "harmful", "qaa")
    wanted = log_odds(first, rows, SILENT, SHORT, no_progress)
    kept = parts_of(first, tmp_path)
    _, odds = both(bench_at(subject, tmp_path), SILENT, SHORT)
    assert odds.equals(wanted)
    assert parts_of(first, tmp_path) == kept
    assert passes == [3], "read the second time, and not measured"


def test_a_generation_that_was_stopped_goes_on_with_the_same_bytes(
    subject: Subject, tmp_path: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bench_at(subject, tmp_path / "whole")
    both(whole, SILENT, SHORT)
    run, calls = generating.run_generation, iter(range(9))

    def stopped(*given: Any, **options: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return run(*given, **options)

    monkeypatch.setattr(generating, "run_generation", stopped)
    killed = bench_at(subject, tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        both(killed, SILENT, SHORT)
    assert len(parts_of(killed, tmp_path / "killed")) == 1
    both(bench_at(subject, tmp_path / "killed"), SILENT, SHORT)
    assert parts_of(killed, tmp_path / "killed") == parts_of(whole, tmp_path / "whole")
    assert not passes, "read, and not measured"


def parts_of(bench: Workbench, root: Path) -> list[str]:
    """The batches of log-odds that are kept; their names have the digests of their bytes."""
    rows = rows_of(bench, bench.data[PROMPTS], "harmful", "qaa")
    folder = root / digest(log_odds_inputs(bench, rows, SILENT, SHORT))
    return sorted(path.name for path in folder.glob("*.safetensors"))


def test_what_is_asked_for_twice_is_known_beforehand(subject: Subject) -> None:
    """An arm's responses come with its log-odds where, and only where, these are measured, too."""
    bench = bench_at(subject)

    def arms(found: Iterator[ArmPass], role: str, with_odds: bool) -> set[tuple]:
        return {(one.arm.name, one.arm.seed) for one in found if one.arm.role == role and one.with_odds is with_odds}

    expected = expected_arms(bench, STUDY)
    for role in ("baseline", "tested", "without top neuron", "random", LABELS):
        read = arms(odds_passes(bench, STUDY, expected), role, False)
        also = arms(sample_passes(bench, STUDY, expected), role, True)
        alone = arms(sample_passes(bench, STUDY, expected), role, False)
        assert also
        assert also <= read
        assert not alone & read
        assert bool(alone) is (role == LABELS)
