"""Two groups of prompts that differ most in their effects, found without a label.

Where harmful and harmless prompts have different effects, these are nearly the two contexts, and nothing but the
effects and the numbers of prompts has told which prompt is where. Exchanged labels find the same groups.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from ssn_probe.stats.nulls.prompt_effects import Place

STARTS, STEPS = 3, 100
"""Principal components to begin with, in both directions, and reassignments at most."""


def telling(places: Sequence[Place]) -> list[Place]:
    """The places whose neurons tell kinds of prompts apart: those of `ffn`, or all where there is none.

    Single `ffn` neurons answer to what a prompt says, attention neurons to all prompts: in a Gemma-2 organism `ffn`
    neurons part all 48 prompts by context, and those of the five sites together 40.
    """
    return [place for place in places if place[1] == "ffn"] or list(places)


def alike(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """How like prompts' effects are, [prompt, prompt], each neuron's in units of its root mean square over prompts.

    Prompts are compared by the direction of these effects, so that one with large effects throughout is no group by
    itself. blocks: effects [prompt, neuron] of some neurons each, float64.
    """
    gram = 0.0
    for block in blocks:
        size = np.sqrt((block**2).mean(axis=0))
        units = np.divide(block, size, out=np.zeros_like(block), where=size > 0)
        gram = gram + units @ units.T
    gram = np.asarray(gram)
    length = np.sqrt(np.diag(gram))
    length = np.where(length > 0, length, 1.0)
    return gram / length / length[:, None]


def two_groups(gram: np.ndarray, first: int) -> np.ndarray:
    """Which of the prompts are in a group of `first`, bool [prompt], such that the two groups differ most.

    k-means with given sizes: from several principal components, every prompt is scored by what the difference of the
    groups' means, both without itself, says of it, and the `first` highest make the group, until none moves.
    """
    n = len(gram)
    middle = np.eye(n) - 1 / n
    gram = middle @ gram @ middle
    components = np.linalg.eigh(gram)[1].T[::-1][:STARTS]
    found = [_settled(gram, _highest(sign * one, first), first) for one in components for sign in (1, -1)]
    return max(found, key=lambda one: round(one[0], 9))[1]  # rounded, so that equals are decided by their order


def _settled(gram: np.ndarray, group: np.ndarray, first: int) -> tuple[float, np.ndarray]:
    """The group after reassignment, behind the squared distance of the two means, less what chance adds to it."""
    own = np.diag(gram)
    for _ in range(STEPS):
        weights = _difference(group)
        moved = _highest(gram @ weights - own * weights, first)
        if (moved == group).all():
            break
        group = moved
    weights = _difference(group)
    return float(weights @ gram @ weights - (own * weights**2).sum()), group


def _difference(group: np.ndarray) -> np.ndarray:
    """Weights that give the mean of a group less that of the others."""
    return np.where(group, 1 / max(1, group.sum()), -1 / max(1, (~group).sum()))


def _highest(values: np.ndarray, count: int) -> np.ndarray:
    chosen = np.zeros(len(values), dtype=bool)
    chosen[np.argsort(-values, kind="stable")[:count]] = True
    return chosen
