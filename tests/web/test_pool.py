"""Processes that compute: limited in time and memory, and started anew where one has ended."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from ernie_rna.options import ServeOptions
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.web import pool
from ernie_rna.web.pool import Pool, TaskError

for module in ("matplotlib", "pebble"):
    pytest.importorskip(module)
RECORD = FastaRecord("one", "GGGGAAAACCCC")
OPTIONS = ServeOptions(device="cpu", threads=1)


def test_a_request_ends_without_the_page(saved, tmp_path, monkeypatch):
    def answer(name):
        (tmp_path / name).mkdir()
        given = {"what": "map", "model": "small", "records": [RECORD], "drawn": RECORD}
        return started.run("answer", folder=tmp_path / name, **given)

    with Pool({"small": str(saved)}, OPTIONS) as started:
        assert started.run("describe")["small"].layers == 3
        started._seconds = 0.001
        with pytest.raises(TaskError, match=r"longer than the 0.001 seconds .*: take fewer"):
            answer("late")
        started._seconds = 120.0
        assert answer("in time").captions
        # A process that has nothing to do is killed, which pebble gives up at.
        (process,) = started._pool._pool_manager.worker_manager.workers
        os.kill(process, signal.SIGKILL)
        while started._pool.active:
            time.sleep(0.05)
        assert answer("after that").captions
        monkeypatch.setattr(pool, "_answer", _want_much)
        with pytest.raises(TaskError, match="not enough memory for this: take fewer"):
            started.run("answer")
        monkeypatch.setattr(pool, "_answer", _die)
        with pytest.raises(TaskError, match="the process that computes ended, maybe for lack"):
            started.run("answer")
    assert not multiprocessing.active_children()


def _want_much(models, options, *rest):
    pool._tasks(models, options).answer = lambda: np.ones(1 << 33, np.uint8)
    return pool._answer(models, options, "answer", {})


def _die(*given):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_model_that_cannot_be_loaded_is_told(tmp_path):
    with (
        Pool({"none": str(tmp_path)}, OPTIONS) as started,
        pytest.raises(TaskError, match="cannot load the model"),
    ):
        started.run("describe")


def test_what_is_told_and_what_is_not(capsys, monkeypatch):
    class Fails:
        def answer(self, error):
            raise error

    monkeypatch.setattr(pool, "_tasks", lambda *setup: Fails())

    def said(error):
        return pool._answer((), OPTIONS, "answer", {"error": error})

    assert said(ValueError("a reason")) == (False, "a reason")
    assert "not enough memory" in said(MemoryError())[1]
    message = said(OSError("/a/path/of/the/server"))[1]
    assert "/a/path" not in message
    assert "/a/path" in capsys.readouterr().err
