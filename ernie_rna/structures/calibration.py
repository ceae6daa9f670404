"""From the logits of a structure head to probabilities that come true.

Platt's scaling (in Advances in Large Margin Classifiers, MIT Press, 1999): the log-odds of a pair
are a line over its logit, fitted to known structures by maximum likelihood. The two numbers stand
in the model's config.json as `pair_calibration`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ernie_rna.extras import import_extra


@dataclass(frozen=True)
class CalibrationLine:
    """log-odds = slope * logit + offset."""

    slope: float
    offset: float


UNCALIBRATED = CalibrationLine(1.0, 0.0)


def read_calibration(config: Any) -> CalibrationLine:
    """What a model's configuration says; `UNCALIBRATED` where it says nothing.

    Raises:
        ValueError: it is no pair of numbers with a slope above 0.
    """
    values = getattr(config, "pair_calibration", None)
    if values is None:
        return UNCALIBRATED
    try:
        slope, offset = map(float, values)
    except (TypeError, ValueError):
        slope = offset = float("nan")
    if not (slope > 0 and np.isfinite([slope, offset]).all()):
        raise ValueError(f"pair_calibration must be a slope above 0 and an offset; got {values!r}")
    return CalibrationLine(slope, offset)


def fit_calibration(logits: np.ndarray, known: np.ndarray) -> CalibrationLine:
    """The line that makes known pairs likeliest.

    Args:
        logits: (pairs,).
        known: (pairs,), whether each is in the known structure.

    Raises:
        ValueError: all of the pairs are known or none is; the logits tell them apart perfectly, so
            that no line is the best; or known pairs do not have the higher ones.
        ImportError: scikit-learn is not installed.
    """
    linear = import_extra("sklearn.linear_model", "train", "calibration")
    known = known.astype(bool)
    if known.all() or not known.any():
        raise ValueError(f"calibration needs known and other pairs; of {len(known)} all are alike")
    if logits[known].min() >= logits[~known].max() or logits[known].max() <= logits[~known].min():
        raise ValueError(
            "calibration has no best line: the logits tell known pairs from the others"
        )
    fitted = linear.LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8)
    fitted.fit(logits[:, None].astype(np.float64), known)
    slope, offset = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if slope <= 0:
        raise ValueError(f"known pairs do not have higher logits: the slope is {slope:.3f}")
    return CalibrationLine(slope, offset)


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
