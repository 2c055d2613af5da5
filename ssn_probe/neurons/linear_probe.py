"""A linear probe that tells harmful from harmless prompts by what neurons do, and which neurons it leans on."""

import numpy as np
from jaxtyping import Bool, Float

ROUNDED = 2.0**-11
"""The most that half precision, in which effects are kept, changes a number, relative to it."""


def probe_weights(
    features: Float[np.ndarray, "prompt neuron"], harmful: Bool[np.ndarray, " prompt"], penalty: float = 1.0
) -> Float[np.ndarray, " neuron"]:
    """The weights of a logistic regression on features of mean 0 and variance 1: positive speaks for harmful.

    Minimises the log-loss summed over prompts plus ½ · penalty · ‖w‖²; the intercept has no penalty. The minimum lies
    in the span of the prompts, so that it is sought there: as many unknowns as prompts, however many neurons. A feature
    that is constant but for its rounding, such as a peak at the first token of all prompts, has the weight 0.
    """
    from scipy.optimize import minimize

    spread = features.std(axis=0)
    varies = spread > ROUNDED * np.abs(features).max(axis=0)
    standard = np.where(varies, (features - features.mean(axis=0)) / np.where(varies, spread, 1.0), 0.0)
    left, sizes, right = np.linalg.svd(standard, full_matrices=False)
    known = np.column_stack([left * sizes, np.ones(len(features))])  # [prompt, direction], the last for the intercept
    sign = np.where(harmful, 1.0, -1.0)
    ridge = np.append(np.full(len(sizes), penalty), 0.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (known @ weights)
        slope = -sign * np.exp(-np.logaddexp(0, margin))
        return float(np.logaddexp(0, -margin).sum() + (ridge * weights**2).sum() / 2), known.T @ slope + ridge * weights

    def curvature(weights: np.ndarray) -> np.ndarray:
        chance = np.exp(-np.logaddexp(0, -known @ weights))
        return (known.T * (chance * (1 - chance))) @ known + np.diag(ridge)

    start = np.zeros(known.shape[1])
    found = minimize(loss, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-8})
    return right.T @ found.x[:-1]


def in_deviations(weights: Float[np.ndarray, " neuron"]) -> Float[np.ndarray, " neuron"]:
    """How many standard deviations each weight is above the mean of all; 0 where all are the same."""
    spread = weights.std()
    return (weights - weights.mean()) / spread if spread > 0 else np.zeros_like(weights)
