"""Outputs that are whole under their name, or not there: neither a kill nor a full disk leaves
half of one behind. And what keeps an output from being written, found before any work.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from safetensors import SafetensorError

from ernie_rna.run.locks import locked

STANDARD_OUTPUT = "-"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Bytes of the name of an output: file systems take 255, and the names of what is written first, of
# shards and their index are longer.
_LONGEST_NAME = 230


class OutputError(RuntimeError):
    """The output cannot be written, or not with these settings; the message says what to do."""


def behind_link(path: Path) -> Path:
    """Where a symbolic link leads, even to nothing; any other path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes `path` once the block has ended well.

    Until then `path` stays as it was; if the block raises, what it wrote is deleted. The name is
    no other's: of several processes that write the same file, the last one's is there, whole.
    """
    path = behind_link(path)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def replacing_folder(path: Path, force: bool = True) -> Iterator[Path]:
    """A folder to write to, which takes the place of `path` once the block has ended well.

    Until then `path` stays as it was; if the block raises, what it wrote is deleted, and so are
    the folders above that were made for it. What a process leaves that is killed in it, the next
    one deletes.

    Args:
        force: whether to replace what is there by then, unless that is an empty folder.

    Raises:
        OutputError: there is something else, which another process has written meanwhile.
    """
    path = behind_link(path)
    made = [folder for folder in path.absolute().parents if not folder.exists()]
    hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    # Older transformers (4.41) import a model's code by the folder's name, which may hold no dot.
    new, old = hidden / "new", hidden / "old"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_dead(path)
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):  # A file system may have no locks.
                held.enter_context(locked(hidden / "lock", wait=True))
            new.mkdir(parents=True)
            yield new
            _take_place(new, path, old, force)
    finally:  # also at Ctrl-C
        shutil.rmtree(hidden, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):  # It is in use.
                folder.rmdir()


def _clear_dead(path: Path) -> None:
    """Delete what processes that were killed have left in `replacing_folder`, by their locks."""
    if os.name != "posix":  # no locks
        return
    for hidden in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.tmp"):
        with contextlib.suppress(OSError), locked(hidden / "lock") as lock:
            if lock is None:  # It is being written.
                continue
            if not path.exists() and (hidden / "old").exists():  # killed between two renamings
                os.replace(hidden / "old", path)
            shutil.rmtree(hidden, ignore_errors=True)


def _take_place(new: Path, path: Path, old: Path, force: bool) -> None:
    try:
        if path.exists():
            os.replace(path, old)
        if not force and old.exists() and not (old.is_dir() and not any(old.iterdir())):
            raise OutputError(
                f"{path} was written by another process in the meantime; it was not changed"
            )
        os.replace(new, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise


def clear_unfinished(path: Path) -> None:
    """Delete what a process that was killed has left of `path`; nobody may be writing it now."""
    path = behind_link(path)
    for name in (path.name, f".{path.name}", f"{path.name}.index.json"):
        for left in path.parent.glob(f"{glob.escape(name)}.{'[0-9a-f]' * 8}.tmp"):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can do that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def full_disk_explained(output: str | Path, way_out: str = "") -> Iterator[None]:
    """Turn "no space left" and its kin, which name no file, into an OutputError that does."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if system_code(error) not in _FULL:
            raise
        raise OutputError(f"no room to write {output} ({error}){way_out}") from error


def system_code(error: Exception) -> int | None:
    """The number of what the system has refused, which safetensors writes into a text."""
    found = re.search(r"\(os error ([0-9]+)\)", str(error))
    return int(found[1]) if found else getattr(error, "errno", None)


@contextlib.contextmanager
def open_text(output: str) -> Iterator[IO[str]]:
    """A text file that appears under its name once the block has ended well; "-" is stdout."""
    if output == STANDARD_OUTPUT:
        yield sys.stdout
        sys.stdout.flush()
        return
    with (
        replacing(Path(output)) as path,
        open(path, "w", encoding="utf-8", newline="\n") as file,
    ):
        yield file


def check_output_files(
    outputs: Sequence[str],
    force: bool = False,
    folders: Sequence[str] = (),
    extensions: Sequence[str] = (),
    streams: bool = True,
) -> None:
    """Raise what would keep files from being written at the end.

    Args:
        outputs: paths.
        force: whether files that exist may be replaced.
        folders: those of the outputs that may be a folder that exists.
        extensions: of which every file must have one; () is any.
        streams: whether "-" is standard output.

    Raises:
        ValueError: a path is named twice, or has another extension.
        OutputError: there is such a file and `force` is False, what is there is no file, or there
            is no folder for it that can be written to; a name is too long; standard output is
            closed.
    """
    places = [Path(output).resolve() for output in outputs]
    for output, place in zip(outputs, places, strict=True):
        path = Path(output)
        if places.count(place) > 1:
            raise ValueError(f"{describe([output])} is named for two outputs")
        if output == STANDARD_OUTPUT and streams:
            if sys.stdout is None:
                raise OutputError("cannot write to standard output: it is closed")
            continue
        if extensions and path.suffix.lower() not in extensions:
            raise ValueError(f"{output}: the extension must be {' or '.join(extensions)}")
        check_name(path)
        folder = behind_link(path).parent
        if not folder.is_dir():
            raise OutputError(f"cannot write {output}: there is no folder {folder}")
        try:
            tempfile.TemporaryFile(dir=folder).close()  # Permissions alone do not tell.
        except OSError as error:
            raise OutputError(f"cannot write {output}: {folder}: {error.strerror}") from error
        if path.exists() and not (path.is_file() or (output in folders and path.is_dir())):
            hint = "; - is standard output" * streams
            raise OutputError(f"cannot write {output}: it is not a file{hint}")
        if path.exists() and not force:
            raise OutputError(f"{output} exists already; --force replaces it")


def check_name(path: Path) -> None:
    """Raise OutputError for a name that is too long to be written to."""
    size = len(os.fsencode(path.name))
    if size > _LONGEST_NAME:
        raise OutputError(
            f"cannot write {path.name[:40]}...: its name has {size} bytes, and {_LONGEST_NAME} at "
            "most leave room for those of unfinished files"
        )


def describe(outputs: Sequence[str]) -> str:
    """The outputs in words."""
    names = {STANDARD_OUTPUT: "standard output"}
    return ", ".join(names.get(output, output) for output in outputs)
