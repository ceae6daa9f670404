"""What the benchmarks share."""

import torch

from scripts.measuring import (
    alternate,
    evenly,
    flops,
    run_anew,
    time_and_peak,
)


def test_steps_take_turns_behind_a_warm_up():
    order = []
    steps = {name: lambda name=name: order.append(name) for name in "ab"}
    taken = iter([9, 9, 1, 2, 3, 5, 8, 4])

    def timed(function):
        function()
        return next(taken)

    assert alternate(steps, 3, timed) == {"a": 3, "b": 4}
    assert order == list("abababab")


def test_evenly_spaced():
    assert evenly("abcdefgh", 3) == "ace"
    assert evenly("abc", 9) == "abc"
    assert evenly("abc", None) == "abc"


def test_operations_of_a_pass():
    assert flops("1x1", layers=1, hidden=2, intermediate=3) == 2 * (4 * 4 + 2 * 2 * 3) + 4 * 2


def test_the_peak_is_above_what_was_there():
    seconds, peak = time_and_peak(lambda: torch.ones(20_000_000).sum())
    assert seconds > 0
    assert 60e6 < peak < 300e6


def test_a_script_anew(tmp_path):
    (tmp_path / "a.py").write_text("import os, sys; print(sys.argv[1], os.environ['B'])")
    assert run_anew(str(tmp_path / "a.py"), "x", B="y") == b"x y\n"
