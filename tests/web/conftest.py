"""A desk whose jobs run in this process, on a small model with random weights."""

from pathlib import Path

import pytest
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining

from ernie_rna.web.inputs import Limits
from ernie_rna.web.requests import Desk

LIMITS = Limits(sequences=4, nucleotides=100, together=150, masked=20)


class InThisProcess:
    """In the place of `Workers`."""

    def __init__(self, tasks):
        self.models = tasks.describe()
        self._tasks = tasks

    def run(self, task, **arguments):
        return getattr(self._tasks, task)(**arguments)


@pytest.fixture
def saved(config, tmp_path) -> Path:
    """A folder with both heads."""
    folder = tmp_path / "small"
    ErnieRnaForPreTraining(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture
def desk(saved, tmp_path) -> Desk:
    for module in ("dnaio", "matplotlib", "RNA"):
        pytest.importorskip(module)
    from ernie_rna.web.tasks import Tasks

    folder = tmp_path / "results"
    folder.mkdir()
    tasks = Tasks({"small": str(saved)}, device="cpu", threads=None)
    return Desk(InThisProcess(tasks), LIMITS, folder)
