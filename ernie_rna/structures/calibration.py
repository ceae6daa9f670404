"""From the logits of a structure head to probabilities that come true.

Platt's scaling (in Advances in Large Margin Classifiers, MIT Press, 1999): the log-odds of a pair
are a line over its logit, fitted to known structures by maximum likelihood. The two numbers stand
in the model's config.json as `pair_calibration`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Calibration:
    """log-odds = slope * logit + offset."""

    slope: float
    offset: float


UNCALIBRATED = Calibration(1.0, 0.0)


def read_calibration(config: Any) -> Calibration:
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
    return Calibration(slope, offset)


def fit_calibration(logits: np.ndarray, known: np.ndarray, steps: int = 50) -> Calibration:
    """The line that makes known pairs likeliest, by Newton's method.

    Args:
        logits: (pairs,).
        known: (pairs,), whether each is in the known structure.
        steps: at most; the method stops once the numbers move by less than 1e-6.

    Raises:
        ValueError: all of the pairs are known or none is; the logits sort them out perfectly, so
            that no line is the best; or known pairs do not have the higher ones.
    """
    known = known.astype(np.float64)
    if known.min() == known.max():
        raise ValueError(f"calibration needs known and other pairs; of {len(known)} all are alike")
    design = np.stack([logits.astype(np.float64), np.ones(len(logits))])  # (2, pairs)
    # From a line that is flat Newton's steps go astray less than from a steep one.
    line = np.array([0.0, np.log(known.mean() / (1 - known.mean()))])
    for _ in range(steps):
        probabilities = 1 / (1 + np.exp(-np.clip(line @ design, -500, 500)))
        curvature = (design * probabilities * (1 - probabilities)) @ design.T
        change = np.linalg.solve(curvature + 1e-9 * np.eye(2), design @ (known - probabilities))
        line = _best_step(design, known, line, change)
        if np.abs(change).max() < 1e-6:
            if line[0] <= 0:
                raise ValueError(
                    f"known pairs do not have higher logits: the slope is {line[0]:.3f}"
                )
            return Calibration(*line.tolist())
    raise ValueError(f"calibration found no best line in {steps} steps; it came to {line}")


def _best_step(
    design: np.ndarray, known: np.ndarray, line: np.ndarray, change: np.ndarray
) -> np.ndarray:
    """The line moved by the change, halved until it is no less likely than before."""
    for _ in range(30):
        if _loss(design, known, line + change) <= _loss(design, known, line):
            return line + change
        change = change / 2
    return line


def _loss(design: np.ndarray, known: np.ndarray, line: np.ndarray) -> float:
    log_odds = line @ design
    loss: float = (np.logaddexp(0, log_odds) - known * log_odds).sum()
    return loss


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
    return list(_bins(probabilities, known.astype(np.float64), np.linspace(0, 1, bins + 1)))


def _bins(probabilities: np.ndarray, known: np.ndarray, edges: np.ndarray) -> Iterator[Bin]:
    number = np.clip(np.digitize(probabilities, edges) - 1, 0, len(edges) - 2)
    for index in range(len(edges) - 1):
        mine = number == index
        if mine.any():
            low, high = float(edges[index]), float(edges[index + 1])
            means = float(probabilities[mine].mean()), float(known[mine].mean())
            yield Bin(low, high, int(mine.sum()), *means)


def expected_calibration_error(bins: list[Bin]) -> float:
    """The mean distance between what is predicted and what is known, weighted by the counts.

    >>> expected_calibration_error([Bin(0, 0.5, 3, 0.2, 0.3), Bin(0.5, 1, 1, 0.9, 0.5)])
    0.175
    """
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.predicted - one.known) for one in bins) / total
