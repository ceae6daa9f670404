"""What the benchmarks share."""

import pytest
import torch

from scripts.measuring import (
    Implementation,
    alternate,
    evenly,
    flops,
    print_case,
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


@pytest.mark.parametrize("train", [False, True])
def test_a_step_of_a_model(monkeypatch, train):
    monkeypatch.setattr("ernie_rna.ErnieRnaConfig", small_config(), raising=False)
    Implementation("eager", score_memory="recompute").step("2x5", train)()


def small_config():
    from functools import partial

    from ernie_rna import ErnieRnaConfig

    return partial(ErnieRnaConfig, hidden_size=24, num_hidden_layers=1, intermediate_size=8)


def test_the_peak_is_above_what_was_there():
    seconds, peak = time_and_peak(lambda: torch.ones(20_000_000).sum())
    assert seconds > 0
    assert 60e6 < peak < 300e6


def test_a_script_anew(tmp_path):
    (tmp_path / "a.py").write_text("import os, sys; print(sys.argv[1], os.environ['B'])")
    assert run_anew(str(tmp_path / "a.py"), "x", B="y") == b"x y\n"


def test_a_table_of_a_case(capsys):
    times = {"sdpa": 0.5, "multimolecule eager": 1.0}
    names = ["sdpa", "eager", "multimolecule eager"]
    print_case("2x10", names, times, {"sdpa": 2**21}, 0.25, "sdpa")
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].endswith("| speed over sdpa | speed over multimolecule eager |")
    assert rows[2] == "| sdpa | 500 | 40 | 2.00 | 2 | 1.00 | 2.00 |"
    assert rows[3] == "| eager | out of memory |  |  |  |  |  |"
    assert rows[4] == "| multimolecule eager | 1000 | 20 | 4.00 |  | 0.50 | 1.00 |"
