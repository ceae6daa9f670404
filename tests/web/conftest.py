"""Requests that are answered in this process, by a small model with random weights."""

from pathlib import Path

import pytest
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining

from ernie_rna.options import ServeOptions
from ernie_rna.web.requests import Requests

LIMITS = ServeOptions(sequences=4, nucleotides=1500, workers=2)


class InThisProcess:
    """In the place of a `Pool`."""

    def __init__(self, tasks):
        self._tasks = tasks

    def run(self, task, **arguments):
        return getattr(self._tasks, task)(**arguments)


@pytest.fixture
def saved(config, tmp_path) -> Path:
    """A folder with both heads."""
    folder = tmp_path / "on-the-server" / "small"
    ErnieRnaForPreTraining(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture
def requests(saved, tmp_path) -> Requests:
    for module in ("matplotlib", "RNA"):
        pytest.importorskip(module)
    from ernie_rna.web.tasks import Tasks

    folder = tmp_path / "results"
    folder.mkdir()
    pool = InThisProcess(Tasks({"small": str(saved)}, ServeOptions(device="cpu")))
    return Requests(pool, pool.run("describe"), LIMITS, folder)
