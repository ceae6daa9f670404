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
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import IO

from safetensors import SafetensorError

from ernie_rna.run.locks import locked

STANDARD_OUTPUT = "-"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Called with what was written, and the name that it is about to get.
appearing: ContextVar[Callable[[Path, Path], object]] = ContextVar(
    "appearing", default=lambda written, path: None
)


class OutputError(RuntimeError):
    """The output cannot be written, or not with these settings; the message says what to do."""


def exists_already(path: str | Path) -> OutputError:
    """What to raise where something else would be replaced."""
    return OutputError(f"{path} exists already; --force replaces it")


def behind_link(path: Path) -> Path:
    """Where a symbolic link leads, even to nothing; any other path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes `path` once the block has ended well.

    Until then `path` stays as it was; if the block raises, what it wrote is deleted, and what is
    left by a process that is killed in it by `clear_dead`. The name is no other's: of several
    processes that write the same file, the last one's is there, whole.
    """
    path = behind_link(path)
    with _hidden(path) as folder:
        new = folder / path.name
        yield new
        with open(new, "rb+") as file:
            os.fsync(file.fileno())
        appearing.get()(new, path)
        os.replace(new, path)
    if os.name == "posix":  # The name is on the disk as well.
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def replacing_folder(path: Path, force: bool = True) -> Iterator[Path]:
    """A folder to write to, which takes the place of `path` as in `replacing`.

    The folders above are made, and deleted if the block raises. What a process leaves that is
    killed in it, the next one deletes.

    Args:
        force: whether to replace what is there by then, unless that is an empty folder.

    Raises:
        OutputError: there is something else, which another process has written meanwhile.
    """
    path = behind_link(path)
    made = [folder for folder in path.absolute().parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_dead(path)
        with _hidden(path) as folder:
            # transformers 4.41 imports a model's code by the folder's name, which may hold no dot.
            new, old = folder / "new", folder / "old"
            new.mkdir()
            yield new
            appearing.get()(new, path)
            if path.exists():
                os.replace(path, old)
            if not force and old.exists() and not (old.is_dir() and not any(old.iterdir())):
                raise OutputError(
                    f"{path} was written by another process in the meantime; it was not changed"
                )
            os.replace(new, path)
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # It is in use.
                folder.rmdir()


@contextlib.contextmanager
def _hidden(path: Path) -> Iterator[Path]:
    """A folder beside `path` to write it in, locked as long as this lasts, and then deleted."""
    folder = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        folder.mkdir()
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):  # A file system may have no locks.
                held.enter_context(locked(folder / "lock", wait=True))
            yield folder
    finally:  # also at Ctrl-C
        _give_up(folder)


def clear_dead(path: Path) -> None:
    """Delete what processes have left that were killed as they wrote `path`, or beside it what has
    a name that begins so; by their locks, so that those that live are left alone."""
    if os.name != "posix":  # no locks
        return
    path = behind_link(path)
    for folder in path.parent.glob(f".{glob.escape(path.name)}*.{'[0-9a-f]' * 8}.tmp"):
        with contextlib.suppress(OSError), locked(folder / "lock") as lock:
            if lock is not None:
                _give_up(folder)


def _give_up(folder: Path) -> None:
    """Delete a hidden folder, and put back what was about to be replaced from it."""
    old, path = folder / "old", folder.with_name(folder.name[1:].rsplit(".", 2)[0])
    with contextlib.suppress(OSError):
        if old.exists() and not path.exists():  # ended between two renamings
            os.replace(old, path)
    shutil.rmtree(folder, ignore_errors=True)


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
    """Raise what would keep files from being written at the end; what a killed process has left of
    them is cleared.

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
        target = behind_link(path)
        folder = target.parent
        if not folder.is_dir():
            raise OutputError(f"cannot write {output}: there is no folder {folder}")
        clear_dead(target)
        try:  # Permissions alone do not tell, nor how long a name may be.
            with _hidden(target.with_name(f"{target.name}.index.json")):
                pass
        except OSError as error:
            raise OutputError(f"cannot write {output}: {folder}: {error.strerror}") from error
        if path.exists() and not (path.is_file() or (output in folders and path.is_dir())):
            hint = "; - is standard output" * streams
            raise OutputError(f"cannot write {output}: it is not a file{hint}")
        if path.exists() and not force:
            raise exists_already(output)


def describe(outputs: Sequence[str]) -> str:
    """The outputs in words."""
    return ", ".join("standard output" if one == STANDARD_OUTPUT else one for one in outputs)
