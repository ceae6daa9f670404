"""Commands made of options: `--name`, its value, its help, and what is said of a wrong one."""

import argparse
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from ernie_rna.cli.arguments import add_command, add_options, read_options, report
from ernie_rna.cli.main import build_parser
from ernie_rna.options import EmbedOptions, MutateOptions, Options, number, option, whole
from ernie_rna.run.runner import RunSummary
from ernie_rna.training.options import FinetuneOptions


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
    ("command", "options", "given"),
    [
        ("embed in.fasta -o o.npz", EmbedOptions, {}),
        ("mutate x", MutateOptions, {}),
        ("finetune t.tsv -o out --task regression", FinetuneOptions, {"task": "regression"}),
    ],
)
def test_what_is_left_out_has_its_default(command, options, given):
    args = build_parser().parse_args([*command.split(), "-m", "mini"])
    assert read_options(options, args) == options(**given)
    for one in fields(options):
        assert hasattr(args, one.name)


def test_a_report(capsys):
    summary = RunSummary([Path("out.tsv")], 2, 9, 1.0, 2.0, 0.0, problems=["a is not in b: why"])
    assert report(summary, quiet=False) == 1
    problem, line = capsys.readouterr().err.splitlines()
    assert problem == "ernie-rna: a is not in b: why"
    assert line.startswith("out.tsv: 2 sequences, 9 nt; ")
    assert report(RunSummary([Path("out.tsv")], 2, 9, 1.0, 2.0, 0.0), quiet=True) == 0
    assert capsys.readouterr() == ("", "")
