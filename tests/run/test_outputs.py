"""Files that appear whole: whoever else writes there, and whatever has a name like theirs."""

import contextlib
import errno
import os
import signal
import sys

import pytest
from safetensors import SafetensorError

from ernie_rna.options import OptionError
from ernie_rna.run.outputs import (
    OutputError,
    appearing,
    check_output_files,
    clear_dead,
    full_disk_explained,
    open_text,
    output_path,
    refuse_inputs,
    replacing,
    replacing_folder,
)
from tests.run.conftest import raising


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


def test_a_folder_appears_whole(tmp_path):
    path, link = tmp_path / "above" / "model", tmp_path / "link"
    with contextlib.suppress(ZeroDivisionError), replacing_folder(path) as folder:
        (folder / "config.json").write_text("{}")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    for text in ("first", "second"):
        with replacing_folder(path) as folder:
            (folder / text).touch()
        assert [one.name for one in path.iterdir()] == [text]
    assert list(path.parent.iterdir()) == [path]
    link.symlink_to(path)
    with replacing_folder(link):
        pass
    assert link.is_symlink()
    assert not list(path.iterdir())


@pytest.mark.parametrize("kind", [replacing, replacing_folder])
def test_what_is_about_to_appear_is_told(tmp_path, kind):
    path, told = tmp_path / "out", []
    token = appearing.set(lambda new, path: told.append((new.exists(), path.exists())))
    with kind(path) as new:
        new.touch()
    appearing.reset(token)
    assert told == [(True, False)]


def test_where_no_file_can_be_locked(tmp_path, monkeypatch):
    """As on some file systems of clusters; nobody knows there what is dead, and it stays."""
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", raising(OSError(errno.ENOSYS, "not implemented")))
    left = tmp_path / ".model.01234567.tmp"
    left.mkdir()
    with replacing_folder(tmp_path / "model") as folder, replacing(folder / "config.json") as path:
        path.touch()
    assert (tmp_path / "model" / "config.json").exists()
    assert {*tmp_path.iterdir()} == {left, tmp_path / "model"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("killed", ["in a file", "in a folder", "between two renamings"])
def test_what_a_killed_process_left_goes_with_the_next(tmp_path, killed):
    path, other = tmp_path / "model", tmp_path / ".model.mine.tmp"
    for folder in (path, other):
        folder.mkdir()
    child = os.fork()
    if not child:  # dies in the block
        with replacing(path) if killed == "in a file" else replacing_folder(path) as new:
            if killed == "between two renamings":
                path.rename(new.with_name("old"))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(list(tmp_path.glob(".model.*.tmp"))) == 2
    with replacing_folder(path):  # One that is at work keeps what it has, and `path` stays whole.
        clear_dead(tmp_path / "mod")
        assert path.is_dir()
        assert len(list(tmp_path.glob(".model.*.tmp"))) == 2
    assert {*tmp_path.iterdir()} == {path, other}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_killed_picture_left_goes_with_the_check_of_the_next(tmp_path):
    path = tmp_path / "map.svg"
    child = os.fork()
    if not child:
        with replacing(path):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len([*tmp_path.iterdir()]) == 1
    check_output_files([str(path)])
    assert not [*tmp_path.iterdir()]


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


def test_text_is_utf8_with_the_line_ends_given(tmp_path, capsys):
    with open_text(str(tmp_path / "out.tsv")) as file:
        file.write("é\n")
    assert (tmp_path / "out.tsv").read_bytes() == "é\n".encode()
    with open_text("-") as file:
        file.write("a\n")
    assert capsys.readouterr().out == "a\n"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_explained(code):
    by_safetensors = SafetensorError(f"IoError(Os {{ code: {code} }}): full (os error {code})")
    for error in (OSError(code, "full"), by_safetensors):
        with (
            pytest.raises(
                OutputError, match=r"^no room to write out\.tsv \(.*full.*\); make room$"
            ),
            full_disk_explained("out.tsv", "; make room"),
        ):
            raise error
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
        (["x" * 240], {}, OutputError, "cannot write x+: .*: File name too long"),
        (["folder"], {"force": True}, OutputError, "it is not a file"),
        (["/dev/null"], {"force": True}, OutputError, "it is not a file; - is standard output"),
        (["/dev/null"], {"streams": False}, OutputError, "it is not a file$"),
        (["there.tsv"], {}, OutputError, "there.tsv exists already; --force replaces it"),
        (["there.tsv", "new.TSV", "-"], {"force": True, "extensions": (".tsv",)}, None, ""),
        (["folder"], {"folders": ["folder"], "force": True}, None, ""),
    ],
)
def test_outputs_are_checked(tmp_path, monkeypatch, outputs, options, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "there.tsv").touch()
    (tmp_path / "link.tsv").symlink_to("nowhere/a.tsv")
    with pytest.raises(error, match=message) if error else contextlib.nullcontext():
        check_output_files(outputs, **options)


def test_a_closed_standard_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="standard output: it is closed"):
        check_output_files(["-"])


@pytest.mark.parametrize(
    "name", ["in.tsv", "./in.tsv", "folder/../in.tsv", "link", "hard", "above"]
)
def test_an_output_that_is_an_input(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "in.tsv"
    source.touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "hard").hardlink_to(source)
    (tmp_path / "above").symlink_to(tmp_path)
    refuse_inputs(["-", "out.tsv", tmp_path / "folder"], [source, "ACGU", None, {"a": "ACGU"}])
    with pytest.raises(OutputError, match=f"{name} (is|holds) the input .*in.tsv: name another"):
        refuse_inputs(["out.tsv", name], [source])


@pytest.mark.parametrize("value", ["", 5, ["a.tsv"]])
def test_what_is_no_path(value):
    with pytest.raises(OptionError, match="pairs must be the path of a file or folder; got "):
        output_path(value, "pairs")
