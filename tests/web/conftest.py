"""A small random model, and requests that the process of the tests computes itself."""

from pathlib import Path

import pytest

from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining
from ernie_rna.options import ServeOptions
from ernie_rna.web.requests import Requests

LIMITS = ServeOptions(
    sequences=4, nucleotides=1500, workers=2, device="cpu", gigabytes=1000.0, threads=2
)


@pytest.fixture
def saved(config, tmp_path) -> Path:
    """The folder of a model with a masked-LM head and a structure head."""
    folder = tmp_path / "on-the-server" / "small"
    ErnieRnaForPreTraining(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture
def requests(saved, tmp_path, monkeypatch) -> Requests:
    for module in ("matplotlib", "pebble", "RNA"):
        pytest.importorskip(module)
    requests = Requests({"small": str(saved)}, LIMITS, tmp_path / "results")
    requests.folder.mkdir()
    monkeypatch.setattr(requests, "run", lambda task, **given: task(*requests._setup, **given))
    requests.load()
    return requests
