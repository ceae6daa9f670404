"""How sure a model is of each base, and the calibration of pair probabilities.

A model with a secondary-structure head computes a logit for every two bases. Platt's scaling (in
Advances in Large Margin Classifiers, MIT Press, 1999) converts it to a probability: the log-odds of
a pair are a linear function of its logit, fitted to known structures by maximum likelihood. Slope
and offset are `pair_calibration` in the model's config.json; without them the logits are used as
log-odds, uncalibrated. A model without such a head has only the contacts of the optimisation, which
rank the pairs in the same range but are not probabilities. Positions count from 0.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ernie_rna.extras import import_extra
from ernie_rna.structures.formats.structure import Structure


def base_reliabilities(probabilities: np.ndarray, structure: Structure) -> np.ndarray:
    """Probability, for each base, that the structure is right about it.

    For a paired base this is the probability of its pair. For an unpaired base it is the product of
    1 - p over its possible partners: that no pair exists, if pairs are taken as independent.

    Args:
        probabilities: (length, length), symmetric.

    Returns:
        (length,), from 0 to 1.

    Raises:
        ValueError: the matrix does not have the length of the sequence.

    >>> p = np.array([[0, 0, 0.9], [0, 0, 0.2], [0.9, 0.2, 0]])
    >>> base_reliabilities(p, Structure("tiny", "GAC", [(0, 2)])).round(2).tolist()
    [0.9, 0.8, 0.9]
    """
    length = len(structure.sequence)
    if probabilities.shape != (length, length):
        raise ValueError(
            f"{structure.id} has {length} bases, but probabilities of shape {probabilities.shape}"
        )
    reliabilities: np.ndarray = np.prod(1.0 - probabilities, axis=1)
    for i, j in structure.pairs:
        reliabilities[[i, j]] = probabilities[i, j]
    return reliabilities


def fit_calibration(evidence: np.ndarray, known: np.ndarray) -> list[float]:
    """Fit log-odds = slopes * evidence + offset to known pairs by maximum likelihood.

    Args:
        evidence: (pairs, kinds of evidence), such as the logits of a head.
        known: (pairs,), whether each pair is in the known structure.

    Returns:
        The slopes, then the offset.

    Raises:
        ValueError: all pairs are known or none is; the evidence separates known pairs from the
            others perfectly, so that no best line exists; or a slope is not positive.
        ImportError: scikit-learn is not installed.
    """
    linear = import_extra("sklearn.linear_model", "train", "calibration")
    known = known.astype(bool)
    if known.all() or not known.any():
        raise ValueError(
            f"calibration needs both known and other pairs; all {len(known)} are of one kind"
        )
    for values in evidence.T:
        positives, negatives = values[known], values[~known]
        if positives.min() >= negatives.max() or positives.max() <= negatives.min():
            raise ValueError(
                "calibration has no best line: the logits separate known pairs from the others"
            )
    fitted = linear.LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8)
    fitted.fit(evidence.astype(np.float64), known)
    slopes, offset = fitted.coef_[0].tolist(), float(fitted.intercept_[0])
    if min(slopes) <= 0:
        raise ValueError(f"known pairs do not have higher logits: the slope is {min(slopes):.3f}")
    return [*slopes, offset]


@dataclass(frozen=True)
class Bin:
    """The pairs with probabilities from `low` to `high`.

    Attributes:
        count: number of pairs.
        predicted: mean of their probabilities.
        known: fraction of them in the known structures.
    """

    low: float
    high: float
    count: int
    predicted: float
    known: float


def reliability(probabilities: np.ndarray, known: np.ndarray, bins: int = 10) -> list[Bin]:
    """Reliability diagram from arrays (pairs,): bins of equal width, without the empty ones."""
    edges = np.linspace(0, 1, bins + 1)
    counts, predicted_sums, known_counts = (
        np.histogram(probabilities, edges, weights=weights)[0].tolist()
        for weights in (None, probabilities, known.astype(np.float64))
    )
    rows = zip(pairwise(edges.tolist()), counts, predicted_sums, known_counts, strict=True)
    return [Bin(*bounds, n, predicted / n, hits / n) for bounds, n, predicted, hits in rows if n]


def expected_calibration_error(bins: list[Bin]) -> float:
    """Mean distance between the predicted and the known fractions, weighted by the bin counts.

    >>> expected_calibration_error([Bin(0, 0.5, 3, 0.2, 0.3), Bin(0.5, 1, 1, 0.9, 0.5)])
    0.175
    """
    return sum(b.count * abs(b.predicted - b.known) for b in bins) / sum(b.count for b in bins)
