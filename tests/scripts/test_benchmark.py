"""The benchmark, with a small model in the place of the full one."""

from functools import partial

import pytest

from ernie_rna import ErnieRnaConfig
from scripts import benchmark
from scripts.benchmark import print_case


@pytest.mark.parametrize("train", [[], ["--train"]])
def test_a_small_run(monkeypatch, capsys, tmp_path, train):
    pytest.importorskip("matplotlib")
    small = partial(ErnieRnaConfig, hidden_size=24, num_hidden_layers=1, intermediate_size=8)
    monkeypatch.setattr("ernie_rna.ErnieRnaConfig", small, raising=False)
    command = ["--cases", "1x8", "2x16", "--only", "eager", "recompute", "--runs", "1"]
    picture = tmp_path / "curves.svg"
    assert benchmark.main([*command, "--no-memory", "--plot", str(picture), *train]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n| eager | ") == printed.count("\n| recompute | ") == 2
    assert "<svg" in picture.read_text()


def test_what_it_does_not_know_is_named(capsys):
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["--only", "fused"])
    assert "no 'fused' on cpu; choose sdpa" in capsys.readouterr().err


def test_a_table_of_a_case(capsys):
    times = {"sdpa": 0.5, "multimolecule eager": 1.0}
    names, floors = ["sdpa", "eager", "multimolecule eager"], {"products": 0.25, "scores": 0.1}
    print_case("2x10", names, (times, {"sdpa": 2**21}), floors, "sdpa")
    title, _, *rows = capsys.readouterr().out.splitlines()[1:]
    assert title == "batch 2 x 10 tokens (floor of the products 250 ms, scores 100 ms)"
    assert rows[0].endswith("| speed over sdpa | speed over multimolecule eager |")
    assert rows[2] == "| sdpa | 500 | 40 | 2.00 | 2 | 1.00 | 2.00 |"
    assert rows[3] == "| eager | out of memory |  |  |  |  |  |"
    assert rows[4] == "| multimolecule eager | 1000 | 20 | 4.00 |  | 0.50 | 1.00 |"
