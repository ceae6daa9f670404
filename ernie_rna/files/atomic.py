"""Writing files so that neither a kill nor a full disk leaves half of one behind."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class OutputError(RuntimeError):
    """The output cannot be written, or not with these settings; the message says what to do."""


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
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def behind_link(path: Path) -> Path:
    """Where a symbolic link leads, though nothing be there yet; any other path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


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
    """Put a finished folder in its place; what stood there stays until that has succeeded."""
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


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file: afterwards it has all of the data, or is as it was before."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def sync(path: Path) -> None:
    """Have a file's content on the disk, not only in memory."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can do that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def reserve(path: Path, size: int) -> None:
    """Have the disk keep room for a file of so many bytes, and let it be that long.

    Where the system cannot do that, whether there is room is only looked up.

    Raises:
        OSError: there is none.
    """
    with open(path, "ab") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except (AttributeError, OSError) as error:
            if getattr(error, "errno", None) in _FULL:
                raise
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_all(file: IO[bytes], data: bytes | memoryview) -> None:
    """Write all of the data to a file without buffer, whose `write` may take a part only."""
    view = memoryview(data)
    while len(view):
        view = view[file.write(view) :]


@contextlib.contextmanager
def full_disk_explained(output: str | Path, way_out: str = "") -> Iterator[None]:
    """Turn "no space left" and its kin, which name no file, into an OutputError that does."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OutputError(f"no room to write {output} ({error}){way_out}") from error
