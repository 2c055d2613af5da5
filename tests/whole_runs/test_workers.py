"""Several processes that share the work of a run: the same tables, whatever becomes of them; none outlives the run."""

import gc
import io
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
import torch
from rich.console import Console

from ssn_probe import ASR, Prompts, Recipe, SafetyNeurons, Shared, Suppress
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.model import worker_places, workers
from ssn_probe.model.asking import NO_WISH
from ssn_probe.model.chat import whole_inputs
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.model.worker_places import sharing
from ssn_probe.model.workers import COST, Call, Loading, Worker, Workers
from ssn_probe.runs.folder import RunFolder
from ssn_probe.tracing.bodies.refusal import trace_states
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.execution import run_body

PROMPTS = Prompts("organism", languages=("qaa", "qac"), limit=24)
STUDY = Recipe(
    arms={"ss": Suppress(Shared(SafetyNeurons(PROMPTS, top=0.01)))},
    measures=(ASR(PROMPTS),),
    controls=4,
    log_odds_label_sets=9,
    permutations=99,
    half_samples=2,
    name="study",
)
PROGRAM = """
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
sys.path.insert(0, sys.argv[2])
from test_workers import STUDY, Console, Options, run_recipe
run_recipe(STUDY, Options(out=Path(sys.argv[1]), processes=2), Console(quiet=True))
"""


def made(out: Path, processes: int) -> RunFolder:
    return run_recipe(STUDY, Options(out=out, processes=processes), Console(quiet=True))


def tables(run: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.path.glob("*.parquet"))}


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tables of the study in one process."""
    return tables(made(tmp_path_factory.mktemp("alone"), 1))


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children() if is_worker(child)]


def is_worker(process: psutil.Process) -> bool:
    """A child may end while it is looked at: git and lscpu, which a run asks at its beginning, soon do."""
    try:
        return "ssn_probe.tracing.worker" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # or ZombieProcess, which is such a case
        return False


def until(is_so: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it never was so"
        time.sleep(0.02)


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The calls that waited for workers. A run waits with its first call until the workers are ready."""
    found: list[Call] = []
    run, start, hand = Workers.run, Workers._start, Workers._handed

    def computing_here(call: Call) -> Call:
        compute = call.compute

        def computed_here():
            found.remove(call)
            return compute()

        call.compute = computed_here
        return call

    def begun(self: Workers, *given):
        if not self.workers:
            start(self)
            until(lambda: self.are_ready or any(worker.is_lost for worker in self.workers))
        return run(self, *given)

    def noted(self: Workers, *given):
        call = hand(self, *given)
        found.extend([] if call is None else [computing_here(call)])
        return call

    monkeypatch.setattr(Workers, "run", begun)
    monkeypatch.setattr(Workers, "_handed", noted)
    return found


def answers(handed: list[Call]) -> int:
    """How many of them a worker has answered: those that are computed here are no longer among them."""
    return sum(call.is_known for call in list(handed))


@pytest.mark.slow
def test_two_processes_give_the_tables_of_one(tmp_path: Path, alone: dict[str, bytes], handed: list[Call]) -> None:
    assert tables(made(tmp_path, 2)) == alone
    assert answers(handed) > 20
    assert not workers_of(psutil.Process())


@pytest.mark.slow
def test_two_processes_score_in_another_dtype_as_one_does(tmp_path: Path, handed: list[Call]) -> None:
    """Workers have the weights as they were loaded: what needs wider ones is computed where they are widened."""

    def found(processes: int) -> dict[str, bytes]:
        options = Options(out=tmp_path / str(processes), processes=processes, dtype="bfloat16")
        neurons = SafetyNeurons(PROMPTS, top=0.01, scoring_dtype="float32")
        recipe = Recipe(arms={"ss": Suppress(Shared(neurons))}, measures=(ASR(PROMPTS),), controls=1, name="wider")
        return tables(run_recipe(recipe, options, Console(quiet=True)))

    assert found(2) == found(1)
    assert answers(handed) > 4


