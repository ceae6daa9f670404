"""`ernie-rna embed`, as it is typed: what it writes, prints and refuses."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ernie_rna.cli import main as cli
from ernie_rna.embeddings.formats import read_embeddings
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from tests.conftest import ROOT


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


def test_every_option(folder, capsys):
    options = ["--layers", "all", "--dtype", "float32", "--device", "cpu", "--threads", "1"]
    options += ["--attention", "eager", "--long", "window", "--overlap", "9", "--unknown", "unk"]
    options += ["--batch-tokens", "64", "--part", "1/1", "--quiet", "--force"]
    options += ["--shard-bytes", "9999"]
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


def test_one_sequence_is_singular(folder, capsys):
    Path("one.fasta").write_text(">one\nACGU\n")
    assert embed("one.fasta", "-o", "out.npz") == 0
    assert "out.npz: 1 sequence, 4 nt; " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.fasta", "-o", "o.npz"], "nowhere.fasta: no such file"),
        (["model", "-o", "o.npz"], "model: is a directory"),
        (["bad.fasta", "-o", "o.npz"], "bad.fasta: record 1 (x): it looks like a protein: 31 %"),
        (["in.fasta", "-o", "o.xlsx"], "o.xlsx: the extension must be one of .safetensors, .h5"),
        (["in.fasta", "-o", "in.npz"], "in.npz exists already; --force replaces it"),
        (["in.fasta", "-o", "no/o.npz"], "cannot write no/o.npz: there is no folder no"),
        (["in.fasta", "-o", "o.npz", "--layers", "9"], "the model has layers 0 (embeddings) to 3"),
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
    assert Path("in.npz").read_text() == "precious"


def test_random_weights_are_told_in_one_line(folder, config, capsys):
    config.weights_origin = "random"
    ErnieRnaModel(config, add_pooling_layer=False).save_pretrained("model")
    capsys.readouterr()
    assert embed("in.fasta", "-o", "out.npz", "--quiet") == 0
    assert capsys.readouterr().err == (
        "ernie-rna: warning: model has random weights, which were never trained: what follows "
        "means nothing\n"
    )


# ---------------------------------------------------------------------------------------------
# In processes of their own


@pytest.fixture
def started(folder):
    """A run of many sequences that has kept a first part."""
    Path("in.fasta").write_text("".join(f">{i}\n{'ACGU' * 50}\n" for i in range(20_000)))
    process = subprocess.Popen(
        [sys.executable, "-m", "ernie_rna", "embed", "in.fasta", "-m", "model", "-o", "out.npz"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        text=True,
        stderr=subprocess.PIPE,
        # A shell that starts us in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list(Path().glob("out.npz.partial/part-*.safetensors")):
        assert process.poll() is None
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(
    ("sent", "code", "end"),
    [
        (signal.SIGINT, 130, "ernie-rna: interrupted; run the same command again to resume\n"),
        (signal.SIGTERM, 143, ""),
    ],
)
def test_a_run_that_is_ended_keeps_what_it_has(started, sent, code, end):
    started.send_signal(sent)
    text = started.stderr.read()
    assert started.wait() == code
    assert text.endswith(end)
    assert "Traceback" not in text
    left = sorted(path.name for path in Path("out.npz.partial").iterdir())
    assert {*left} >= {"manifest.json", "part-000000.safetensors"}
    assert not [name for name in left if name.endswith(".tmp")]
