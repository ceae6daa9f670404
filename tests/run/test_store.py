"""What is kept beside an output: parts that are whole or not there, and who may work there."""

import contextlib
import errno
import json
import multiprocessing
import os
from dataclasses import replace

import numpy as np
import pytest

from ernie_rna.options import Share
from ernie_rna.run.outputs import OutputError
from ernie_rna.run.store import Store, check_place
from ernie_rna.sequences.fasta import FastaRecord
from tests.run.conftest import names, raising

SETTINGS = {"model": {"name": "M", "sha256": "1"}, "layers": [0, 1]}
OTHERS = {**SETTINGS, "layers": [1]}
ONE = {"values": np.zeros(1)}


@contextlib.contextmanager
def working(output, index=0, count=1, settings=SETTINGS, force=False, **more):
    """A store that is begun; `resumed` is what `begin` gave."""
    with Store(output, Share(index, count), force) as store:
        store.resumed = store.begin(settings, **more)
        yield store


def finish(store):
    store.finish(problems=["b is not in it: too long"])
    store.finish_share()


def refuses_to_assemble(store):
    with pytest.raises(OutputError, match=r"another process has dropped .* run it again"):
        store.assembling().__enter__()


@pytest.fixture
def store(output):
    with working(output) as store:
        yield store


def test_a_part_is_of_its_records_and_settings_only(output):
    records = [FastaRecord("a", "ACGU", "text"), FastaRecord("b", "GG")]
    changed = [replace(records[0], description="other"), replace(records[0], sequence="ACGA")]
    with working(output) as store:
        store.part(0, records).put(ONE, {})
        assert store.part(0, records).is_whole()
        others = [records[:1], records[::-1], *([one, records[1]] for one in changed)]
        assert not any(store.part(0, other).is_whole() for other in others)
        assert not store.part(1, records).is_whole()
        (store.folder / "manifest.json").write_text(json.dumps(OTHERS))
        refuses_to_assemble(store)
    with working(output, settings=OTHERS) as store:
        with store.assembling() as said:
            assert said is None
        assert not store.part(0, records).is_whole()
        store.invalidate()
        refuses_to_assemble(store)


# ---------------------------------------------------------------------------------------------
# The manifest


@pytest.mark.parametrize("content", [b"[]x", b"[1]", b"3", b"\xff", b"[" * 100_000])
def test_a_damaged_manifest_is_refused(output, content):
    with working(output) as store:
        store.part(0).put(ONE, {})
        (store.folder / "manifest.json").write_bytes(content)
    damaged = r"manifest\.json is damaged; --force drops the unfinish"
    with pytest.raises(OutputError, match=damaged), working(output):
        pass
    with working(output, force=True) as store:
        assert not store.resumed
        assert not store.part(0).is_whole()


# ---------------------------------------------------------------------------------------------
# Who leaves last, and two at once


def test_leaves_the_files_of_others(output):
    with working(output) as store:
        (store.folder / "notes.txt").write_text("mine")
        finish(store)
    assert names(store.folder) == ["notes.txt"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_process_that_comes_late_finds_the_work_done(output, order):
    first, second, last = order
    with working(output, first, 3) as store:
        assert [store.owns(number) for number in range(3)] == [first == i for i in range(3)]
        store.finish_share()  # before the others have put anything
    with working(output, second, 3) as store:
        assert not store.resumed
        finish(store)
    with working(output, last, 3, whole=lambda: True) as store:
        assert store.resumed
        with store.assembling() as said:
            assert said == {"problems": ["b is not in it: too long"]}
        assert not store.owns(last)
        store.finish_share()
    assert names(output.parent) == []


def test_who_leaves_last_deletes_the_folder(output):
    with working(output, 0, 2) as store:
        store.finish_share()
        with working(output, 1, 2) as other:
            finish(other)
        assert store.begun
    assert names(output.parent) == []


def test_what_is_done_is_begun_anew_if_the_output_has_gone(output):
    with working(output, 0, 2) as store:
        finish(store)
    with working(output, 1, 2, whole=lambda: False) as store:
        assert not store.resumed
        assert not store.done
        store.finish()
    exists = r"out\.npz exists already; --force replaces it"
    with pytest.raises(OutputError, match=exists), working(output, 1, 2, OTHERS):
        pass


def test_several_that_force_at_once_agree(output):
    for index in range(2):
        with working(output, index, 2, OTHERS) as store:
            store.part(index).put(ONE, {})
    with (
        Store(output, Share(0, 2), force=True) as one,
        Store(output, Share(1, 2), force=True) as two,
    ):
        assert not two.begin(SETTINGS)
        two.part(1).put(ONE, {})
        assert one.begin(SETTINGS)
        assert [one.part(number).is_whole() for number in range(2)] == [False, True]


def come_and_go(output, index, rounds):
    for _ in range(rounds):
        with working(output, index, 3) as store:
            store.part(index).put({"values": np.zeros(9)}, {})
            finish(store)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
def test_processes_that_come_and_go(output):
    context = multiprocessing.get_context("fork")
    arguments = [(output, index, 30) for index in range(3)]
    children = [context.Process(target=come_and_go, args=one) for one in arguments]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0, 0, 0]
    with working(output) as store:
        finish(store)
    assert names(output.parent) == []


def test_where_nothing_can_be_written(output, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", raising(OSError(errno.ENOSYS, "Function not implemented")))
        with pytest.raises(OSError, match=r"has no locks .* to another one: '.*partial/lock'"):
            Store(output.with_name("other.npz"), Share())
    (output.parent / "out.npz.partial").write_text("mine")
    output.with_name("link.npz.partial").symlink_to("nowhere")
    for name, message in (
        ("nowhere/out.npz", r"there is no folder .*nowhere"),
        ("out.npz", r"partial, where unfinished results are kept, is a file"),
        ("link.npz", r"unfinished results are kept, is a link"),
    ):
        with pytest.raises(OutputError, match=message):
            check_place(output.parent / name)
