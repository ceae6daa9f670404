"""The command line: what an error looks like, exit codes, and what is said without torch."""

import argparse
import os
import signal
import subprocess
import sys
import warnings

import pytest

import ernie_rna
from ernie_rna.cli import main as cli
from ernie_rna.cli.arguments import add_command
from ernie_rna.options import OptionError
from tests.conftest import ROOT


def commands():
    """The names of all commands."""
    (subparsers,) = (
        action
        for action in cli.build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return list(subparsers.choices)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["embed", "in.fasta"], "the following arguments are required: -m/--model, -o/--output"),
        (["predict", "i", "-m", "m"], "the following arguments are required: -o/--output"),
        (["embed", "i", "-m", "m", "-o", "o", "--long", "cut"], "argument --long: invalid choice"),
        (["embed", "i", "-m", "m", "-o", "o", "--layers", "x"], "must be all, or numbers with com"),
        (
            ["embed", "i", "-m", "m", "-o", "o", "--pooling", "max"],
            "--pooling: must be among token",
        ),
        (["mutate", "i", "-m", "m", "-o", "o.tsv", "--part", "1"], "argument --part: must be I/N"),
    ],
)
def test_usage(capsys, arguments, message):
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith(f"ernie-rna {ernie_rna.__version__} (torch 2.")


@pytest.mark.parametrize("command", commands())
def test_help_of_every_command(capsys, command):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    text = capsys.readouterr().out
    assert "examples:" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_commands_of_a_model_speak_one_dialect():
    for command in ("embed", "fold", "closeness", "mutate", "predict", "finetune"):
        text = cli.build_parser()._subparsers._group_actions[0].choices[command].format_help()
        for name in ("-m MODEL", "-o ", "--force", "--quiet", "--dtype", "--device", "--threads"):
            assert name in text, (command, name)
        assert "--revision" in text, command


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("info mini", "info: error: unrecognized arguments: mini; give one input, with quotes if "
         "its path has blanks, and write -m before a model"),
        ("evaluate a b c", "error: unrecognized arguments: c; give one input, with quotes "
         "if its path has blanks"),
        ("fold a -m mini --priors x", "--priors x; did you mean --prior?"),
        ("fold a -m mini --zzz", "fold: error: unrecognized arguments: --zzz"),
    ],
)  # fmt: skip
def test_words_that_a_command_does_not_take(capsys, words, message):
    with pytest.raises(SystemExit) as leaving:
        cli.main(words.split())
    assert leaving.value.code == 2
    assert capsys.readouterr().err.rstrip().endswith(message)


class Failing:
    """A command that raises what it is told to."""

    def __init__(self, monkeypatch):
        self.error = None
        monkeypatch.setattr(cli, "COMMANDS", ("failing",))
        monkeypatch.setitem(sys.modules, "failing", self)

    def add_commands(self, subparsers):
        add_command(subparsers, "fail", self.run, "fails", "", interrupted="; try again")

    def run(self, args):
        if self.error is None:
            warnings.warn("take\ncare", stacklevel=1)
            return 0
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("two\n  lines"), 1, "ernie-rna: error: two lines\n"),
        (ValueError(), 1, "ernie-rna: internal error: ValueError:  (--traceback shows where)\n"),
        (KeyError("x"), 1, "ernie-rna: internal error: KeyError: 'x' (--traceback shows where)\n"),
        (
            FileNotFoundError(2, "No such file or directory", "x.tsv"),
            1,
            f"ernie-rna: error: x.tsv: no such file or directory in {os.getcwd()}\n",
        ),
        (
            FileNotFoundError(2, "No such file or directory", "/x.tsv"),
            1,
            "ernie-rna: error: /x.tsv: no such file or directory\n",
        ),
        (
            IsADirectoryError(21, "Is a directory", "."),
            1,
            "ernie-rna: error: .: is a directory; name a file\n",
        ),
        (
            OSError("cannot read x: [Errno 13] Permission denied: 'x'"),
            1,
            "ernie-rna: error: cannot read x: Permission denied: 'x'\n",
        ),
        (KeyboardInterrupt(), 130, "ernie-rna: interrupted; try again\n"),
        (None, 0, "ernie-rna: warning: take care\n"),
    ],
)
def test_outcomes(monkeypatch, capsys, error, code, message):
    Failing(monkeypatch).error = error
    assert cli.main(["fail"]) == code
    assert capsys.readouterr().err == message


def test_an_option_that_python_refuses_is_wrong_usage(monkeypatch, capsys):
    Failing(monkeypatch).error = OptionError("batch_tokens", "must be even; got 3")
    with pytest.raises(SystemExit) as exit:
        cli.main(["fail"])
    assert exit.value.code == 2
    assert capsys.readouterr().err.endswith(
        "fail: error: argument --batch-tokens: must be even; got 3\n"
    )


def test_traceback_on_request(monkeypatch, capsys):
    Failing(monkeypatch).error = ValueError("wrong")
    assert cli.main(["--traceback", "fail"]) == 1
    assert "in run\n" in capsys.readouterr().err


def test_one_process_for_what_is_not_shared(monkeypatch, capsys):
    Failing(monkeypatch)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["fail"]) == 1
    assert "this command runs in one process, and WORLD_SIZE says 2" in capsys.readouterr().err


