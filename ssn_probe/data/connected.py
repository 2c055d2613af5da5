"""What hangs together, in numpy: importing scipy's graphs takes longer than most of what a cached run does."""

import numpy as np


def connected(nodes: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The component of every node, [node] codes from 0 in the order of their first nodes.

    first, second: the two ends of every edge, [edge]. Nodes take the lowest number that they are connected with, and
    then that node's own, until none changes.
    """
    lowest = np.arange(nodes)
    while True:
        known = lowest.copy()
        least = np.minimum(lowest[first], lowest[second])
        for ends in (first, second):
            np.minimum.at(lowest, lowest[ends], least)
            np.minimum.at(lowest, ends, least)
        lowest = lowest[lowest]
        if np.array_equal(lowest, known):
            return np.unique(lowest, return_inverse=True)[1]
