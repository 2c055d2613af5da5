"""A process that shares its cores computes with fewer threads, torch and numpy alike, and has them back after."""

import threading
from collections.abc import Iterator

import numpy as np  # noqa: F401  # its products are what is limited
import pytest
import torch
from threadpoolctl import ThreadpoolController

from ssn_probe.model import sharing_cores
from ssn_probe.model.sharing_cores import at_most, on_cores


def threads() -> tuple[int, set[int]]:
    """torch's, and those of numpy's products; none where numpy came with another library than OpenBLAS."""
    found = ThreadpoolController().select(internal_api="openblas").info()
    return torch.get_num_threads(), {one["num_threads"] for one in found}


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    with ThreadpoolController().select(internal_api="openblas").limit(limits=4):
        yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
def test_torch_and_numpy_have_fewer_threads_for_a_while() -> None:
    before = threads()
    assert before[0] == 4
    assert before[1] <= {4}
    with at_most(2):
        assert threads() == (2, {min(2, one) for one in before[1]})
    assert threads() == before
    with pytest.raises(KeyError), at_most(1):
        raise KeyError
    assert threads() == before


@pytest.mark.usefixtures("four_threads")
def test_nobody_gets_more_than_he_had() -> None:
    before = threads()
    with at_most(64):
        assert threads() == before


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(("said", "cores"), [("2", 1), ("", 2), ("0", 2)])
def test_jobs_have_a_thread_each_and_products_one(said: str, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    monkeypatch.setattr(sharing_cores, "usable_cores", lambda: cores)
    together, found, before = threading.Barrier(2, timeout=60), [], threads()

    def work(job: int) -> None:
        together.wait()  # neither goes on alone
        found.append((job, threads()[1] <= {1}))
        together.wait()

    on_cores(work, [0, 1])
    assert sorted(found) == [(0, True), (1, True)]
    assert threads() == before


@pytest.mark.parametrize("jobs", [[1, 2, 3], [7]])
def test_one_thread_or_one_job_is_done_here_and_errors_are_raised(
    jobs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1" if len(jobs) > 1 else "4")
    found: list[int] = []
    on_cores(lambda job: found.append(job * (threading.current_thread() is threading.main_thread())), jobs)
    assert found == jobs
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with pytest.raises(ZeroDivisionError):
        on_cores(lambda job: found.append(1 // (job - jobs[-1])), jobs)
