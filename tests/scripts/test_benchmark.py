"""The benchmark, with a small model in the place of the full one."""

from argparse import Namespace
from functools import partial

import numpy as np
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
def test_a_small_run(monkeypatch, capsys, train):
    """Peak memory is that of a process for each; here it is made up."""
    measured = []
    monkeypatch.setattr(benchmark, "run_anew", lambda *given: measured.append(given) or (1, 2**21))
    command = ["--cases", "1x8", "2x16", "--only", "eager", "recompute", "--runs", "1", *train]
    assert benchmark.main(command) == 0
    rows = capsys.readouterr().out.splitlines()
    for name in ("eager", "recompute"):
        assert sum(row.startswith(f"| {name} | ") and row.endswith(" | 2 |") for row in rows) == 2
    steps = [
        (name, case, bool(train)) for case in ("1x8", "2x16") for name in ("eager", "recompute")
    ]
    assert [given[1:4] for given in measured] == steps


FASTA = ["--fasta", str(examples() / "rna.fasta"), "--sequences", "3", "--runs", "1"]


def test_from_fasta_to_vectors(capsys):
    assert benchmark.main(FASTA) == 0
    printed = capsys.readouterr().out
    for words in ("3 sequences, which are timed", "\n| embed | ", "\n| one by one, eager | "):
        assert words in printed


def test_what_each_precision_costs(capsys):
    assert benchmark.main([*FASTA, "--precision"]) == 0
    title, _, *rows = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert title == "| layer | float32 | bfloat16 | autocast bfloat16 | int8 |"
    cells = np.array([row.strip("| ").split(" | ") for row in rows])
    assert cells[:, 0].tolist() == ["0", "1", "cosine"]
    errors, cosines = cells[:2, 1:].astype(float), cells[2, 1:].astype(float)
    assert (errors[1, 1:] > 100 * errors[1, 0]).all()  # of float32
    assert errors[0, 2] == errors[0, 0]  # no product comes before
    assert (cosines > 0.99).all()


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
