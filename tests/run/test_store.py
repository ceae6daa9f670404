"""The folder of unfinished results beside an output: its parts, and the processes that share it."""

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
OTHER_SETTINGS = {**SETTINGS, "layers": [1]}
RESULTS = {"values": np.zeros(1)}


@contextlib.contextmanager
def working(output, index=0, count=1, settings=SETTINGS, force=False, **more):
    """A store on which `begin` was called; its attribute `resumed` is what `begin` returned."""
    with Store(output, Share(index, count), force) as store:
        store.resumed = store.begin(settings, **more)
        yield store


def finish(store):
    store.finish(problems=["b is not in it: too long"])
    store.finish_share()


def refuses_to_assemble(store):
    with pytest.raises(OutputError, match=r"another process has dropped .* run it again"):
        store.assembling().__enter__()


def test_a_part_belongs_to_its_records_and_settings(output):
    first, second = FastaRecord("a", "ACGU", "text"), FastaRecord("b", "GG")
    changed = [replace(first, description="other"), replace(first, sequence="ACGA")]
    with working(output) as store:
        store.part(0, [first, second]).put(RESULTS, {})
        assert store.part(0, [first, second]).is_whole()
        for others in ([first], [second, first], *([record, second] for record in changed)):
            assert not store.part(0, others).is_whole()
        assert not store.part(1, [first, second]).is_whole()
        (store.folder / "manifest.json").write_text(json.dumps(OTHER_SETTINGS))
        refuses_to_assemble(store)
    with working(output, settings=OTHER_SETTINGS) as store:
        with store.assembling() as notes:
            assert notes is None
        assert not store.part(0, [first, second]).is_whole()
        store.invalidate()
        refuses_to_assemble(store)


@pytest.mark.parametrize("content", [b"[]x", b"[1]", b"3", b"\xff", b"[" * 100_000])
def test_a_damaged_manifest_is_refused(output, content):
    with working(output) as store:
        store.part(0).put(RESULTS, {})
        (store.folder / "manifest.json").write_bytes(content)
    damaged = r"manifest\.json is damaged; --force drops the unfinish"
    with pytest.raises(OutputError, match=damaged), working(output):
        pass
    with working(output, force=True) as store:
        assert not store.resumed
        assert not store.part(0).is_whole()


def test_files_of_others_are_kept(output):
    with working(output) as store:
        (store.folder / "notes.txt").write_text("mine")
        finish(store)
    assert names(store.folder) == ["notes.txt"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_late_process_finds_the_work_done(output, order):
    first, second, last = order
    with working(output, first, 3) as store:
        assert [store.owns(number) for number in range(3)] == [first == i for i in range(3)]
        store.finish_share()  # before the others have stored any part
    with working(output, second, 3) as store:
        assert not store.resumed
        finish(store)
    with working(output, last, 3, whole=lambda: True) as store:
        assert store.resumed
        with store.assembling() as notes:
            assert notes == {"problems": ["b is not in it: too long"]}
        assert not store.owns(last)
        store.finish_share()
    assert names(output.parent) == []


def test_the_last_process_deletes_the_folder(output):
    with working(output, 0, 2) as store:
        store.finish_share()
        with working(output, 1, 2) as other:
            finish(other)
        assert store.begun
    assert names(output.parent) == []


def test_a_finished_run_starts_again_if_its_output_is_gone(output):
    with working(output, 0, 2) as store:
        finish(store)
    with working(output, 1, 2, whole=lambda: False) as store:
        assert not store.resumed
        assert not store.done
        store.finish()
    exists = r"out\.npz exists already; --force replaces it"
    with pytest.raises(OutputError, match=exists), working(output, 1, 2, OTHER_SETTINGS):
        pass


def test_two_processes_with_force_drop_only_earlier_results(output):
    for index in range(2):
        with working(output, index, 2, OTHER_SETTINGS) as store:
            store.part(index).put(RESULTS, {})
    with (
        Store(output, Share(0, 2), force=True) as second,
        Store(output, Share(1, 2), force=True) as first,
    ):
        assert not first.begin(SETTINGS)
        first.part(1).put(RESULTS, {})
        assert second.begin(SETTINGS)
        assert [second.part(number).is_whole() for number in range(2)] == [False, True]


def finish_repeatedly(output, index, rounds):
    for _ in range(rounds):
        with working(output, index, 3) as store:
            store.part(index).put(RESULTS, {})
            finish(store)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_that_begin_and_finish_at_random(output):
    fork = multiprocessing.get_context("fork").Process
    children = [fork(target=finish_repeatedly, args=(output, index, 30)) for index in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0, 0, 0]
    with working(output) as store:
        finish(store)
    assert names(output.parent) == []


def test_places_where_no_folder_can_be_used(output, monkeypatch):
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
