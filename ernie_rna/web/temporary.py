"""The one folder that the page writes to: emptied as time goes by, and removed in the end."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

# A result can be downloaded for an hour, or less if others need the room.
SECONDS, BYTES = 3600.0, 1 << 30
_BETWEEN = 30.0


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for Gradio's uploads and our results, swept every half a minute."""
    with tempfile.TemporaryDirectory(prefix="ernie-rna-web-", ignore_cleanup_errors=True) as name:
        stop = threading.Event()
        thread = threading.Thread(target=_sweep_often, args=(Path(name), stop), daemon=True)
        thread.start()
        before = os.environ.get("GRADIO_TEMP_DIR")
        os.environ["GRADIO_TEMP_DIR"] = name
        try:
            yield Path(name).resolve()
        finally:
            stop.set()
            thread.join()
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


def _sweep_often(folder: Path, stop: threading.Event) -> None:
    while not stop.wait(_BETWEEN):
        sweep(folder)


def sweep(folder: Path, seconds: float = SECONDS, size: int = BYTES) -> None:
    """Remove files that are older than so many seconds, and the oldest while there is too much."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
    total = sum(bytes for _, bytes, _ in found)
    oldest_allowed = time.time() - seconds
    for modified, bytes, path in sorted(found):
        if modified >= oldest_allowed and total <= size:
            break
        path.unlink(missing_ok=True)
        total -= bytes
        with contextlib.suppress(OSError):  # Others are in it, or it is the folder itself.
            if path.parent != folder:
                path.parent.rmdir()
