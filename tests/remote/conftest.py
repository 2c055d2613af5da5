"""A made-up NDIF behind a network, for tests of one job."""

from collections.abc import Iterator

import pytest
from bad_network import MadeUp, Network, bad_network


@pytest.fixture
def made_up() -> MadeUp:
    return MadeUp()


@pytest.fixture
def network(made_up: MadeUp) -> Iterator[Network]:
    with bad_network(made_up) as network:
        yield network
