"""`ernie-rna finetune` as it is typed: its options, and what it says at once."""

import subprocess
import sys

import pytest

from ernie_rna.cli.arguments import read_options
from ernie_rna.cli.main import build_parser, main
from ernie_rna.training.options import FinetuneOptions

BASE = ["finetune", "t.tsv", "-m", "mini", "-o", "out", "--task", "regression"]

WITHOUT_TORCH = """
import sys
from ernie_rna.cli.main import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules
sys.exit(code)
"""


def options(*words):
    return read_options(FinetuneOptions, build_parser().parse_args([*BASE, *words]))


def test_options_that_are_given_several_times():
    given = options(
        *("--label-column", "a", "b", "--label-column", "c"),
        *("--trainer", "optim=sgd", "--trainer", "max_grad_norm=2"),
        *("--eval-file", "v.tsv", "--dtype", "bfloat16", "--quiet"),
    )
    assert given.label_column == ("a", "b", "c")
    assert given.trainer == {"optim": "sgd", "max_grad_norm": "2"}
    assert given.eval_file == ("v.tsv",)
    assert (given.dtype, given.progress) == ("bfloat16", False)


def test_defaults_are_those_of_python():
    assert options() == FinetuneOptions(task="regression")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "0"], "argument --steps: must be a whole number of at least 1"),
        (["--warmup", "2"], "argument --warmup: must be a number"),
        (["--eval-split", "test"], "argument --eval-split: needs --split-column"),
        (["--trainer", "x"], "argument --trainer: must be NAME=VALUE"),
        (["--learning-rate", "fast"], "argument --learning-rate: must be a number; got 'fast'"),
    ],
)
def test_wrong_usage(words, message, capsys):
    with pytest.raises(SystemExit) as error:
        main([*BASE, *words])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "t.tsv: no such file"),
        ("sequence\tlabel\nACGU\tx\n", "line 2: label: 'x' is not a number"),
        ("sequence\tlabel\nACEU\t1\n", "no nucleotide code"),
    ],
)
def test_what_is_wrong_is_said_without_torch(tmp_path, table, message):
    if table is not None:
        (tmp_path / "t.tsv").write_text(table)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *BASE],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "out.partial").exists()