@pytest.mark.slow
def test_two_processes_score_local_effects_as_one_does(tmp_path: Path, handed: list[Call]) -> None:
    """Each has measured the weights for itself, and no call has brought them along."""

    def found(processes: int) -> dict[str, bytes]:
        neurons = SafetyNeurons(PROMPTS, top=0.01, effect="local", rule="harmful")
        options = Options(out=tmp_path / str(processes), processes=processes)
        return tables(run_recipe(Recipe(sets={"ms": neurons}, name="local"), options, Console(quiet=True)))

    assert found(2) == found(1)
    assert answers(handed) > 1
    assert max(len(call.message) for call in handed) < 100_000


@pytest.mark.slow
def test_what_a_killed_worker_had_is_computed_here(tmp_path: Path, alone: dict[str, bytes], handed: list[Call]) -> None:
    def kill() -> None:
        until(lambda: answers(handed) > 20)
        for worker in workers_of(psutil.Process()):
            worker.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    run = made(tmp_path, 2)
    killer.join()
    assert tables(run) == alone
    assert any("ended early" in warning for warning in run.manifest()["warnings"])


@pytest.mark.slow
@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_a_run(tmp_path: Path, alone: dict[str, bytes], ended_by: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(Path(__file__).parent)]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    parent, found = psutil.Process(run.pid), []

    def has_worker() -> bool:
        assert run.poll() is None, "the run ended by itself"
        found[:] = workers_of(parent)
        return bool(found) and found[0].cpu_times().user > 0.5

    until(has_worker)
    run.send_signal(ended_by)
    run.wait(120)
    assert not psutil.wait_procs(found, timeout=60)[1]
    assert tables(made(tmp_path, 1)) == alone  # the same command goes on


@pytest.mark.slow
def test_two_runs_share_a_cache(tmp_path: Path, alone: dict[str, bytes]) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(Path(__file__).parent)]
    other = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert tables(made(tmp_path, 2)) == alone
    assert other.wait(600) == 0


ON_CPU, ELSEWHERE = (cast("Subject", SimpleNamespace(device=device)) for device in ("cpu", "meta"))


class Silent:
    """A worker's process that takes calls, answers none, and ends when it is killed."""

    def __init__(self):
        read, write = os.pipe()
        self.stdin, self.stdout, self.end = io.BytesIO(), os.fdopen(read, "rb"), os.fdopen(write, "wb")
        self.end.write(pickle.dumps({}))
        self.end.flush()

    def kill(self) -> None:
        self.end.close()

    def wait(self) -> None:
        """It has ended."""


def test_what_no_worker_has_is_computed_here_while_nothing_else_can_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    computed, process = [], Silent()
    monkeypatch.setattr(workers, "worker_process", lambda: process)
    sharing = sharing_workers()
    sharing._start()
    until(lambda: sharing.are_ready)

    def here(subject, body, arguments):
        computed.append(arguments[0])
        if computed == [3, 2]:
            raise MemoryError
        if computed == [3, 2, 2]:  # who waits for what failed has tried it again, and the worker has all the rest
            process.kill()
        return arguments[0]

    def ask(number: int) -> int:
        return sharing.run(here, ON_CPU, trace_states, (number,))

    try:
        assert list(sharing.together([lambda n=n: ask(n) for n in range(4)])) == [0, 1, 2, 3]
    finally:
        sharing.close()
        sharing.take_cores_back()
    assert sorted(computed) == [0, 1, 2, 2, 3]


