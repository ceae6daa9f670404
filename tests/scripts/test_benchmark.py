"""The benchmark, with a small model instead of the full size."""

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
    """The fresh processes that measure time and peak memory are replaced."""
    measured = []
    monkeypatch.setattr(benchmark, "run_anew", lambda *args: measured.append(args) or (1, 2**21))
    command = ["--cases", "1x8", "2x16", "--only", "eager", "recompute", "--runs", "1", *train]
    assert benchmark.main(command) == 0
    rows = capsys.readouterr().out.splitlines()
    for name in ("eager", "recompute"):
        assert sum(row.startswith(f"| {name} | ") and row.endswith(" | 2 |") for row in rows) == 2
    steps = [
        (name, case, bool(train)) for case in ("1x8", "2x16") for name in ("eager", "recompute")
    ]
    assert [args[1:4] for args in measured] == steps


FASTA = ["--fasta", str(examples() / "rna.fasta"), "--sequences", "3", "--runs", "1"]


def test_table_from_fasta_to_vectors(capsys):
    assert benchmark.main(FASTA) == 0
    printed = capsys.readouterr().out
    for words in ("3 sequences, which are timed", "\n| embed | ", "\n| one by one, eager | "):
        assert words in printed


def test_table_of_precisions(capsys):
    assert benchmark.main([*FASTA, "--precision"]) == 0
    title, _, *rows = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert title == "| layer | float32 | bfloat16 | autocast bfloat16 | int8 |"
    cells = np.array([row.strip("| ").split(" | ") for row in rows])
    assert cells[:, 0].tolist() == ["0", "1", "cosine"]
    errors, cosines = cells[:2, 1:].astype(float), cells[2, 1:].astype(float)
    assert (errors[1, 1:] > 100 * errors[1, 0]).all()  # column 0 is float32
    assert errors[0, 2] == errors[0, 0]  # Autocast rounds products, and layer 0 has none.
    assert (cosines > 0.99).all()


def test_the_error_names_an_unknown_implementation(capsys):
    assert benchmark.main(["--only", "fused"]) == 1
    assert "no 'fused' on cpu; choose sdpa" in capsys.readouterr().err


def test_table_of_a_case(capsys):
    times = {"sdpa": 0.5, "multimolecule eager": 1.0}
    names, floors = ["sdpa", "eager", "multimolecule eager"], {"products": 0.25, "scores": 0.1}
    benchmark.print_case("2x10", names, times, {"sdpa": 2**21}, floors, "sdpa")
    title, _, *rows = capsys.readouterr().out.splitlines()[1:]
    assert title == "batch 2 x 10 tokens (floor of the products 250 ms, scores 100 ms)"
    assert rows[0].endswith("| speed over sdpa | speed over multimolecule eager |")
    assert rows[2] == "| sdpa | 500 | 40 | 2.00 | 2 | 1.00 | 2.00 |"
    assert rows[3] == "| eager | out of memory |  |  |  |  |  |"
    assert rows[4] == "| multimolecule eager | 1000 | 20 | 4.00 |  | 0.50 | 1.00 |"


def test_steps_take_turns_after_a_warm_up():
    order = []
    steps = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = iter([9, 9, 1, 2, 3, 5, 8, 4])

    def meter(step):
        step()
        return next(seconds)

    assert benchmark.alternate(steps, 3, meter) == {"a": 3, "b": 4}
    assert order == list("abababab")


def test_operations_of_a_forward_pass():
    args = Namespace(device="cpu", train=False)
    _, factor = benchmark.work_of_limits("1x1", args)["products"]
    operations = 12 * (2 * (4 * 768 * 768 + 2 * 768 * 3072) + 4 * 768)
    assert factor == operations / (2 * 2048 * 768 * 3072)


def test_peak_memory_excludes_what_was_allocated_before():
    # A fresh process, because this one may have freed memory that it uses again.
    step = partial(torch.ones, 20_000_000)
    seconds, peak = measuring.run_anew(benchmark.time_and_peak, step)
    assert seconds > 0
    assert 60e6 < peak < 300e6
