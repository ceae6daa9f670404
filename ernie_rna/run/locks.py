"""Files that one process at a time holds; when it ends, however that is, the system frees them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[IO[bytes] | None]:
    """A file that is locked as long as this lasts; None where another process holds it.

    Its folder is made if need be. A process that ends deletes lock and folder while it holds the
    lock; whoever waited for it gets a lock on a file that is no longer there, and tries again.
    """
    while True:
        path.parent.mkdir(exist_ok=True)
        try:
            file = open(path, "ab")  # noqa: SIM115  # closed below
        except FileNotFoundError:  # The folder has just been deleted.
            continue
        with file:
            if not _acquire(file, wait):
                yield None
                return
            if _is_at(file, path):
                yield file
                return


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is the one that is there now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _acquire(file: IO[bytes], wait: bool) -> bool:
    """Lock a file, if no other process holds it or this one waits; whether that has succeeded."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