def test_waiting_to_be_computed_is_no_part_of_what_a_batch_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else batches would be made shorter because others are before them in the row."""
    process, now, took = Silent(), [0.0], {}
    monkeypatch.setattr(workers, "worker_process", lambda: process)
    sharing = sharing_workers()
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    sharing._start()
    until(lambda: sharing.are_ready)

    def here(subject: Subject, body: Callable, arguments: tuple) -> int:
        now[0] += 10.0
        return arguments[0]

    def ask(number: int) -> int:
        began = sharing.clock()
        found = sharing.run(here, ON_CPU, trace_states, (number,))
        took[number] = sharing.clock() - began
        return found

    def answer() -> None:
        """The worker's two calls, the first ones; by then the others are computed here."""
        until(lambda: len(took) == 4)
        now[0] += 1000.0
        for number in (1, 2):
            process.end.write(pickle.dumps((number, True, number - 1, 7.0)))
        process.end.flush()

    threading.Thread(target=answer, daemon=True).start()
    try:
        assert list(sharing.together([lambda n=n: ask(n) for n in range(6)])) == list(range(6))
    finally:
        sharing.close()
        sharing.take_cores_back()
    assert took == {0: 7.0, 1: 7.0, 2: 10.0, 3: 10.0, 4: 10.0, 5: 10.0}


class NoRoom:
    """An answer that does not fit into the memory of whoever reads it."""

    def __reduce__(self):
        return bytearray, (2**62,)


def test_a_worker_whose_answer_cannot_be_read_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    process, computed = Silent(), []
    monkeypatch.setattr(workers, "worker_process", lambda: process)
    sharing = sharing_workers()
    sharing._start()
    until(lambda: sharing.are_ready)

    def here(subject: Subject, body: Callable, arguments: tuple) -> int:
        computed.append(arguments[0])
        return arguments[0]

    def ask(number: int) -> int:
        return sharing.run(here, ON_CPU, trace_states, (number,))

    def answer() -> None:
        until(lambda: len(sharing.workers[0].calls) > 1)
        process.end.write(pickle.dumps((1, True, NoRoom(), 0.0)))
        process.end.flush()

    threading.Thread(target=answer, daemon=True).start()
    work = [lambda n=n: ask(n) for n in range(4)]
    asking = threading.Thread(target=lambda: list(sharing.together(work)), daemon=True)
    asking.start()
    asking.join(60)
    process.kill()
    assert not asking.is_alive()
    assert sorted(computed) == [0, 1, 2, 3]
    sharing.close()
    sharing.take_cores_back()


def precision(_model: object) -> tuple[str, Any]:
    return torch.get_float32_matmul_precision(), torch.backends.mkldnn.enabled


class Cycle:
    """What only the collector of garbage finds."""

    ended = 0

    def __init__(self):
        self.me = self

    def __del__(self):
        Cycle.ended += 1


def fails(_model: object) -> None:
    gc.disable()
    Cycle()
    raise MemoryError


def ended(_model: object) -> int:
    return Cycle.ended


@pytest.mark.slow
def test_a_worker_multiplies_as_the_first_process_is_set_to_and_keeps_nothing_of_a_call_that_failed() -> None:
    loading = Loading(name="organism", dtype="float32", device="cpu", asking=NO_WISH, threads=1, tried=frozenset())
    before = precision(None)
    torch.set_float32_matmul_precision("medium")
    torch.backends.mkldnn.set_flags(False)
    sharing = Workers([loading], load_subject("organism", weights=False).identity)
    try:
        sharing._start()
        until(lambda: sharing.are_ready or sharing.workers[0].is_lost)
        calls = [Call(n, pickle.dumps((n, body, ())), lambda: None, None) for n, body in enumerate(ASKED)]
        sharing.waiting.extend(calls)
        sharing._supply(sharing.workers[0])
        until(lambda: calls[-1].is_known or sharing.workers[0].is_lost)
        assert [(call.is_known, call.value) for call in calls] == [(True, ("medium", False)), (False, None), (True, 1)]
    finally:
        sharing.close()
        sharing.take_cores_back()
        torch.set_float32_matmul_precision(before[0])
        torch.backends.mkldnn.set_flags(before[1])


ASKED = (precision, fails, ended)


