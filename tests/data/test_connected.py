"""Components without scipy's graphs are scipy's components."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ssn_probe.data.connected import connected

NODE = st.integers(0, 19)


@given(st.lists(st.tuples(NODE, NODE), max_size=30))
def test_components_and_their_order_are_those_of_scipy(edges: list[tuple[int, int]]) -> None:
    first, second = np.array(edges, dtype=int).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(edges)), (first, second)), shape=(20, 20))
    assert connected(20, first, second).tolist() == connected_components(graph, directed=False)[1].tolist()


def test_a_long_chain_in_any_order_is_one_component() -> None:
    order = np.random.default_rng(1).permutation(2000)
    assert set(connected(2000, order[:-1], order[1:]).tolist()) == {0}
