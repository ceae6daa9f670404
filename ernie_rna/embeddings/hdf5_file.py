"""A file for HDF5 to write to that does not crash when the disk is full."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ernie_rna.files.atomic import write_all


class ForgivingFile(io.RawIOBase):
    """Keeps in memory what cannot be written.

    When a write fails, HDF5 cannot close its file and takes the process down with it. So every
    write here succeeds, what is read agrees with it, and whoever writes has to call
    `raise_error` now and then.
    """

    def __init__(self, path: Path):
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115  # closed with this
        self._position = 0
        self._unwritten: list[tuple[int, bytes]] = []
        self._error: OSError | None = None

    def raise_error(self) -> None:
        """Raise the first error of a write, if there was one."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._file.close()
        super().close()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            self._position = offset
        elif whence == io.SEEK_CUR:
            self._position += offset
        else:
            self._position = self._size() + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        start, stop = self._position, min(self._position + len(view), self._size())
        if stop <= start:
            return 0
        view[: stop - start] = bytes(stop - start)
        self._file.seek(start)
        self._file.readinto(view[: stop - start])
        for at, data in self._unwritten:
            first, last = max(at, start), min(at + len(data), stop)
            if first < last:
                view[first - start : last - start] = data[first - at : last - at]
        self._position = stop
        return stop - start

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self._error is None:
            try:
                self._file.seek(self._position)
                write_all(self._file, view)
            except OSError as error:
                self._error = error
        if self._error is not None:
            self._unwritten.append((self._position, bytes(view)))
        self._position += len(view)
        return len(view)

    def _size(self) -> int:
        ends = [at + len(data) for at, data in self._unwritten]
        return max(self._file.seek(0, io.SEEK_END), *ends, 0)
