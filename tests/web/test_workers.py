"""Processes that compute: limited in time and memory, and started anew where one has ended."""

import os
import signal

import pytest

from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.web.inputs import Limits
from ernie_rna.web.workers import Setup, TaskError, Workers, _outcome

pytest.importorskip("dnaio")
pytest.importorskip("matplotlib")
RECORDS = [FastaRecord("one", "GGGGAAAACCCC")]


def test_a_job_that_takes_too_long_is_ended_and_the_next_one_done(saved, tmp_path):
    setup = Setup({"small": str(saved)}, "cpu", 1, Limits(seconds=120.0))
    with Workers(setup) as workers:
        assert workers.models["small"].layers == 3
        (worker,) = workers._all
        first = worker._process.pid
        worker._setup = Setup(setup.models, "cpu", 1, Limits(seconds=0.0))
        with pytest.raises(TaskError, match="longer than the 0 seconds"):
            workers.run("fold", folder=tmp_path, model="small", records=RECORDS)
        worker._setup = setup
        result = workers.run("fold", folder=tmp_path, model="small", records=RECORDS)
        assert result.text.startswith(">one")
        second = worker._process.pid
        assert second != first
        os.kill(second, signal.SIGKILL)
        worker._process.join()
        with pytest.raises(TaskError, match="has ended"):
            worker._answer(60.0)
    assert not worker._process.is_alive() if worker._process._popen else True


def test_a_model_that_cannot_be_loaded_is_told(tmp_path):
    setup = Setup({"none": str(tmp_path)}, "cpu", 1)
    with pytest.raises(TaskError, match="cannot load the model"), Workers(setup):
        pass


def test_what_is_told_and_what_is_not(capsys):
    def fails(error):
        raise error

    assert _outcome(fails, {"error": ValueError("a reason")}) == (False, "a reason")
    assert "not enough memory" in _outcome(fails, {"error": MemoryError()})[1]
    message = _outcome(fails, {"error": OSError("/a/path/of/the/server")})[1]
    assert "/a/path" not in message
    assert "/a/path" in capsys.readouterr().err
