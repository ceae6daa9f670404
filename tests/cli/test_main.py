"""The command line: what it prints, where, and its exit codes."""

import io
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM, ErnieRnaModel

import ernie_rna
from ernie_rna.cli import main as cli
from ernie_rna.embeddings.readers import read_embeddings

pytest.importorskip("dnaio")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _one_thread(_reproducible):
    torch.set_num_threads(1)


@pytest.fixture
def folder(config, tmp_path, monkeypatch):
    """The working directory, with a model and a FASTA file."""
    monkeypatch.chdir(tmp_path)
    ErnieRnaModel(config, add_pooling_layer=False).save_pretrained("model")
    Path("in.fasta").write_text(">one RNA\nACGU\n>two\nGGNCC\n")
    return tmp_path


def embed(*arguments):
    return cli.main(["embed", "-m", "model", *arguments])


def test_embeds(folder, capsys):
    assert embed("in.fasta", "-o", "out.npz", "--layers=0,-1", "--pooling", "mean,token") == 0
    output, errors = capsys.readouterr()
    assert output == ""
    assert "out.npz: 2 sequences, 9 nt; " in errors
    one, two = read_embeddings("out.npz")
    assert (one.id, two.id) == ("one", "two")
    assert list(two.arrays) == ["token_layer0", "mean_layer0", "token_layer3", "mean_layer3"]
    np.testing.assert_allclose(two["token_layer3"].mean(0), two["mean_layer3"], atol=1e-6)


