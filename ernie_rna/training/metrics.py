"""Metrics of fine-tuning by scikit-learn, and what the simplest guess would score. No torch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ernie_rna.extras import import_extra
from ernie_rna.training.labels import NO_LABEL

Metrics = dict[str, float]

# Those of which less is better.
LESS_IS_BETTER = ("loss", "perplexity", "mse")


def classification_metrics(predicted: np.ndarray, labels: np.ndarray) -> Metrics:
    """Accuracy, macro-F1 and Matthews correlation of class ids, (n,) each."""
    sklearn = sklearn_module("metrics")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single class
        return {
            "accuracy": float(sklearn.accuracy_score(labels, predicted)),
            "macro_f1": float(
                sklearn.f1_score(labels, predicted, average="macro", zero_division=0)
            ),
            "mcc": float(sklearn.matthews_corrcoef(labels, predicted)),
        }


def multi_label_metrics(predicted: np.ndarray, labels: np.ndarray) -> Metrics:
    """Of 0 and 1 by label, (n, labels) each; `exact_match` is the share of whole rows."""
    f1_score = sklearn_module("metrics").f1_score
    predicted, labels = predicted.astype(int), labels.astype(int)
    return {
        "exact_match": float((predicted == labels).all(axis=1).mean()),
        **{
            f"{kind}_f1": float(f1_score(labels, predicted, average=kind, zero_division=0))
            for kind in ("macro", "micro")
        },
    }


def regression_metrics(predicted: np.ndarray, labels: np.ndarray) -> Metrics:
    """R2, Spearman correlation and mean squared error, (n,) or the mean over (n, targets).

    NaN where they are not defined: R2 of a single row or of constant labels, the correlation of a
    constant.
    """
    sklearn = sklearn_module("metrics")
    arrays = (np.asarray(array, float).reshape(len(array), -1) for array in (predicted, labels))
    predicted, labels = arrays
    varied = len(labels) > 1 and np.ptp(labels, axis=0).all()
    columns = zip(predicted.T, labels.T, strict=True)
    return {
        "r2": float(sklearn.r2_score(labels, predicted)) if varied else math.nan,
        "spearman": float(np.mean([_spearman(*column) for column in columns])),
        "mse": float(sklearn.mean_squared_error(labels, predicted)),
    }


def _spearman(predicted: np.ndarray, labels: np.ndarray) -> float:
    if not np.ptp(predicted) or not np.ptp(labels):
        return math.nan  # a constant has no rank
    stats = import_extra("scipy.stats", "train", "measuring a regression")
    return float(stats.spearmanr(predicted, labels).statistic)


def masked_lm_metrics(
    predicted: np.ndarray, log_likelihoods: np.ndarray, labels: np.ndarray
) -> Metrics:
    """Perplexity and accuracy over the tokens with a label, (n, seq) each."""
    real = labels != NO_LABEL
    if not real.any():
        return dict.fromkeys(("perplexity", "loss", "accuracy"), math.nan)
    loss = -log_likelihoods[real].mean()
    accuracy = (predicted[real] == labels[real]).mean()
    return {"perplexity": float(np.exp(loss)), "loss": float(loss), "accuracy": float(accuracy)}


def simplest_guess(training: np.ndarray, count: int, numbers: bool = False) -> np.ndarray:
    """For `count` rows training's most frequent class, or for each label what most rows have; of
    numbers training's mean."""
    dummy = sklearn_module("dummy")
    guess = dummy.DummyRegressor() if numbers else dummy.DummyClassifier(strategy="most_frequent")
    return np.asarray(
        guess.fit(np.zeros((len(training), 1)), training).predict(np.zeros((count, 1)))
    )


def frequency_guess(
    training: Sequence[Sequence[int]], evaluation: Sequence[Sequence[int]]
) -> Metrics:
    """The metrics of predicting each nucleotide by its frequency in training."""
    flat, labels = (np.concatenate([*map(np.asarray, rows)]) for rows in (training, evaluation))
    counts = np.bincount(flat, minlength=1 + max(flat.max(), labels.max()))
    log_frequencies = np.log((counts + 1e-9) / counts.sum())  # One that training lacks is possible.
    return masked_lm_metrics(np.full_like(labels, counts.argmax()), log_frequencies[labels], labels)


def format_metrics(columns: Mapping[str, Mapping[str, float]]) -> str:
    """A table: a row for each metric, a column for each name."""
    names = list(dict.fromkeys(name for metrics in columns.values() for name in metrics))
    stub = max(map(len, names), default=0)
    widths = {title: max(len(title), 9) for title in columns}
    lines = [" " * stub + "".join(f"  {title:>{widths[title]}}" for title in columns)]
    for name in names:
        values = [(widths[title], own.get(name, math.nan)) for title, own in columns.items()]
        cells = (f"  {'·' if math.isnan(x) else f'{x:.4f}':>{width}}" for width, x in values)
        lines.append(f"{name:<{stub}}" + "".join(cells))
    return "\n".join(lines)


def for_json(values: Any) -> Any:
    """Values with null where a number is not finite, which JSON does not know."""
    if isinstance(values, Mapping):
        return {name: for_json(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [for_json(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def sklearn_module(name: str) -> Any:
    return import_extra(f"sklearn.{name}", "train", "fine-tuning")
