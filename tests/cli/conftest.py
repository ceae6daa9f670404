"""Fixtures that run the command line in a temporary folder, with small random models."""

import contextlib
import os
import sys
from pathlib import Path

import pytest
import torch

from ernie_rna.cli import main as cli
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForCloseness, ErnieRnaModel
from tests.conftest import ROOT, lively

# The environment of a new Python process.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def run(capsys):
    """A function that runs a command line, checks its exit code, and returns stdout and stderr."""

    def run(command, code=0):
        try:
            exit_code = cli.main(command.split())
        except SystemExit as error:
            exit_code = error.code
        output = capsys.readouterr()
        assert exit_code == code, output.err
        return output

    return run


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder with the encoder `model`, the encoder `random`, which is marked as untrained, and
    `close`, a model with a closeness head."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "intermediate_size": 96, "pair_blocks": 1}
    config = ErnieRnaConfig(**sizes, max_position_embeddings=256)
    encoder = lively(ErnieRnaModel(config, add_pooling_layer=False))
    encoder.save_pretrained(folder / "model")
    encoder.config.weights_origin = "random"
    encoder.save_pretrained(folder / "random")
    config.weights_origin = None
    ErnieRnaForCloseness(config).save_pretrained(folder / "close")
    return folder


@pytest.fixture
def folder(here, models, _reproducible):
    """A working directory with the models and a FASTA file, in.fasta."""
    torch.set_num_threads(1)
    for name in ("model", "random", "close"):
        os.symlink(models / name, name)
    Path("in.fasta").write_text(
        ">one an RNA, partial\nGGGGGAAAACCCCCAU\n>two an RNA, partial\nGCGCGAUUUUCGCGCA\n"
    )
    return here


@pytest.fixture
def stdin(monkeypatch):
    """A function that makes a file the standard input."""
    with contextlib.ExitStack() as files:
        yield lambda path: monkeypatch.setattr(sys, "stdin", files.enter_context(open(path)))
