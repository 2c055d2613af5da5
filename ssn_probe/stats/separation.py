"""Does a score separate two kinds of response? The gate that the refusal log-odds must pass before it is used."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """How often does a response with the label score above a response without it? .5 is chance, 1 perfect separation.

    `scores` [response] finite, `labels` [response] bool. A tie counts half: Mann–Whitney U / (n₁·n₀), Hanley & McNeil
    1982. Raises ValueError when either side is empty, since there is nothing to separate.
    """
    values, marked = _scores_and_labels(scores, labels)
    n_marked, n_other = int(marked.sum()), int((~marked).sum())
    if not n_marked or not n_other:
        raise ValueError(f"AUROC needs both kinds of response, got {n_marked} with the label and {n_other} without")
    rank_sum = float(mid_ranks(values)[marked].sum())
    return (rank_sum - n_marked * (n_marked + 1) / 2) / (n_marked * n_other)


def mid_ranks(values: np.ndarray) -> np.ndarray:
    """The rank of every value from 1, equal ones sharing their mean: in numpy, since scipy.stats is slow to import."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1) / 2


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Whether the refusal log-odds may be trusted, and `why` in words. `auroc` is None when a side is empty."""

    auroc: float | None
    n_refused: int
    n_other: int
    passed: bool
    why: str


def gate(
    log_odds: ArrayLike,
    refused: ArrayLike,
    *,
    minimum: float = 0.85,
    each_side: int = 20,
    kinds: tuple[str, str] = ("refused", "other"),
    what: str = "the refusal log-odds against the verdict",
) -> Gate:
    """Does the refusal log-odds of a prompt predict whether the model goes on to refuse it?

    `log_odds` [response], `refused` [response] bool, of responses that were not used to choose the openings. Passes
    with an AUROC of at least `minimum` and `each_side` responses on either side. Raises ValueError for a log-odds that
    is not finite: a NaN is a broken read-out, not a failed gate. `kinds` and `what` are the words of another behaviour.
    """
    values, marked = _scores_and_labels(log_odds, refused)
    n_refused, n_other = int(marked.sum()), int((~marked).sum())
    area = auroc(values, marked) if n_refused and n_other else None
    passed, counts = False, f"{n_refused} {kinds[0]} and {n_other} {kinds[1]} responses"
    if area is None or min(n_refused, n_other) < each_side:
        why = f"too few responses: {counts}, at least {max(each_side, 1)} of each are needed"
    else:
        passed = area >= minimum
        # Four digits: .8499 must not read as ".85, below .85".
        relation = ", at least" if passed else " is below"
        why = f"AUROC {area:.4f} of {what}{relation} {minimum} ({counts})"
    return Gate(auroc=area, n_refused=n_refused, n_other=n_other, passed=passed, why=why)


def _scores_and_labels(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    values, marked = np.asarray(scores, dtype=float), np.asarray(labels)
    if marked.dtype != bool:
        raise ValueError(f"labels must be bool, got {marked.dtype}")
    if values.ndim != 1 or values.shape != marked.shape:
        raise ValueError(f"one label per score is needed, got shapes {values.shape} and {marked.shape}")
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    return values, marked
