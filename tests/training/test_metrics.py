"""Metrics, the metrics of the simplest guess, and both as JSON and as a table."""

import json
import math

import numpy as np
import pytest

from ernie_rna.training import metrics
from ernie_rna.training.metrics import NO_LABEL


def test_metrics_of_a_perfect_and_a_constant_prediction():
    labels = np.array([0, 1, 2, 1])
    assert set(metrics.classification_metrics(labels, labels).values()) == {1.0}
    assert metrics.simplest_guess(labels, 3).tolist() == [1, 1, 1]
    numbers = np.array([[1.0], [2.0], [4.0]])
    perfect = metrics.regression_metrics(numbers, numbers)
    assert perfect == {"r2": 1.0, "spearman": pytest.approx(1.0), "mse": 0.0}
    guess = metrics.simplest_guess(numbers, 3, numbers=True).reshape(numbers.shape)
    assert metrics.regression_metrics(guess, numbers)["r2"] == pytest.approx(0.0)
    multi_label = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 1]])
    assert metrics.simplest_guess(multi_label, 2).tolist() == [[1, 0, 1]] * 2
    perfect = metrics.multi_label_metrics(multi_label, multi_label)
    assert perfect == {"exact_match": 1.0, "macro_f1": pytest.approx(2 / 3), "micro_f1": 1.0}


@pytest.mark.filterwarnings("error")
def test_an_undefined_metric_is_nan():
    one_row = metrics.regression_metrics(np.array([1.0]), np.array([2.0]))
    assert one_row == pytest.approx({"r2": math.nan, "spearman": math.nan, "mse": 1}, nan_ok=True)
    equal_labels = metrics.regression_metrics(np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    assert math.isnan(equal_labels["r2"])
    assert math.isnan(equal_labels["spearman"])
    assert metrics.classification_metrics(np.array([1]), np.array([1]))["accuracy"] == 1
    labels = np.array([NO_LABEL, 0, 1])
    assert metrics.classification_metrics(np.array([1, 0, 1]), labels)["accuracy"] == 1
    no_labels = np.full((2, 3), NO_LABEL)
    for undefined in (
        metrics.classification_metrics(no_labels, no_labels),
        metrics.masked_lm_metrics((no_labels, no_labels), no_labels),
    ):
        assert all(map(math.isnan, undefined.values()))


def test_perplexity_is_over_tokens_not_batches():
    labels = np.array([[NO_LABEL, 4, 5], [NO_LABEL, NO_LABEL, 6]])
    likelihoods = np.log(np.array([[1.0, 0.5, 0.5], [1.0, 1.0, 0.125]]))
    scores = metrics.masked_lm_metrics((np.array([[0, 4, 4], [0, 0, 6]]), likelihoods), labels)
    assert scores["perplexity"] == pytest.approx(32 ** (1 / 3))
    assert scores["accuracy"] == pytest.approx(2 / 3)
    guess = metrics.frequency_guess([[4, 4, 5, 6]], [[4, 7]])
    assert guess["accuracy"] == 0.5
    assert guess["perplexity"] > 100  # Token 7 does not occur in training.


def test_a_missing_or_infinite_value_is_null_in_json_and_a_dot_in_the_table():
    values = {"a": [math.nan, 1.5], "b": {"c": -math.inf}, "d": (1, "x")}
    text = json.dumps(metrics.for_json(values), allow_nan=False)
    assert json.loads(text) == {"a": [None, 1.5], "b": {"c": None}, "d": [1, "x"]}
    text = metrics.format_metrics({"test": {"r2": math.nan, "mse": 0.5}, "guess": {"mse": 1.0}})
    assert text.splitlines() == [
        "       test   guess",
        "r2        ·       ·",
        "mse  0.5000  1.0000",
    ]
