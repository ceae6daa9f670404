"""Probabilities that come true."""

import doctest
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ernie_rna.structures import calibration
from ernie_rna.structures.calibration import (
    UNCALIBRATED,
    CalibrationLine,
    expected_calibration_error,
    fit_calibration,
    read_calibration,
    reliability,
)


def test_doctests():
    assert doctest.testmod(calibration).failed == 0


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


@pytest.fixture
def drawn():
    """Logits, and pairs that are known with the probability of 0.5 * logit - 2."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 6, 100_000)
    return logits, random.random(len(logits)) < sigmoid(0.5 * logits - 2)


def test_the_line_is_found_again(drawn):
    found = fit_calibration(*drawn)
    assert found.slope == pytest.approx(0.5, abs=0.01)
    assert found.offset == pytest.approx(-2, abs=0.05)


def test_the_line_is_the_likeliest(drawn):
    logits, known = drawn
    line = fit_calibration(logits, known)

    def loss(slope, offset):
        log_odds = slope * logits + offset
        return (np.logaddexp(0, log_odds) - known * log_odds).mean()

    best = loss(line.slope, line.offset)
    for change in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        assert loss(line.slope + change[0], line.offset + change[1]) > best


def test_without_scikit_learn_the_extra_is_named(drawn, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r'pip install "ernie-rna\[train\]"'):
        fit_calibration(*drawn)


def test_the_error_goes_with_calibration(drawn):
    logits, known = drawn
    before = expected_calibration_error(reliability(sigmoid(logits), known))
    line = fit_calibration(logits, known)
    bins = reliability(sigmoid(line.slope * logits + line.offset), known)
    assert before > 0.1
    assert expected_calibration_error(bins) < 0.01
    assert sum(one.count for one in bins) == len(logits)
    assert all(one.low <= one.predicted <= one.high for one in bins)


def test_pairs_of_one_kind_have_no_line():
    with pytest.raises(ValueError, match="of 3 all are alike"):
        fit_calibration(np.zeros(3), np.ones(3))
    for known in ([0, 1], [1, 0]):
        with pytest.raises(ValueError, match="no best line"):
            fit_calibration(np.array([-1.0, 1.0]), np.array(known))


def test_logits_that_rank_pairs_the_other_way_are_refused(drawn):
    logits, known = drawn
    with pytest.raises(ValueError, match="known pairs do not have higher logits"):
        fit_calibration(-logits, known)


def test_a_probability_of_one_is_in_the_last_bin():
    (last,) = reliability(np.array([1.0]), np.array([True]))
    assert (last.low, last.high) == (0.9, 1.0)


def test_the_configuration_holds_the_line():
    assert read_calibration(SimpleNamespace()) is UNCALIBRATED
    found = read_calibration(SimpleNamespace(pair_calibration=[0.5, -2]))
    assert found == CalibrationLine(0.5, -2.0)
    for wrong in ([0, 1], [1], "ab", [1, float("inf")]):
        with pytest.raises(ValueError, match="pair_calibration must be"):
            read_calibration(SimpleNamespace(pair_calibration=wrong))
