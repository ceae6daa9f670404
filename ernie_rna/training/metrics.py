"""Metrics of fine-tuning, by scikit-learn, and simple guesses to compare with. No torch."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ernie_rna.extras import import_extra

Metrics = dict[str, float]

# Label of tokens without a label: torch and transformers leave it out of a loss.
NO_LABEL = -100
# The metrics whose lower values are better.
LESS_IS_BETTER = ("loss", "perplexity", "mse")


def classification_metrics(predicted: np.ndarray, labels: np.ndarray) -> Metrics:
    """Accuracy, macro-F1 and Matthews correlation of class ids, two arrays of the same shape, over
    the positions that have a label; NaN if none has."""
    has_label = labels != NO_LABEL
    if not has_label.any():
        return dict.fromkeys(("accuracy", "macro_f1", "mcc"), math.nan)
    sklearn, pair = sklearn_module("metrics"), (labels[has_label], predicted[has_label])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of a single class
        return {
            "accuracy": float(sklearn.accuracy_score(*pair)),
            "macro_f1": float(sklearn.f1_score(*pair, average="macro", zero_division=0)),
            "mcc": float(sklearn.matthews_corrcoef(*pair)),
        }


def multi_label_metrics(predicted: np.ndarray, labels: np.ndarray) -> Metrics:
    """Metrics of 0 and 1, (n, labels) both; `exact_match` is the share of rows without an error."""
    sklearn, pair = sklearn_module("metrics"), (labels.astype(int), predicted.astype(int))
    return {
        "exact_match": float(sklearn.accuracy_score(*pair)),
        "macro_f1": float(sklearn.f1_score(*pair, average="macro", zero_division=0)),
        "micro_f1": float(sklearn.f1_score(*pair, average="micro", zero_division=0)),
    }


def regression_metrics(predicted: np.ndarray, labels: np.ndarray) -> Metrics:
    """R2, Spearman correlation and mean squared error of (n,), or their means over (n, targets).

    NaN if not defined: R2 of a single row or of constant labels, the correlation of a constant.
    """
    sklearn, stats = sklearn_module("metrics"), import_extra("scipy.stats", "train", "fine-tuning")
    predicted = np.asarray(predicted, float).reshape(len(predicted), -1)
    labels = np.asarray(labels, float).reshape(len(labels), -1)
    has_r2 = len(labels) > 1 and np.ptp(labels, axis=0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy warns of a constant
        columns = zip(predicted.T, labels.T, strict=True)
        correlations = [stats.spearmanr(*column).statistic for column in columns]
    return {
        "r2": float(sklearn.r2_score(labels, predicted)) if has_r2 else math.nan,
        "spearman": float(np.mean(correlations)),
        "mse": float(sklearn.mean_squared_error(labels, predicted)),
    }


def masked_lm_metrics(predictions: tuple[np.ndarray, np.ndarray], labels: np.ndarray) -> Metrics:
    """Perplexity, loss and accuracy over the tokens with a label, NaN if none has, of the most
    likely ids and the log-probabilities of the labels; (n, seq) each."""
    has_label = labels != NO_LABEL
    if not has_label.any():
        return dict.fromkeys(("perplexity", "loss", "accuracy"), math.nan)
    ids, log_likelihoods = predictions
    loss = -log_likelihoods[has_label].mean()
    accuracy = (ids[has_label] == labels[has_label]).mean()
    return {"perplexity": float(np.exp(loss)), "loss": float(loss), "accuracy": float(accuracy)}


def simplest_guess(training: np.ndarray, count: int, numbers: bool = False) -> np.ndarray:
    """Predictions for `count` rows without their sequences: the mean of the training's numbers, or
    its most frequent class; for several labels, the most frequent value of each."""
    dummy = sklearn_module("dummy")
    guess = dummy.DummyRegressor() if numbers else dummy.DummyClassifier(strategy="most_frequent")
    guess.fit(np.zeros((len(training), 1)), training)
    return np.asarray(guess.predict(np.zeros((count, 1))))


def frequency_guess(
    training: Sequence[Sequence[int]], evaluation: Sequence[Sequence[int]]
) -> Metrics:
    """The metrics of predicting each nucleotide by its frequency in training, from token ids."""
    known, labels = (np.concatenate([*map(np.asarray, rows)]) for rows in (training, evaluation))
    counts = np.bincount(known, minlength=1 + max(known.max(), labels.max()))
    # A nucleotide that training lacks has a small probability instead of 0.
    log_frequencies = np.log((counts + 1e-9) / counts.sum())
    guess = np.full_like(labels, counts.argmax()), log_frequencies[labels]
    return masked_lm_metrics(guess, labels)


def format_metrics(columns: Mapping[str, Mapping[str, float]]) -> str:
    """Metrics as the text of a table: a row for each metric, a column for each name."""
    table = [["", *columns]]
    for name in dict.fromkeys(name for metrics in columns.values() for name in metrics):
        values = (metrics.get(name, math.nan) for metrics in columns.values())
        table.append([name, *("·" if math.isnan(value) else f"{value:.4f}" for value in values)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    padded = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in table)
    return "\n".join(map("  ".join, padded))


def for_json(values: Any) -> Any:
    """Values with None in place of numbers that are not finite, which JSON does not have."""
    return json.loads(json.dumps(values), parse_constant=lambda _: None)


def sklearn_module(name: str) -> Any:
    """A module of scikit-learn; ImportError, with the command that installs it, if it is absent."""
    return import_extra(f"sklearn.{name}", "train", "fine-tuning")