def test_what_a_worker_has_computed_is_taken_to_the_device_of_the_first_process() -> None:
    def here(subject: Subject, body: Callable, arguments: tuple) -> tuple[str, str]:
        (stages,) = arguments
        return stages["input"].device.type, stages["layers"]

    given = {"input": torch.ones(2), "layers": "all"}
    assert sharing_workers().run(here, ELSEWHERE, trace_states, (given,)) == ("meta", "all")
    assert sharing_workers().run(here, ON_CPU, trace_states, (given,)) == ("cpu", "all")


# ── who gets workers ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_small_model_gets_a_process_per_core_that_the_memory_holds(
    organism: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_places, "usable_cores", lambda: 4)
    monkeypatch.setattr(worker_places, "memory", lambda: (10**11, 10**11))
    assert worker_places._places(organism, None) == ["cpu"] * 3
    assert worker_places._places(organism, 2) == ["cpu"]
    assert worker_places._places(organism, 1) == []
    assert worker_places._places(replace(organism, family=replace(organism.family, name="a user's")), 2) == []
    monkeypatch.setattr(worker_places, "memory", lambda: (10**11, 2 * 10**9))
    assert worker_places._places(organism, None) == ["cpu"]
    monkeypatch.setattr(worker_places, "SMALL", 1)
    assert worker_places._places(organism, None) == []


def test_a_model_on_a_gpu_gets_those_of_its_kind_that_hold_it(
    organism: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, free = ["A", "A", "B", "A", "A"], [0, 10**11, 10**11, 10**8, 10**11]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)
    monkeypatch.setattr(torch.cuda, "get_device_name", names.__getitem__)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda one: (free[one], 10**11))
    subject = replace(organism, device="cuda")
    assert worker_places._places(subject, None) == ["cuda:1", "cuda:4"]
    assert worker_places._places(subject, 2) == ["cuda:1"]
    assert worker_places._places(subject, 1) == []


def test_little_work_starts_no_process(organism: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_places, "usable_cores", lambda: 2)
    monkeypatch.setattr(worker_places, "memory", lambda: (10**11, 10**11))
    with sharing(organism, None, expected=8) as subject:
        assert subject.workers is not None
        inputs = whole_inputs(subject, [[1, 2, 3]])
        alone = run_body(organism, trace_states, inputs, places_of(organism))
        assert run_body(subject, trace_states, inputs, places_of(subject)).equal(alone)
        assert not subject.workers.workers
    assert subject.workers.is_closed


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads of this process at each start of workers, none of which is a process."""
    found: list[int] = []

    def start(self: Workers) -> None:
        self._share_cores()
        self.workers = [Worker(None)]  # type: ignore[arg-type]
        found.append(torch.get_num_threads())

    monkeypatch.setattr(Workers, "_start", start)
    return found


def sharing_workers(threads: int = 1) -> Workers:
    loading = Loading(
        name="organism", dtype="float32", device="cpu", asking=NO_WISH, threads=threads, tried=frozenset()
    )
    return Workers([loading], {}, expected=100_000)


def test_what_is_left_starts_workers_and_what_is_cached_does_not(started: list[int]) -> None:
    few, many = sharing_workers(), sharing_workers()
    many._learn(100, 0.1)
    assert len(started) == 1
    few.spare(99_000)
    few._learn(100, 0.1)
    assert len(started) == 1, "what is left takes a second"
    later = sharing_workers()
    later.spare(10_000)
    later._learn(100, 0.1)
    assert len(started) == 1, "the rest may be cached, too"
    later._learn(100, 0.1 + COST)
    assert len(started) == 2


def test_only_workers_that_start_take_cores(
    organism: Subject, started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_places, "usable_cores", lambda: 4)
    monkeypatch.setattr(worker_places, "memory", lambda: (10**11, 10**11))
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with sharing(organism, 2, expected=8) as subject:
            assert subject.workers is not None
            assert torch.get_num_threads() == 4
            subject.workers._start()
            assert started == [2]
            subject.workers.workers.clear()
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def organism() -> Subject:
    return load_subject("organism")
