"""Files of several compressed streams, one behind the other."""

import bz2
import io
import lzma
from collections.abc import Callable, Mapping
from typing import IO, Any

_CHUNK = 1 << 16
# How bzip2 and xz files begin.
_STREAMS: Mapping[bytes, Callable[[], Any]] = {
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\x00": lzma.LZMADecompressor,
}


def compressed_streams(file: Any) -> io.RawIOBase | None:
    """What an open bzip2 or xz file holds, decompressed; None for any other."""
    start = file.peek(6) if hasattr(file, "peek") else b""
    for magic, decompressor in _STREAMS.items():
        if start.startswith(magic):
            return _Streams(file, decompressor)
    return None


class _Streams(io.RawIOBase):
    """What is in the streams of a bzip2 or xz file, of which there may be several.

    Python's own readers take whatever stands behind the first for the end of the file.
    """

    def __init__(self, file: IO[bytes], decompressor: Callable[[], Any]):
        self._file, self._new = file, decompressor
        self._stream = decompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        while not data:
            given = b""
            if self._stream.eof:
                given = self._next_stream()
                if not given:
                    return 0
                self._stream = self._new()
            elif self._stream.needs_input:
                given = self._file.read(_CHUNK)
                if not given:
                    raise EOFError("it ends within a compressed stream")
            data = self._stream.decompress(given, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _next_stream(self) -> bytes:
        """The beginning of what follows a stream; zeros before it are padding."""
        given = self._stream.unused_data
        while not (given := given.lstrip(b"\0")):
            given = self._file.read(_CHUNK)
            if not given:
                break
        return given
