"""Metrics of fine-tuning by scikit-learn, and what the simplest guess would score. No torch."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ernie_rna.extras import import_extra

Metrics = dict[str, float]

# Of tokens that have no label: what torch and transformers leave out of a loss.
NO_LABEL = -100
# Those of which less is better.
LESS_IS_BETTER = ("loss", "perplexity", "mse")


def classification_metrics(predicted: np.ndarray, labels: np.ndarray) -> Metrics:
    """Accuracy, macro-F1 and Matthews correlation of class ids, of one shape, over those that have
    a label; NaN if none has."""
    real = labels != NO_LABEL
    if not real.any():
        return dict.fromkeys(("accuracy", "macro_f1", "mcc"), math.nan)
    sklearn, both = sklearn_module("metrics"), (labels[real], predicted[real])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single class
        return {
            "accuracy": float(sklearn.accuracy_score(*both)),
            "macro_f1": float(sklearn.f1_score(*both, average="macro", zero_division=0)),
            "mcc": float(sklearn.matthews_corrcoef(*both)),
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
    sklearn, stats = sklearn_module("metrics"), import_extra("scipy.stats", "train", "fine-tuning")
    arrays = (np.asarray(array, float).reshape(len(array), -1) for array in (predicted, labels))
    predicted, labels = arrays
    varied = len(labels) > 1 and np.ptp(labels, axis=0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a constant
        columns = zip(predicted.T, labels.T, strict=True)
        correlations = [stats.spearmanr(*column).statistic for column in columns]
    return {
        "r2": float(sklearn.r2_score(labels, predicted)) if varied else math.nan,
        "spearman": float(np.mean(correlations)),
        "mse": float(sklearn.mean_squared_error(labels, predicted)),
    }


def masked_lm_metrics(predictions: tuple[np.ndarray, np.ndarray], labels: np.ndarray) -> Metrics:
    """Perplexity and accuracy over the tokens with a label, of their most likely ids and the
    logarithms of the labels' probabilities; (n, seq) each."""
    real = labels != NO_LABEL
    if not real.any():
        return dict.fromkeys(("perplexity", "loss", "accuracy"), math.nan)
    ids, log_likelihoods = predictions
    loss = -log_likelihoods[real].mean()
    accuracy = (ids[real] == labels[real]).mean()
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
    guess = np.full_like(labels, counts.argmax()), log_frequencies[labels]
    return masked_lm_metrics(guess, labels)


def format_metrics(columns: Mapping[str, Mapping[str, float]]) -> str:
    """A table: a row for each metric, a column for each name."""
    table = [["", *columns]]
    for name in dict.fromkeys(name for metrics in columns.values() for name in metrics):
        values = (metrics.get(name, math.nan) for metrics in columns.values())
        table.append([name, *("·" if math.isnan(value) else f"{value:.4f}" for value in values)])
    stub, *widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for name, *cells in table:
        shown = (f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        lines.append(f"{name:<{stub}}" + "".join(shown))
    return "\n".join(lines)


def for_json(values: Any) -> Any:
    """Values with null where a number is not finite, which JSON does not know."""
    return json.loads(json.dumps(values), parse_constant=lambda _: None)


def sklearn_module(name: str) -> Any:
    return import_extra(f"sklearn.{name}", "train", "fine-tuning")
