"""Metrics of fine-tuning, and what the simplest guess would score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ernie_rna.extras import import_extra
from ernie_rna.scoring.masking import NO_LABEL

Metrics = dict[str, float]


def classification_metrics(predicted: np.ndarray, labels: np.ndarray) -> Metrics:
    """Accuracy, macro-F1 and Matthews correlation of class ids, (n,) each."""
    sklearn = _sklearn()
    return {
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": float(sklearn.f1_score(labels, predicted, average="macro", zero_division=0)),
        "mcc": float(sklearn.matthews_corrcoef(labels, predicted)),
    }


def multi_label_metrics(predicted: np.ndarray, labels: np.ndarray) -> Metrics:
    """Of 0 and 1 by label, (n, labels) each; `exact_match` is the share of whole rows."""
    sklearn = _sklearn()
    return {
        "exact_match": float((predicted == labels).all(axis=1).mean()),
        "macro_f1": float(sklearn.f1_score(labels, predicted, average="macro", zero_division=0)),
        "micro_f1": float(sklearn.f1_score(labels, predicted, average="micro", zero_division=0)),
    }


def regression_metrics(predicted: np.ndarray, labels: np.ndarray) -> Metrics:
    """R2, Spearman correlation and mean squared error, (n,) or the mean over (n, targets)."""
    stats = import_extra("scipy.stats", "train", "measuring a regression")
    arrays = predicted, labels
    predicted, labels = (array.reshape(len(array), -1).astype(float) for array in arrays)
    squared = ((predicted - labels) ** 2).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = 1 - squared / labels.var(axis=0)
    spearman = [
        stats.spearmanr(predicted[:, i], labels[:, i]).statistic
        if np.ptp(predicted[:, i]) and np.ptp(labels[:, i])
        else math.nan  # a constant has no rank
        for i in range(labels.shape[1])
    ]
    return {
        "r2": float(r2.mean()),
        "spearman": float(np.mean(spearman)),
        "mse": float(squared.mean()),
    }


def masked_lm_metrics(
    predicted: np.ndarray, log_likelihoods: np.ndarray, labels: np.ndarray
) -> Metrics:
    """Perplexity and accuracy over the tokens with a label, (n, seq) each."""
    real = labels != NO_LABEL
    loss = -log_likelihoods[real].mean()
    return {
        "perplexity": float(np.exp(loss)),
        "loss": float(loss),
        "accuracy": float((predicted[real] == labels[real]).mean()),
    }


def majority_guess(training: np.ndarray, labels: np.ndarray) -> Metrics:
    """The metrics of always saying training's most frequent class."""
    classes, counts = np.unique(training, return_counts=True)
    return classification_metrics(np.full_like(labels, classes[counts.argmax()]), labels)


def common_guess(training: np.ndarray, labels: np.ndarray) -> Metrics:
    """The metrics of giving every row the labels that most rows of training have."""
    guess = (training.mean(axis=0) > 0.5).astype(labels.dtype)
    return multi_label_metrics(np.broadcast_to(guess, labels.shape), labels)


def mean_guess(training: np.ndarray, labels: np.ndarray) -> Metrics:
    """The metrics of always saying training's mean."""
    return regression_metrics(np.broadcast_to(training.mean(axis=0), labels.shape), labels)


def frequency_guess(
    training: Sequence[Sequence[int]], evaluation: Sequence[Sequence[int]]
) -> Metrics:
    """The metrics of predicting each nucleotide by its frequency in training."""
    flat = np.concatenate([np.asarray(ids) for ids in training])
    size = 1 + max(flat.max(), max(max(ids) for ids in evaluation))
    counts = np.bincount(flat, minlength=size) + 1e-9  # one that training lacks is possible
    log_frequencies = np.log(counts / counts.sum())
    labels = np.concatenate([np.asarray(ids) for ids in evaluation])
    return masked_lm_metrics(np.full_like(labels, counts.argmax()), log_frequencies[labels], labels)


def format_metrics(columns: Mapping[str, Mapping[str, float]]) -> str:
    """A table: a row for each metric, a column for each name."""
    names = list(dict.fromkeys(name for metrics in columns.values() for name in metrics))
    stub = max(map(len, names), default=0)
    widths = {title: max(len(title), 9) for title in columns}
    lines = [" " * stub + "".join(f"  {title:>{widths[title]}}" for title in columns)]
    for name in names:
        cells = (
            f"  {_cell(metrics.get(name)):>{widths[title]}}" for title, metrics in columns.items()
        )
        lines.append(f"{name:<{stub}}" + "".join(cells))
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "·" if value is None or math.isnan(value) else f"{value:.4f}"


def _sklearn() -> Any:
    return import_extra("sklearn.metrics", "train", "measuring a classification")
