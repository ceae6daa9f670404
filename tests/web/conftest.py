"""Requests that are answered in this process, by a small model with random weights."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining
from ernie_rna.options import ServeOptions
from ernie_rna.web.requests import Requests
from ernie_rna.web.tasks import describe

LIMITS = ServeOptions(sequences=4, nucleotides=1500, workers=2)
OPTIONS = ServeOptions(device="cpu", gigabytes=1000.0, threads=2)


@pytest.fixture
def saved(config, tmp_path) -> Path:
    """A folder with both heads."""
    folder = tmp_path / "on-the-server" / "small"
    ErnieRnaForPreTraining(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture
def setup(saved):
    """What each task takes first."""
    return (("small", str(saved)),), OPTIONS


@pytest.fixture
def requests(setup, tmp_path) -> Requests:
    for module in ("matplotlib", "RNA"):
        pytest.importorskip(module)
    folder = tmp_path / "results"
    folder.mkdir()
    pool = SimpleNamespace(run=lambda task, **given: task(*setup, **given))
    return Requests(pool, pool.run(describe), LIMITS, folder)
