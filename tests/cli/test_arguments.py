"""Options as arguments of a command: parsing, help, errors, and what a run prints."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import pytest

import ernie_rna
from ernie_rna.cli.arguments import Command, CommandParser, compute, read_options
from ernie_rna.cli.main import build_parser
from ernie_rna.options import Options, number, option, whole
from ernie_rna.run.runner import RunSummary


@dataclass(frozen=True, kw_only=True)
class EveryKind(Options, group="the rest"):
    """One option of each kind."""

    count: int | None = option(None, "how many", check=whole())
    share: float = option(0.5, "100 % of it", check=number())
    kind: str = option("a", "which", choices=("a", "b"))
    task: str | None = option(None, "one of", choices=("c", "d"), metavar="TASK")
    names: tuple[str, ...] = option((), "several", group="others")
    strict: bool = option(False, "be strict")
    masked: bool = option(True, "whether", flag=("--unmasked", False, "not"), group="others")


def train(args):
    """Train.

    examples:
      program train
    """


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser(prog="program")
    subparsers = parser.add_subparsers(parser_class=CommandParser)
    Command(run=train, summary="trains", options=EveryKind).add_to(subparsers)
    return parser


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("", {}),
        ("--count 3 --share 1e-3", {"count": 3, "share": 0.001}),
        ("--kind b --unmasked --strict", {"kind": "b", "masked": False, "strict": True}),
        ("--names x y --names z", {"names": ("x", "y", "z")}),
    ],
)
def test_arguments_become_options(parser, words, values):
    args = parser.parse_args(["train", *words.split()])
    assert read_options(EveryKind, args) == EveryKind(**values)


@pytest.mark.parametrize(
    "words", ["--count 3 --count 3", "--kind a --kind b", "--share 1 --share=2"]
)
def test_an_option_given_twice_is_an_error(parser, capsys, words):
    with pytest.raises(SystemExit):
        parser.parse_args(["train", *words.split()])
    name = words.split()[0]
    assert f"error: argument {name}: is given twice, as " in capsys.readouterr().err


def test_help_shows_defaults_and_groups(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--count N how many" in text
    assert "--share X 100 % of it (default: 0.5)" in text
    assert "--kind {a,b} which (default: a)" in text
    assert "--task TASK one of: c, d" in text
    assert "--strict be strict" in text
    order = [text.index(part) for part in ("the rest:", "others:", "--unmasked not", "examples:")]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("typed", "summaries"), [({}, ["out.tsv: 2 sequences, 9 nt"]), ({"progress": False}, [])]
)
def test_a_run_prints_its_problems_and_its_summary_unless_quiet(
    capsys, monkeypatch, typed, summaries
):
    summary = RunSummary([Path("out.tsv")], 2, 9, 1.0, 2.0, 0.0, problems=["a is not in b: why"])
    monkeypatch.setattr(ernie_rna, "embed", lambda **kwargs: summary if kwargs == typed else None)
    assert compute("embed", argparse.Namespace(parser=None, **typed)) == 1
    problem, *lines = capsys.readouterr().err.splitlines()
    assert problem == "ernie-rna: a is not in b: why"
    assert [line.partition("; ")[0] for line in lines] == summaries
    summary.problems.clear()
    object.__setattr__(
        summary, "estimate", "about 1 second"
    )  # It is the result, even with --quiet.
    assert compute("embed", argparse.Namespace(parser=None, **typed)) == 0
    assert capsys.readouterr().err == "2 sequences, 9 nt: about 1 second\n"


@pytest.mark.parametrize("words", ["--traceback mutate x", "mutate x --traceback", "mutate x"])
def test_traceback_is_accepted_before_and_after_the_command(words):
    args = build_parser().parse_args([*words.split(), "-m", "mini"])
    assert args.traceback is ("--traceback" in words)
