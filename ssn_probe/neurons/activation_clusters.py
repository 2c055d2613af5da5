"""Neurons that do the same on the same prompts, by k-means."""

import numpy as np
from jaxtyping import Float, Int

from ssn_probe.errors import RecipeError

RESTARTS = 10
"""Beginnings of k-means, of which the one with the least sum of squares counts."""


def activation_clusters(
    profiles: Float[np.ndarray, "neuron prompt"], *, count: int | None, most: int, seed: int
) -> Int[np.ndarray, " neuron"]:
    """The cluster of every neuron, from 0 in the order of the first member.

    A profile is what a neuron does on every prompt; here less its mean and over its standard deviation, so that
    neurons are alike which rise and fall together. Euclidean k-means with k-means++ beginnings.

    Args:
        count: the number of clusters; None: from 2 to `most`, the one of the highest mean silhouette (Rousseeuw 1987),
            or one cluster where there are fewer than three neurons or no two differ.
        most: the most clusters, where `count` is None.
        seed: decides the beginnings.

    Raises:
        RecipeError: `count` is more than there are neurons with different profiles.
    """
    spread = profiles.std(axis=1, keepdims=True)
    standard = (profiles - profiles.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    different = len(np.unique(standard, axis=0))
    if count is not None:
        if count > different:
            raise RecipeError(
                f"there are {different:,} neurons with different activations, and {count:,} clusters were asked for",
                "Ask for fewer clusters, or leave their number out.",
            )
        return _k_means(standard, count, seed)
    found, best = np.zeros(len(standard), dtype=np.int64), -np.inf
    for several in range(2, min(most, len(standard) - 1, different) + 1):
        clusters = _k_means(standard, several, seed)
        if (score := silhouette(standard, clusters)) > best:
            found, best = clusters, score
    return found


def _k_means(profiles: np.ndarray, count: int, seed: int) -> np.ndarray:
    from scipy.cluster.vq import ClusterError, kmeans2

    found, least = None, np.inf
    for restart in range(RESTARTS):
        try:
            draw = np.random.default_rng([seed, count, restart])
            centres, clusters = kmeans2(profiles, count, iter=50, minit="++", missing="raise", rng=draw)
        except ClusterError:  # a cluster lost its last member
            continue
        if (squares := float(((profiles - centres[clusters]) ** 2).sum())) < least:
            found, least = clusters, squares
    if found is None:
        raise RecipeError(f"k-means found no {count:,} clusters", "Ask for fewer clusters.")
    _, first, number = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


def silhouette(profiles: Float[np.ndarray, "neuron prompt"], clusters: Int[np.ndarray, " neuron"]) -> float:
    """The mean over neurons of (b − a) / max(a, b), from -1 to 1.

    a is the mean distance to the other neurons of the own cluster, b the least mean distance to those of another. A
    neuron that is alone in its cluster counts 0. At least two clusters.
    """
    from scipy.spatial.distance import cdist

    distances, members = cdist(profiles, profiles), np.eye(clusters.max() + 1)[clusters]
    sizes = members.sum(axis=0)
    sums, own = distances @ members, (np.arange(len(clusters)), clusters)
    inside = sums[own] / np.maximum(sizes[clusters] - 1, 1)
    outside = np.where(members > 0, np.inf, sums / sizes).min(axis=1)
    larger = np.maximum(inside, outside)
    values = np.where((sizes[clusters] > 1) & (larger > 0), (outside - inside) / np.where(larger > 0, larger, 1), 0.0)
    return float(values.mean())
