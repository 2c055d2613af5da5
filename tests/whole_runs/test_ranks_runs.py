"""A model that is sharded over two processes: the study finds what it finds in one, and whatever fails ends both."""

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from ranks import run_ranks

from ssn_probe import run
from ssn_probe.api.verify import verify
from ssn_probe.runs.folder import find_run

pytestmark = pytest.mark.slow
STUDY = """\
from ssn_probe import ASR, Amplify, Local, MeanOf, Patch, Prompts, Recipe, Refusal, recipe, SafetyNeurons, Shared
from ssn_probe import Suppress

@recipe
def study(model: str = "organism"):
    prompts = Prompts("organism", languages=("qaa", "qac"), limit=24)
    local = SafetyNeurons(prompts, effect=Local(), top=0.01, scoring_dtype="float64")
    refusal = SafetyNeurons(prompts, effect=Refusal(), top=0.01)
    arms = {
        "zero": Suppress(Shared(refusal)),
        "mean": Suppress(local, to=MeanOf(prompts)),
        "twice": Amplify(refusal, by=2.0),
        "patch": Patch(local, positions="response"),
    }
    numbers = {"controls": 1, "log_odds_label_sets": 1, "permutations": 99, "half_samples": 2}
    return Recipe(model=model, arms=arms, primary="zero", measures=(ASR(prompts),), **numbers)
"""


NUMBERS = ("samples", "log_odds", "kl", "neurons", "nulls")


@pytest.mark.parametrize("model", ["organism", "organism:planted-qwen3"])
def test_two_processes_find_what_one_finds(model: str, tmp_path: Path) -> None:
    file, apart, alone = tmp_path / "study.py", tmp_path / "two", tmp_path / "one"
    file.write_text(STUDY, encoding="utf-8")
    command = ["-m", "ssn_probe", "run", str(file), "-T", f"model={model}", "-o", str(apart)]
    (code, said), helper = run_ranks(command, tmp_path)
    assert code == 0, said
    assert helper == (0, ""), "the second process prints nothing"
    assert len([path for path in apart.iterdir() if path.name not in ("cache", "latest")]) == 1, "and writes nothing"
    two, one = find_run("latest", apart), run(str(file), model=model, out=alone, progress=False)
    assert two.manifest()["key"] == one.manifest["key"]
    assert two.manifest()["device"] == "cpu, 2 processes"
    for name in NUMBERS:
        _compare(two.table(name), one.table(name))
    assert all(finding.holds for finding in verify(two))
    again = run(str(file), model=model, out=apart, progress=False)
    assert again.manifest["cache"].get("computed", 0) == 0, "one process goes on from what two have measured"


def _compare(two: pl.DataFrame, one: pl.DataFrame) -> None:
    """Scores within rounding; which neurons, responses and verdicts: exactly."""
    numbers = [name for name, kind in one.schema.items() if kind.is_float()]
    assert two.drop(numbers).equals(one.drop(numbers))
    for name in numbers:
        np.testing.assert_allclose(two[name].to_numpy(), one[name].to_numpy(), rtol=1e-4, atol=1e-4, err_msg=name)


REFUSED = {
    "a recipe that trains": (2, ["run", "expand_ss"], "cannot train a model that is split over 2 processes"),
    "three processes": (3, ["run", "suppress_ss"], "cannot be split over 3 processes"),
    "the doctor": (2, ["doctor", "--model", "organism"], "needs the whole model on one device"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_split_is_refused_once(case: str, tmp_path: Path) -> None:
    ranks, command, reason = REFUSED[case]
    (code, said), *helpers = run_ranks(["-m", "ssn_probe", *command], tmp_path, ranks=ranks)
    assert code == 1
    assert " ".join(said.split()).count(reason) == 1
    assert all(output == "" for _, output in helpers)


FAILING = """\
import datetime
import torch.distributed as dist
from ssn_probe.model import ranks

ranks.APART = datetime.timedelta(seconds=5)

def helper_runs_out(model):
    if ranks.helps():
        raise MemoryError("no room")

def all_fail(model):
    raise ValueError("all")

def helper_stops_in_the_middle(model):
    if ranks.helps():
        raise ValueError("too early")
    sums(model)

def interrupted(model):
    if not ranks.helps():
        raise KeyboardInterrupt
    sums(model)

def sums(model):
    from torch import ones
    value = ones(1)
    dist.all_reduce(value, group=model._module._device_mesh["tp"].get_group())
    return value
"""
ASKING = """\
import failing
from ssn_probe.model import ranks
from ssn_probe.model.subject import load_subject

shards = load_subject("organism").shards
for name in {names}:
    try:
        print(name, shards.run(getattr(failing, name)))
    except BaseException as error:
        print(name, type(error).__name__, error)
"""


def _ask(folder: Path, *names: str) -> list[tuple[int, str]]:
    (folder / "failing.py").write_text(FAILING, encoding="utf-8")
    (folder / "asking.py").write_text(ASKING.format(names=names), encoding="utf-8")
    return run_ranks([str(folder / "asking.py")], folder)


def test_where_all_stopped_at_the_same_place_they_go_on(tmp_path: Path) -> None:
    (code, said), helper = _ask(tmp_path, "sums", "helper_runs_out", "all_fail", "sums")
    assert code == 0, said
    assert helper == (0, "")
    first, memory, all_fail, last = said.splitlines()
    assert first == last == "sums tensor([2.])"
    assert memory == "helper_runs_out OutOfMemoryError no room (process 1 of 2)"  # a smaller batch is tried
    assert all_fail == "all_fail ValueError all"


def test_a_process_that_stops_in_the_middle_ends_all(tmp_path: Path) -> None:
    _, (code, said) = _ask(tmp_path, "helper_stops_in_the_middle")
    assert code == 1
    assert said == "Error: process 1 of 2: too early\n"


def test_after_ctrl_c_nothing_is_computed(tmp_path: Path) -> None:
    (_, said), (code, other) = _ask(tmp_path, "interrupted", "sums")
    interrupted, after = said.splitlines()[:2]
    assert interrupted == "interrupted KeyboardInterrupt "
    assert after == "sums ModelError The processes of torchrun have lost each other."
    assert (code, other) == (1, "")


LEAVING = """\
import atexit
from contextlib import suppress
from pathlib import Path
from ssn_probe.model import ranks

def threads():
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # a thread that has just ended
            names.append(path.read_text())
    return sum("gloo" in name for name in names)

atexit.register(lambda: print(threads()))
ranks.join()
assert threads()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs the names of a process's threads")
def test_no_thread_of_the_processes_outlives_their_last_word(tmp_path: Path) -> None:
    """One that lets go of a tensor while Python ends needs Python's lock, and aborts the process."""
    (tmp_path / "leaving.py").write_text(LEAVING, encoding="utf-8")
    first, helper = run_ranks([str(tmp_path / "leaving.py")], tmp_path)
    assert first == (0, "0\n")
    assert helper == (0, "0\n")
