"""Files and folders that appear under their names only when they are complete."""

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
from tests.run.conftest import names, raising

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def test_of_two_writers_the_last_to_finish_wins(tmp_path):
    path = tmp_path / "out.tsv"
    with replacing(path) as slow:
        slow.write_text("slow")
        with replacing(path) as fast:
            fast.write_text("fast")
        assert path.read_text() == "fast"
        with slow.open("a") as file:
            file.write("er")
    assert path.read_text() == "slower"
    assert names(tmp_path) == ["out.tsv"]


def test_an_interrupted_writer_changes_nothing(tmp_path):
    """Nor does a writer touch files with names like those of its temporary file."""
    before = dict.fromkeys(("out.tsv", "out.tsv.tmp", ".out.tsv.tmp"), "before")
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    with contextlib.suppress(ZeroDivisionError), replacing(tmp_path / "out.tsv") as path:
        path.write_text("half")
        raise ZeroDivisionError
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
    with replacing(tmp_path / "out.tsv") as path:
        path.write_text("new")
    after = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert after == {**before, "out.tsv": "new"}


def test_a_folder_appears_complete(tmp_path):
    path, link = tmp_path / "above" / "model", tmp_path / "link"
    with contextlib.suppress(ZeroDivisionError), replacing_folder(path) as folder:
        (folder / "config.json").write_text("{}")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    for text in ("first", "second"):
        with replacing_folder(path) as folder:
            (folder / text).touch()
        assert names(path) == [text]
    assert names(path.parent) == ["model"]
    link.symlink_to(path)
    with replacing_folder(link):
        pass
    assert link.is_symlink()
    assert not list(path.iterdir())


@pytest.mark.parametrize("writer", [replacing, replacing_folder])
def test_a_callback_runs_just_before_the_output_appears(tmp_path, writer):
    path, calls = tmp_path / "out", []
    token = appearing.set(lambda new, path: calls.append((new.exists(), path.exists())))
    with writer(path) as new:
        new.touch()
    appearing.reset(token)
    assert calls == [(True, False)]


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    """Some clusters have one. Nothing shows there whether a writer is dead, so its folder stays."""
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", raising(OSError(errno.ENOSYS, "not implemented")))
    left = tmp_path / ".model.01234567.tmp"
    left.mkdir()
    with replacing_folder(tmp_path / "model") as folder, replacing(folder / "config.json") as path:
        path.touch()
    assert (tmp_path / "model" / "config.json").exists()
    assert {*tmp_path.iterdir()} == {left, tmp_path / "model"}


def write_and_be_killed(writer, path, between_renames=False):
    """Write in a child process that is killed before the output appears."""
    child = os.fork()
    if not child:
        with writer(path) as new:
            if between_renames:
                path.rename(new.with_name("old"))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


@needs_fork
@pytest.mark.parametrize(
    ("writer", "between_renames"),
    [(replacing, False), (replacing_folder, False), (replacing_folder, True)],
)
def test_the_next_writer_clears_what_a_killed_one_left(tmp_path, writer, between_renames):
    path, other = tmp_path / "model", tmp_path / ".model.mine.tmp"
    path.mkdir()
    other.mkdir()
    write_and_be_killed(writer, path, between_renames)
    assert len(list(tmp_path.glob(".model.*.tmp"))) == 2
    with replacing_folder(path):
        assert path.is_dir()
        assert len(list(tmp_path.glob(".model.*.tmp"))) == 2
        clear_dead(tmp_path / "mod")  # It leaves the folder of a live writer.
        assert len(list(tmp_path.glob(".model.*.tmp"))) == 2
    assert {*tmp_path.iterdir()} == {path, other}


@needs_fork
def test_the_check_of_outputs_clears_what_a_killed_writer_left(tmp_path):
    path = tmp_path / "map.svg"
    write_and_be_killed(replacing, path)
    assert len(names(tmp_path)) == 1
    check_output_files([str(path)])
    assert names(tmp_path) == []


@pytest.mark.parametrize(("renames", "left"), [(1, "old"), (2, "new")])
def test_an_interruption_after_a_rename_loses_nothing(tmp_path, monkeypatch, renames, left):
    path, replace, done = tmp_path / "model", os.replace, []
    path.mkdir()
    (path / "old").touch()

    def interrupted(*paths):
        replace(*paths)
        done.append(paths)
        if len(done) == renames:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing_folder(path) as folder:
        (folder / "new").touch()
    assert [*tmp_path.rglob("*")] == [path, path / left]


def test_text_is_utf8_with_unchanged_line_ends(tmp_path, capsys):
    with open_text(str(tmp_path / "out.tsv")) as file:
        file.write("é\n")
    assert (tmp_path / "out.tsv").read_bytes() == "é\n".encode()
    with open_text("-") as file:
        file.write("a\n")
    assert capsys.readouterr().out == "a\n"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_explained(code):
    of_safetensors = SafetensorError(f"IoError(Os {{ code: {code} }}): full (os error {code})")
    message = r"^no room to write out\.tsv \(.*full.*\); make room$"
    for error in (OSError(code, "full"), of_safetensors):
        with (
            pytest.raises(OutputError, match=message),
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
        (["old.tsv"], {}, OutputError, "old.tsv exists already; --force replaces it"),
        (["old.tsv", "new.TSV", "-"], {"force": True, "extensions": (".tsv",)}, None, ""),
        (["folder"], {"folders": ["folder"], "force": True}, None, ""),
    ],
)
def test_outputs_are_checked(tmp_path, monkeypatch, outputs, options, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "old.tsv").touch()
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