def test_one_process_for_what_is_not_shared(folder, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for command in ("fold in.fasta -m model -o out.dbn", "ribosome-loading in.fasta -m model"):
        assert cli.main(command.split()) == 1
        assert "this command runs in one process, and here are 2" in capsys.readouterr().err


def test_too_many_threads(folder, capsys):
    with pytest.raises(SystemExit):
        embed("in.fasta", "-o", "out.npz", "--threads", "100000")
    assert "--threads: 100000 are more than 1024" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("closed", "command", "message"),
    [
        ("<&-", "embed - -m model -o out.npz", "standard input is closed"),
        (">&-", "mutate in.fasta -m model --summary -", "standard output: it is closed"),
        (">&-", "embed in.fasta -m model -o out.npz --quiet", ""),
    ],
)
def test_closed_streams(folder, closed, command, message):
    program = f"{sys.executable} -W ignore -m ernie_rna.cli"
    done = subprocess.run(
        f"{program} {command} {closed}",
        shell=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == bool(message), done.stderr
    assert message in done.stderr
    assert "internal" not in done.stderr


def test_a_terminated_command_leaves_nothing(folder, config):
    ErnieRnaForMaskedLM(config).save_pretrained("masked")
    Path("in.fasta").write_text(">long\n" + "ACGU" * 60 + "\n")
    command = [sys.executable, "-m", "ernie_rna.cli", "mutate", "in.fasta", "-m", "masked"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen([*command, "-o", "out.tsv", "--quiet"], env=environment)
    deadline = time.monotonic() + 60
    while not list(folder.glob("out.tsv.*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    run.terminate()
    assert run.wait(30) == 143
    assert not list(folder.glob("out.tsv*"))


def test_every_option(folder, capsys):
    options = ["--layers", "all", "--dtype", "bfloat16", "--device", "cpu", "--threads", "1"]
    options += ["--attention", "eager", "--long", "window", "--overlap", "9", "--unknown", "unk"]
    options += ["--batch-tokens", "64", "--quiet", "--force"]
    assert embed("in.fasta", "-o", "out.npz", *options) == 0
    assert embed("in.fasta", "-o", "out.npz", *options) == 0
    assert capsys.readouterr() == ("", "")
    assert list(next(read_embeddings("out.npz")).arrays) == [f"mean_layer{i}" for i in range(4)]


def test_standard_input(folder, monkeypatch):
    class Input:
        buffer = io.BufferedReader(io.BytesIO(Path("in.fasta").read_bytes()))

    monkeypatch.setattr(sys, "stdin", Input)
    assert embed("-", "-o", "out.npz") == 0
    assert len(list(read_embeddings("out.npz"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.fasta", "-o", "o.npz"], "nowhere.fasta: no such file"),
        (["bad.fasta", "-o", "o.npz"], "bad.fasta: record 1 (x): it looks like a protein: 31 %"),
        (["in.fasta", "-o", "o.csv"], "o.csv: the extension must be one of .safetensors, .h5"),
        (["in.fasta", "-o", "in.npz"], "in.npz exists already; --force replaces it"),
        (["in.fasta", "-o", "o.npz", "--layers", "9"], "the model has layers 0 (embeddings) to 3"),
        (["in.fasta", "-o", "o.npz", "--pooling", "max"], "pooling must be among token, cls, mean"),
        (["in.fasta", "-o", "o.npz", "--device", "mtia"], "device 'mtia' cannot be used: "),
        (
            ["in.fasta", "-o", "o.npz", "-m", "nowhere"],
            "there is no folder nowhere here, and the Hub",
        ),
    ],
)
def test_errors_take_one_line(folder, capsys, arguments, message):
    Path("bad.fasta").write_text(">x\nMKLVFEQPGSWTARNH\n")
    Path("in.npz").write_text("precious")
    assert embed(*arguments) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("ernie-rna: error: ")
    assert message in errors
    assert errors.count("\n") == 1
    assert not Path("o.npz.partial").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["embed", "in.fasta"], "the following arguments are required: -m/--model, -o/--output"),
        (["embed", "i", "-m", "m", "-o", "o", "--long", "cut"], "argument --long: invalid choice"),
        (["embed", "i", "-m", "m", "-o", "o", "--layers", "x"], "'x' is neither all nor numbers"),
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


@pytest.mark.parametrize("command", [module.rpartition(".")[2] for module in cli.COMMANDS])
def test_help_of_every_command(capsys, command):
    name = command.replace("_", "-")
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    text = capsys.readouterr().out
    assert "examples:" in text
    assert max(map(len, text.splitlines())) <= 100


class Failing:
    """A command that raises what it is told to."""

    def __init__(self, monkeypatch):
        self.error = None
        monkeypatch.setattr(cli, "COMMANDS", ("failing",))
        monkeypatch.setitem(sys.modules, "failing", self)

    def add_parser(self, subparsers):
        subparsers.add_parser("fail").set_defaults(run=self.run)

    def run(self, args):
        if self.error is None:
            warnings.warn("take\ncare", stacklevel=1)
            return 0
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("two\n  lines"), 1, "ernie-rna: error: two lines\n"),
        (KeyError("x"), 1, "ernie-rna: internal error: KeyError: 'x' (--traceback shows where)\n"),
        (
            FileNotFoundError(2, "No such file or directory", "x.tsv"),
            1,
            "ernie-rna: error: x.tsv: no such file or directory\n",
        ),
        (
            OSError("cannot read x: [Errno 13] Permission denied: 'x'"),
            1,
            "ernie-rna: error: cannot read x: Permission denied: 'x'\n",
        ),
        (KeyboardInterrupt(), 130, "ernie-rna: interrupted\n"),
        (None, 0, "ernie-rna: warning: take care\n"),
    ],
)
def test_outcomes(monkeypatch, capsys, error, code, message):
    Failing(monkeypatch).error = error
    assert cli.main(["fail"]) == code
    assert capsys.readouterr().err == message


def test_traceback_on_request(monkeypatch, capsys):
    Failing(monkeypatch).error = ValueError("wrong")
    assert cli.main(["--traceback", "fail"]) == 1
    assert "in run\n" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------
# In processes of their own


def start(*arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        text=True,
        stderr=subprocess.PIPE,
        # A shell that starts us in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def test_a_reader_that_leaves():
    program = """
import sys, types
from ernie_rna.cli import main as cli
module = types.ModuleType("talking")
def run(args):
    while True:
        print("a line")
module.add_parser = lambda subparsers: subparsers.add_parser("talk").set_defaults(run=run)
sys.modules["talking"] = module
cli.COMMANDS = ("talking",)
sys.exit(cli.main(["talk"]))
"""
    process = start("-c", program, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "a line\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


def test_ctrl_c_says_how_to_go_on(folder):
    Path("in.fasta").write_text("".join(f">{i}\n{'ACGU' * 50}\n" for i in range(20_000)))
    arguments = ["-m", "ernie_rna.cli", "embed", "in.fasta", "-m", "model", "-o", "out.npz"]
    process = start(*arguments)
    while not list(Path().glob("out.npz.partial/part-*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    text = process.stderr.read()
    assert process.wait() == 130
    assert text.endswith("interrupted; run the same command again: it goes on where it stopped\n")
    assert "Traceback" not in text


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
    process = start("-c", program, stdout=subprocess.PIPE)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert "usage: ernie-rna embed" in output
