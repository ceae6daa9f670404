"""Files that one process at a time holds; when it ends, however that is, the system frees them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

# What some network file systems answer, such as Lustre without its option flock.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


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
            try:
                there = os.stat(path)
            except FileNotFoundError:
                continue
            if os.path.samestat(os.fstat(file.fileno()), there):
                yield file
                return


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
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        reason = "this file system has no locks (flock), which a run needs; write to another one"
        raise OSError(error.errno, reason, file.name) from error
    return True
