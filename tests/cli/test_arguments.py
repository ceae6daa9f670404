"""Commands made of options: `--name`, its value, its help, and what is said of a wrong one."""

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
class Some(Options, group="the rest"):
    """Of each kind one."""

    count: int | None = option(None, "how many", check=whole())
    share: float = option(0.5, "100 % of it", check=number())
    kind: str = option("a", "which", choices=("a", "b"))
    task: str | None = option(None, "one of", choices=("c", "d"), metavar="TASK")
    names: tuple[str, ...] = option((), "several", group="others")
    strict: bool = option(False, "at all events")
    masked: bool = option(True, "whether", flag=("--unmasked", False, "not"), group="others")


def do(args):
    """It does.

    examples:
      program do
    """


@pytest.fixture
def parser():
    root = argparse.ArgumentParser(prog="program")
    Command(run=do, summary="does", options=Some).add_to(
        root.add_subparsers(parser_class=CommandParser)
    )
    return root


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("", {}),
        ("--count 3 --share 1e-3", {"count": 3, "share": 0.001}),
        ("--kind b --unmasked --strict", {"kind": "b", "masked": False, "strict": True}),
        ("--names x y --names z", {"names": ("x", "y", "z")}),
    ],
)
def test_words_become_options(parser, words, values):
    args = parser.parse_args(["do", *words.split()])
    assert read_options(Some, args) == Some(**values)


@pytest.mark.parametrize(
    "words", ["--count 3 --count 3", "--kind a --kind b", "--share 1 --share=2"]
)
def test_a_value_that_hides_another_is_refused_by_name(parser, capsys, words):
    with pytest.raises(SystemExit):
        parser.parse_args(["do", *words.split()])
    name = words.split()[0]
    assert f"error: argument {name}: is given twice, as " in capsys.readouterr().err


def test_help_shows_defaults_and_groups(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["do", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--count N how many" in text
    assert "--share X 100 % of it (default: 0.5)" in text
    assert "--kind {a,b} which (default: a)" in text
    assert "--task TASK one of: c, d" in text
    assert "--strict at all events" in text
    places = [text.index(part) for part in ("the rest:", "others:", "--unmasked not", "examples:")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("typed", "end"), [({}, "out.tsv: 2 sequences, 9 nt; "), ({"progress": False}, "")]
)
def test_what_a_run_reports(capsys, monkeypatch, typed, end):
    summary = RunSummary([Path("out.tsv")], 2, 9, 1.0, 2.0, 0.0, problems=["a is not in b: why"])
    monkeypatch.setattr(ernie_rna, "embed", lambda **given: summary if given == typed else None)
    assert compute("embed", argparse.Namespace(parser=None, **typed)) == 1
    problem, *line = capsys.readouterr().err.splitlines()
    assert problem == "ernie-rna: a is not in b: why"
    assert [text[: len(end)] for text in line] == [end] * bool(end)
    summary.problems.clear()
    object.__setattr__(
        summary, "estimate", "about 1 second"
    )  # It is the result, even with --quiet.
    assert compute("embed", argparse.Namespace(parser=None, **typed)) == 0
    assert capsys.readouterr().err == "2 sequences, 9 nt: about 1 second\n"


@pytest.mark.parametrize("words", ["--traceback mutate x", "mutate x --traceback", "mutate x"])
def test_a_traceback_is_asked_for_before_or_behind_the_command(words):
    args = build_parser().parse_args([*words.split(), "-m", "mini"])
    assert args.traceback is ("--traceback" in words)
