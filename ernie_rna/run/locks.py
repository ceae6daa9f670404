"""Lock files that one process at a time holds; the system frees them however the process ends."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

# The answers of network file systems without locks, such as Lustre mounted without `flock`.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[IO[bytes] | None]:
    """Hold a lock file for the duration of the block; yield None if another process holds it.

    The folder is created if necessary. A process that finishes may delete lock and folder while it
    holds the lock; a process that waited then holds a file that is gone, and tries again.
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
                on_disk = os.stat(path)
            except FileNotFoundError:
                continue
            if os.path.samestat(os.fstat(file.fileno()), on_disk):
                yield file
                return


def _acquire(file: IO[bytes], wait: bool) -> bool:
    """Lock a file and return True; return False if another process holds it, unless `wait`."""
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
