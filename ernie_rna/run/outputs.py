"""Outputs that are whole under their name, or not there: neither a kill nor a full disk leaves
half of one behind. And what keeps an output from being written, found before any work.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

STANDARD_OUTPUT = "-"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
def replacing_folder(path: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of `path` once the block has ended well."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        replace_folder(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def replace_folder(folder: Path, target: Path) -> None:
    """Put a finished folder in its place; what was there stays until that has succeeded."""
    old = folder.with_name(f"{folder.name}.old")
    try:
        if target.exists():
            os.replace(target, old)
        os.replace(folder, target)
    except BaseException:  # also at Ctrl-C
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


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
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OutputError(f"no room to write {output} ({error}){way_out}") from error


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
) -> None:
    """Raise what would keep files from being written at the end.

    Args:
        outputs: paths; "-" is standard output.
        force: whether files that exist may be replaced.
        folders: those of the outputs that may be a folder that exists.
        extensions: of which every file must have one; () is any.

    Raises:
        ValueError: a path is named twice, or has another extension.
        OutputError: there is such a file and `force` is False, what is there is no file, or there
            is no folder for it; standard output is closed.
    """
    places = [Path(output).resolve() for output in outputs]
    for output, place in zip(outputs, places, strict=True):
        path = Path(output)
        if places.count(place) > 1:
            raise ValueError(f"{describe([output])} is named for two outputs")
        if output == STANDARD_OUTPUT:
            if sys.stdout is None:
                raise OutputError("cannot write to standard output: it is closed")
            continue
        if extensions and path.suffix.lower() not in extensions:
            raise ValueError(f"{output}: the extension must be {' or '.join(extensions)}")
        if not path.parent.is_dir():
            raise OutputError(f"cannot write {output}: there is no folder {path.parent}")
        if path.exists() and not (path.is_file() or (output in folders and path.is_dir())):
            raise OutputError(f"cannot write {output}: it is no file; - is standard output")
        if path.exists() and not force:
            raise OutputError(f"{output} exists already; --force replaces it")


def describe(outputs: Sequence[str]) -> str:
    """The outputs in words."""
    names = {STANDARD_OUTPUT: "standard output"}
    return ", ".join(names.get(output, output) for output in outputs)
