"""Metrics, what the simplest guess scores, and how they are shown."""

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
    several = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 1]])
    assert metrics.simplest_guess(several, 2).tolist() == [[1, 0, 1]] * 2
    right = metrics.multi_label_metrics(several, several)
    assert right == {"exact_match": 1.0, "macro_f1": pytest.approx(2 / 3), "micro_f1": 1.0}


@pytest.mark.filterwarnings("error")
def test_what_is_not_defined_is_nan():
    one = metrics.regression_metrics(np.array([1.0]), np.array([2.0]))
    assert one == pytest.approx({"r2": math.nan, "spearman": math.nan, "mse": 1}, nan_ok=True)
    same = metrics.regression_metrics(np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    assert math.isnan(same["r2"])
    assert math.isnan(same["spearman"])
    assert metrics.classification_metrics(np.array([1]), np.array([1]))["accuracy"] == 1
    some = metrics.classification_metrics(np.array([1, 0, 1]), np.array([NO_LABEL, 0, 1]))
    assert some["accuracy"] == 1
    none = np.full((2, 3), NO_LABEL)
    assert all(map(math.isnan, metrics.classification_metrics(none, none).values()))
    assert all(map(math.isnan, metrics.masked_lm_metrics((none, none), none).values()))


def test_perplexity_is_over_tokens_not_batches():
    labels = np.array([[NO_LABEL, 4, 5], [NO_LABEL, NO_LABEL, 6]])
    likelihoods = np.log(np.array([[1.0, 0.5, 0.5], [1.0, 1.0, 0.125]]))
    found = metrics.masked_lm_metrics((np.array([[0, 4, 4], [0, 0, 6]]), likelihoods), labels)
    assert found["perplexity"] == pytest.approx(32 ** (1 / 3))
    assert found["accuracy"] == pytest.approx(2 / 3)
    found = metrics.frequency_guess([[4, 4, 5, 6]], [[4, 7]])
    assert found["accuracy"] == 0.5
    assert found["perplexity"] > 100  # a nucleotide that training lacks


def test_where_there_is_no_number_json_has_null_and_the_table_a_dot():
    values = {"a": [math.nan, 1.5], "b": {"c": -math.inf}, "d": (1, "x")}
    text = json.dumps(metrics.for_json(values), allow_nan=False)
    assert json.loads(text) == {"a": [None, 1.5], "b": {"c": None}, "d": [1, "x"]}
    text = metrics.format_metrics({"test": {"r2": math.nan, "mse": 0.5}, "guess": {"mse": 1.0}})
    assert text.splitlines() == [
        "       test   guess",
        "r2        ·       ·",
        "mse  0.5000  1.0000",
    ]