def test_sigterm_is_put_back(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    Failing(monkeypatch)
    cli.main(["fail"])
    assert signal.getsignal(signal.SIGTERM) is before


# ---------------------------------------------------------------------------------------------
# In processes of their own


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def python(program, **options):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        **options,
    )


def test_a_reader_that_leaves():
    program = """
import sys, types
from ernie_rna.cli import main as cli
from ernie_rna.cli.arguments import add_command
module = types.ModuleType("talking")
def run(args):
    while True:
        print("a line")
module.add_commands = lambda subparsers: add_command(subparsers, "talk", run, "", "")
sys.modules["talking"] = module
cli.COMMANDS = ("talking",)
sys.exit(cli.main(["talk"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == "a line\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


@pytest.mark.parametrize(
    ("closed", "command", "message"),
    [
        ("<&-", "embed - -m mini -o out.npz", "standard input is closed"),
        (">&-", "mutate in.fasta -m mini --summary -", "standard output: it is closed"),
        (">&-", "embed in.fasta -m mini -o out.npz --quiet", ""),
    ],
)
def test_closed_streams(tmp_path, closed, command, message):
    (tmp_path / "in.fasta").write_text(">a\nACGU\n")
    done = subprocess.run(
        f"{sys.executable} -W ignore -m ernie_rna {command} {closed}",
        shell=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == bool(message), done.stderr
    assert message in done.stderr
    assert "internal" not in done.stderr


def test_help_answers_without_torch():
    program = """
import sys
from ernie_rna.cli.main import main
sys.argv = ["ernie-rna", "embed", "--help"]
try:
    main()
finally:
    loaded = {"torch", "transformers", "numpy"} & set(sys.modules)
    assert not loaded, loaded
"""
    done = python(program)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: ernie-rna embed" in done.stdout


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from ernie_rna.cli.main import main
for line in open("commands.txt"):
    assert main(line.split()) == 1, line
"""


def test_no_command_waits_for_torch_to_refuse_what_is_plain(tmp_path):
    """Those that read a FASTA file; tests of the other commands say it of theirs."""
    (tmp_path / "in.fasta").write_text(">a\nACGU\n")
    (tmp_path / "twice.fasta").write_text(">a\nACGU\n>a\nACGU\n")
    (tmp_path / "in.csv").write_text("sequence,label\nACGU,x\n")
    (tmp_path / "bad.csv").write_text("sequence,label\nAC-GU,x\n")
    (tmp_path / "pretrain.pt").write_bytes(b"PK")
    for name in ("there.tsv", "there.npz"):
        (tmp_path / name).write_text("")
    for name in ("model", "short", "unconverted"):
        (tmp_path / name).mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "short/config.json").write_text('{"max_position_embeddings": 5}')
    named = {
        "embed in.fasta -m short -o out.npz": "1 of 1 sequences are longer than the 3 nt that",
        "embed in.fasta -m pretrain.pt -o out.npz": "convert it first",
        "embed in.fasta -m unconverted -o out.npz": "config.json",
        "embed in.fasta -m ./NOSUCH -o out.npz": "no folder ./NOSUCH",
        "embed no.fasta -m model -o out.npz": "no.fasta: no such file",
        "embed twice.fasta -m model -o out.npz": "twice.fasta: record 2: there is a record with",
        "embed in.fasta -m model -o out.xyz": "out.xyz: the extension must be one of .safetensors",
        "embed in.fasta -m model -o there.npz": "there.npz exists already; --force",
        "embed in.fasta -m model -o no/out.npz": "there is no folder no",
        "mutate in.fasta -m model": "nothing to write: give -o, --positions or --summary",
        "mutate in.fasta -m model -o out.npz": "out.npz: the extension must be .tsv",
        "mutate in.fasta -m model -o x.tsv --summary ./x.tsv": "x.tsv is named for two outputs",
        "mutate in.fasta -m model -o - --summary -": "standard output is named for two outputs",
        "mutate in.fasta -m model -o there.tsv": "there.tsv exists already; --force",
        "mutate no.fasta -m model -o -": "no.fasta: no such file",
        "predict in.fasta -m model -o out.txt": "out.txt: the extension must be .tsv or .safet",
        "predict in.fasta -m model -o there.tsv": "there.tsv exists already; --force",
        "predict in.csv -m model -o o.tsv --sequence-column rna": "no column 'rna'; it has sequen",
        "predict bad.csv -m model -o out.tsv": "bad.csv: record 1 (line 2): '-' at position 3",
        "predict no.csv -m model -o out.tsv": "no.csv: no such file",
        "predict in.csv -m ./NOSUCH -o out.tsv": "no folder ./NOSUCH",
    }
    (tmp_path / "commands.txt").write_text("\n".join(named))
    done = python(WITHOUT_TORCH, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == len(named)
    for line, (command, message) in zip(said, named.items(), strict=True):
        assert line.startswith("ernie-rna: error: "), command
        assert message in line, command
    left = {"in.fasta", "twice.fasta", "in.csv", "bad.csv", "pretrain.pt", "commands.txt"}
    left |= {"there.tsv", "there.npz", "model", "short", "unconverted"}
    assert {path.name for path in tmp_path.iterdir()} == left
