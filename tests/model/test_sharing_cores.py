"""A process that shares its cores computes with fewer threads, torch and numpy alike, and has them back after."""

from collections.abc import Iterator

import numpy as np  # noqa: F401  # its products are what is limited
import pytest
import torch
from threadpoolctl import ThreadpoolController

from ssn_probe.model.sharing_cores import at_most


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
