"""Commands made of options: `--name`, its value, its help, and what is said of a wrong one."""

import argparse
import re
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from ernie_rna.cli.arguments import add_command, add_options, read_options, report
from ernie_rna.cli.main import build_parser
from ernie_rna.options import (
    EmbedOptions,
    MutateOptions,
    OptionError,
    Options,
    number,
    option,
    whole,
)
from ernie_rna.run.runner import RunSummary


@dataclass(frozen=True, kw_only=True)
class Some(Options):
    """Of each kind one."""

    count: int | None = option(None, "how many", check=whole())
    share: float = option(0.5, "100 % of it", check=number())
    kind: str = option("a", "which", choices=("a", "b"))
    task: str | None = option(None, "one of", choices=("a" * 30, "b" * 30))
    names: tuple[str, ...] = option((), "several", many=True, group="others")
    masked: bool = option(True, "whether", flag=("--unmasked", False, "not"), group="others")


@pytest.fixture
def parser():
    root = argparse.ArgumentParser(prog="program")
    subparsers = root.add_subparsers()
    own = add_command(subparsers, "do", lambda args: 0, "does", "It does.\n", "  program do\n")
    add_options(own, Some)
    return root


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ([], {}),
        (["--count", "3", "--share", "1e-3"], {"count": 3, "share": 0.001}),
        (["--kind", "b", "--unmasked"], {"kind": "b", "masked": False}),
        (["--names", "x", "y", "--names", "z"], {"names": ("x", "y", "z")}),
    ],
)
def test_words_become_options(parser, arguments, values):
    assert read_options(Some, parser.parse_args(["do", *arguments])) == Some(**values)


def test_help_shows_defaults_and_groups(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["do", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--count N how many" in text
    assert "--share X 100 % of it (default: 0.5)" in text
    assert "--kind {a,b} which (default: a)" in text
    assert f"--task VALUE one of: {'a' * 30}, {'b' * 30}" in text
    assert text.index("others:") < text.index("--unmasked not") < text.index("examples:")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "two"], "argument --count: must be a whole number; got 'two'"),
        (["--share", "half"], "argument --share: must be a number; got 'half'"),
        (["--kind", "c"], "argument --kind: invalid choice: 'c'"),
        (["--names"], "argument --names: expected at least one argument"),
    ],
)
def test_words_that_are_no_values(parser, capsys, arguments, message):
    with pytest.raises(SystemExit) as leaving:
        parser.parse_args(["do", *arguments])
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["embed", "fold", "closeness", "mutate", "predict"])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("--device", "nonsense", "--device: must be one of auto, cpu, cuda, .*; got 'nonsense'"),
        ("--device", "cuda:x", "--device: must be .* such as cuda:1; got 'cuda:x'"),
        ("--threads", "0", "--threads: must be a whole number from 1 to 1024; got 0"),
        ("--threads", "100000", "--threads: must be .* 1024; got 100000"),
        ("--threads", "two", "--threads: must be a whole number; got 'two'"),
        ("--batch-tokens", "0", "--batch-tokens: must be a whole number of at least 1; got 0"),
        ("--part", "5/4", "--part: must be I/N, .*; got '5/4'"),
    ],
)
def test_what_an_option_cannot_be_is_wrong_usage(command, name, value, message, run):
    error = run(f"{command} in.fasta -m mini -o out {name} {value}", code=2).err
    assert re.search(f"error: argument {message}", " ".join(error.split()))


@pytest.mark.parametrize(
    ("command", "options"), [("embed in.fasta -o o.npz", EmbedOptions), ("mutate x", MutateOptions)]
)
def test_what_is_left_out_has_its_default(command, options):
    args = build_parser().parse_args([*command.split(), "-m", "mini"])
    assert read_options(options, args) == options()
    for one in fields(options):
        assert hasattr(args, one.name)


def test_options_that_python_checks_together():
    args = build_parser().parse_args(
        ["mutate", "in.fasta", "-m", "mini", "--unmasked", "--mask-pairing", "pretraining"]
    )
    with pytest.raises(OptionError, match="mask_pairing is 'pretraining', but nothing is masked"):
        read_options(MutateOptions, args)


def test_a_report(capsys):
    summary = RunSummary([Path("out.tsv")], 2, 9, 1.0, 2.0, 0.0, problems=["a is not in b: why"])
    assert report(summary, quiet=False) == 1
    problem, line = capsys.readouterr().err.splitlines()
    assert problem == "ernie-rna: a is not in b: why"
    assert line.startswith("out.tsv: 2 sequences, 9 nt; ")
    assert report(RunSummary([Path("out.tsv")], 2, 9, 1.0, 2.0, 0.0), quiet=True) == 0
    assert capsys.readouterr() == ("", "")
