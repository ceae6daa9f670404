"""The benchmark, with a small model in the place of the full one."""

from argparse import Namespace
from functools import partial

import pytest
import torch

from ernie_rna import ErnieRnaConfig
from ernie_rna.data import examples
from scripts import benchmark, measuring


@pytest.fixture(autouse=True)
def small(monkeypatch):
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 8}
    monkeypatch.setattr("ernie_rna.ErnieRnaConfig", partial(ErnieRnaConfig, **sizes), raising=False)


@pytest.mark.parametrize("train", [[], ["--train"]])
def test_a_small_run(capsys, train):
    command = ["--cases", "1x8", "2x16", "--only", "eager", "recompute", "--runs", "1"]
    assert benchmark.main([*command, "--no-memory", *train]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n| eager | ") == printed.count("\n| recompute | ") == 2


def test_from_fasta_to_vectors(capsys):
    command = ["--fasta", str(examples() / "rna.fasta"), "--sequences", "3", "--runs", "1"]
    assert benchmark.main(command) == 0
    printed = capsys.readouterr().out
    assert "3 sequences, which are timed" in printed
    assert "\n| embed | " in printed
    assert "\n| one by one, eager | " in printed


def test_what_it_does_not_know_is_named(capsys):
    assert benchmark.main(["--only", "fused"]) == 1
    assert "no 'fused' on cpu; choose sdpa" in capsys.readouterr().err


def test_a_table_of_a_case(capsys):
    times = {"sdpa": 0.5, "multimolecule eager": 1.0}
    names, floors = ["sdpa", "eager", "multimolecule eager"], {"products": 0.25, "scores": 0.1}
    benchmark.print_case("2x10", names, times, {"sdpa": 2**21}, floors, "sdpa")
    title, _, *rows = capsys.readouterr().out.splitlines()[1:]
    assert title == "batch 2 x 10 tokens (floor of the products 250 ms, scores 100 ms)"
    assert rows[0].endswith("| speed over sdpa | speed over multimolecule eager |")
    assert rows[2] == "| sdpa | 500 | 40 | 2.00 | 2 | 1.00 | 2.00 |"
    assert rows[3] == "| eager | out of memory |  |  |  |  |  |"
    assert rows[4] == "| multimolecule eager | 1000 | 20 | 4.00 |  | 0.50 | 1.00 |"


def test_steps_take_turns_behind_a_warm_up():
    order = []
    steps = {name: lambda name=name: order.append(name) for name in "ab"}
    taken = iter([9, 9, 1, 2, 3, 5, 8, 4])

    def timed(function):
        function()
        return next(taken)

    assert benchmark.alternate(steps, 3, timed) == {"a": 3, "b": 4}
    assert order == list("abababab")


def test_operations_of_a_pass():
    args = Namespace(device="cpu", train=False)
    _, often = benchmark.work_of_limits("1x1", args)["products"]
    operations = 12 * (2 * (4 * 768 * 768 + 2 * 768 * 3072) + 4 * 768)
    assert often == operations / (2 * 2048 * 768 * 3072)


def test_the_peak_is_above_what_was_there():
    # In a process of its own: here there may be memory that is free to be used again.
    step = partial(torch.ones, 20_000_000)
    seconds, peak = measuring.run_anew(benchmark.time_and_peak, step)
    assert seconds > 0
    assert 60e6 < peak < 300e6
