"""How sure a model is of each base, and probabilities that come true.

A model with a head for structures gives every two bases a logit. Platt's scaling (in Advances in
Large Margin Classifiers, MIT Press, 1999) makes probabilities of them: the log-odds of a pair are a
line over its logit, fitted to known structures by maximum likelihood, whose numbers stand in the
model's config.json as `pair_calibration`. Without them the logit is taken as it is, and the
probabilities are as true as that. A model without such a head has only the contacts of the
optimisation, in the same range but no probabilities: they rank the pairs. Positions count from 0.
"""

from dataclasses import dataclass

import numpy as np

from ernie_rna.extras import import_extra
from ernie_rna.structures.formats.structure import Structure


def base_reliabilities(probabilities: np.ndarray, structure: Structure) -> np.ndarray:
    """How likely what a structure says of each base is.

    Of a paired base that is the probability of its pair; of an unpaired one that none of its pairs
    exists, taken as independent: the product of 1 - p over its possible partners.

    Args:
        probabilities: (length, length), symmetric.
        structure: base pairs of the sequence.

    Returns:
        (length,), from 0 to 1.

    Raises:
        ValueError: the matrix is not of this sequence.

    >>> p = np.array([[0, 0, 0.9], [0, 0, 0.2], [0.9, 0.2, 0]])
    >>> base_reliabilities(p, Structure("tiny", "GAC", [(0, 2)])).round(2).tolist()
    [0.9, 0.8, 0.9]
    """
    length = len(structure.sequence)
    if probabilities.shape != (length, length):
        raise ValueError(
            f"{structure.id} has {length} bases, and the probabilities are {probabilities.shape}"
        )
    reliabilities: np.ndarray = np.prod(1.0 - probabilities, axis=1)
    for i, j in structure.pairs:
        reliabilities[[i, j]] = probabilities[i, j]
    return reliabilities


def fit_calibration(evidence: np.ndarray, known: np.ndarray) -> list[float]:
    """The line, log-odds = slopes * evidence + offset, that makes known pairs likeliest.

    Args:
        evidence: (pairs, kinds), such as the logits of a head.
        known: (pairs,), whether each is in the known structure.

    Returns:
        The slopes, and the offset behind them.

    Raises:
        ValueError: all of the pairs are known or none is; the evidence tells them apart perfectly,
            so that no line is the best; or known pairs do not have the higher numbers.
        ImportError: scikit-learn is not installed.
    """
    linear = import_extra("sklearn.linear_model", "train", "calibration")
    known = known.astype(bool)
    if known.all() or not known.any():
        raise ValueError(
            f"calibration needs both known and other pairs; all {len(known)} are of one kind"
        )
    for values in evidence.T:
        yes, no = values[known], values[~known]
        if yes.min() >= no.max() or yes.max() <= no.min():
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
    """Pairs with probabilities from `low` to `high`.

    Attributes:
        count: how many there are.
        predicted: the mean of their probabilities.
        known: the share of them that is in the known structures.
    """

    low: float
    high: float
    count: int
    predicted: float
    known: float


def reliability(probabilities: np.ndarray, known: np.ndarray, bins: int = 10) -> list[Bin]:
    """The reliability diagram: bins of equal width, those without pairs left out.

    Args:
        probabilities, known: (pairs,) each.
    """
    edges = np.linspace(0, 1, bins + 1)
    counts, predicted, hits = (
        np.histogram(probabilities, edges, weights=weights)[0].tolist()
        for weights in (None, probabilities, known.astype(np.float64))
    )
    rows = zip(edges[:-1].tolist(), edges[1:].tolist(), counts, predicted, hits, strict=True)
    return [Bin(low, high, n, p / n, k / n) for low, high, n, p, k in rows if n]


def expected_calibration_error(bins: list[Bin]) -> float:
    """The mean distance between what is predicted and what is known, weighted by the counts.

    >>> expected_calibration_error([Bin(0, 0.5, 3, 0.2, 0.3), Bin(0.5, 1, 1, 0.9, 0.5)])
    0.175
    """
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.predicted - one.known) for one in bins) / total
