"""Functions that the measuring scripts share."""

import os

import numpy as np
import pytest

from scripts.measuring import evenly, nearest, run_anew


def test_evenly_spaced():
    assert evenly("abcdefgh", 3) == "ace"
    assert evenly("abc", 9) == "abc"
    assert evenly("abc", None) == "abc"


def test_nearest_compares_differences_from_the_mean():
    neighbours, cosines = nearest(np.array([[100.0, 1], [100, 2], [100, -3]]))
    assert neighbours[0] == 1
    assert cosines.tolist() == pytest.approx([1, 1, -1])


def test_run_anew_sets_variables_in_a_fresh_process_only():
    assert run_anew(os.getenv, "SETTING", SETTING="y") == "y"
    assert "SETTING" not in os.environ
