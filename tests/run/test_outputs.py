"""Files that appear whole: whoever else writes there, and whatever has a name like theirs."""

import contextlib
import errno
import io
import os
import signal
import sys

import pytest
from safetensors import SafetensorError

from ernie_rna.run.outputs import (
    OutputError,
    check_output_files,
    full_disk_explained,
    open_text,
    replacing,
    replacing_folder,
)


def test_of_two_writers_the_last_one_is_there_whole(tmp_path):
    path = tmp_path / "out.tsv"
    with replacing(path) as slow:
        slow.write_text("slow")
        with replacing(path) as fast:
            fast.write_text("fast")
        assert path.read_text() == "fast"
        with slow.open("a") as file:
            file.write("er")
    assert path.read_text() == "slower"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_interrupted_leaves_what_was_there(tmp_path):
    others = {tmp_path / name for name in ("out.tsv", "out.tsv.tmp", ".out.tsv.tmp")}
    for other in others:
        other.write_text("mine")
    with contextlib.suppress(ZeroDivisionError), replacing(tmp_path / "out.tsv") as path:
        path.write_text("half")
        raise ZeroDivisionError
    assert set(tmp_path.iterdir()) == others
    assert {other.read_text() for other in others} == {"mine"}
    with replacing(tmp_path / "out.tsv") as path:
        path.write_text("whole")
    assert sorted(other.read_text() for other in others) == ["mine", "mine", "whole"]
    assert set(tmp_path.iterdir()) == others


def test_a_folder_appears_whole(tmp_path):
    path = tmp_path / "model"
    with contextlib.suppress(ZeroDivisionError), replacing_folder(path) as folder:
        (folder / "config.json").write_text("{}")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    for text in ("first", "second"):
        with replacing_folder(path) as folder:
            (folder / text).touch()
        assert [one.name for one in path.iterdir()] == [text]
    assert list(tmp_path.iterdir()) == [path]
    link = tmp_path / "link"
    link.symlink_to(path)
    with replacing_folder(link):
        pass
    assert link.is_symlink()
    assert not list(path.iterdir())


def test_a_folder_where_no_file_can_be_locked(tmp_path, monkeypatch):
    """As on some file systems of clusters; nobody knows there what is dead, and it stays."""
    fcntl = pytest.importorskip("fcntl")

    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    left = tmp_path / ".model.01234567.tmp"
    left.mkdir()
    with replacing_folder(tmp_path / "model") as folder:
        (folder / "config.json").touch()
    assert (tmp_path / "model" / "config.json").exists()
    assert {*tmp_path.iterdir()} == {left, tmp_path / "model"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("between_renamings", [False, True])
def test_what_a_killed_process_left_of_a_folder_goes_with_the_next(tmp_path, between_renamings):
    path, other = tmp_path / "model", tmp_path / ".model.mine.tmp"
    for folder in (path, other):
        folder.mkdir()
    child = os.fork()
    if not child:  # dies in the block
        with replacing_folder(path) as folder:
            (folder / "half").touch()
            if between_renamings:
                path.rename(folder.with_name("old"))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(list(tmp_path.glob(".model.*.tmp"))) == 2
    with replacing_folder(path):  # One that is at work keeps what it has, and `path` stays whole.
        with contextlib.suppress(ZeroDivisionError), replacing_folder(path):
            assert path.is_dir()
            assert len(list(tmp_path.glob(".model.*.tmp"))) == 3
            raise ZeroDivisionError
        assert len(list(tmp_path.glob(".model.*.tmp"))) == 2
    assert {*tmp_path.iterdir()} == {path, other}


def test_text_is_utf8_with_the_line_ends_given(tmp_path, capsys):
    with open_text(str(tmp_path / "out.tsv")) as file:
        file.write("é\n")
    assert (tmp_path / "out.tsv").read_bytes() == "é\n".encode()
    with open_text("-") as file:
        file.write("a\n")
    assert capsys.readouterr().out == "a\n"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_explained(code):
    with (
        pytest.raises(OutputError, match=r"^no room to write out\.tsv \(.*full\); make room$"),
        full_disk_explained("out.tsv", "; make room"),
    ):
        raise OSError(code, "full")
    with pytest.raises(OutputError, match="no room"), full_disk_explained("out.tsv"):
        raise SafetensorError(f"IoError(Os {{ code: {code} }}): full (os error {code})")
    with pytest.raises(PermissionError), full_disk_explained("out.tsv"):
        raise PermissionError(errno.EACCES, "no")


@pytest.mark.parametrize(
    ("outputs", "options", "error", "message"),
    [
        (["a.tsv", "./a.tsv"], {}, ValueError, r"a\.tsv is named for two outputs"),
        (["-", "-"], {}, ValueError, "standard output is named for two outputs"),
        (["a.txt"], {"extensions": (".tsv",)}, ValueError, "extension must be .tsv"),
        (["no/a.tsv"], {}, OutputError, "there is no folder no"),
        (["link.tsv"], {}, OutputError, "cannot write link.tsv: there is no folder .*/nowhere"),
        (["/proc/a.tsv"], {}, OutputError, "cannot write /proc/a.tsv: .*/proc"),
        (
            [f"{'x' * 240}.tsv"],
            {},
            OutputError,
            "cannot write x+...: its name has 244 bytes, and 230",
        ),
        (["folder"], {"force": True}, OutputError, "it is not a file"),
        (["/dev/null"], {"force": True}, OutputError, "it is not a file; - is standard output"),
        (["/dev/null"], {"streams": False}, OutputError, "it is not a file$"),
        (["there.tsv"], {}, OutputError, "there.tsv exists already; --force replaces it"),
    ],
)
def test_outputs_are_checked(tmp_path, monkeypatch, outputs, options, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "there.tsv").touch()
    (tmp_path / "link.tsv").symlink_to("nowhere/a.tsv")
    with pytest.raises(error, match=message):
        check_output_files(outputs, **options)
    check_output_files(["there.tsv", "new.TSV", "-"], force=True)
    check_output_files(["folder"], folders=["folder"], force=True)
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="standard output: it is closed"):
        check_output_files(["-"])
    monkeypatch.setattr(sys, "stdout", io.StringIO())


@pytest.mark.parametrize(("renamings", "left"), [(1, "old"), (2, "new")])
def test_an_interruption_between_renamings_loses_nothing(tmp_path, monkeypatch, renamings, left):
    path, replace, done = tmp_path / "model", os.replace, []
    path.mkdir()
    (path / "old").touch()

    def interrupted(*names):
        replace(*names)
        done.append(names)
        if len(done) == renamings:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing_folder(path) as folder:
        (folder / "new").touch()
    assert [*tmp_path.rglob("*")] == [path, path / left]
