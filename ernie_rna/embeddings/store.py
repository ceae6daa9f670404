"""Results on their way to an output, kept so that a killed run goes on where it stopped.

Beside the output `OUT` stands a folder `OUT.partial` until the output is complete:

manifest.json   what the output will say of itself (settings, model, versions, input), and what
                a run that goes on must agree with
lock            held by the process that works here
input.fasta     the input, if it can be read only once (standard input, a generator)
part-N.*        the vectors of window N, see `parts`
output-*        the output while it is put together
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ernie_rna.embeddings.columns import Column, Layout
from ernie_rna.embeddings.parts import FilePart, WindowRows, column_offsets, read_blocks
from ernie_rna.files.atomic import OutputError, open_unbuffered, write_atomically
from ernie_rna.sequences.batches import Window

# What may stand in the folder, and be deleted with it.
_OURS = ("manifest.json*", "lock", "input.fasta", "part-*", "output-*")


@dataclass(frozen=True)
class Part:
    """The finished vectors of a window."""

    stem: Path
    layout: Layout
    records: int
    nucleotides: int

    def ids_and_lengths(self) -> tuple[list[str], list[int]]:
        saved = json.loads(self.stem.with_suffix(".json").read_bytes())
        return saved["ids"], saved["lengths"]

    def blocks(self, column: Column) -> Iterator[np.ndarray]:
        """The vectors of a column, in blocks (some rows, hidden)."""
        offsets, _ = column_offsets(self.layout, self.records, self.nucleotides)
        rows = self.layout.rows(column, self.records, self.nucleotides)
        return read_blocks(self.stem.with_suffix(".values"), offsets[column], rows, self.layout)

    @property
    def nbytes(self) -> int:
        return self.layout.nbytes(self.records, self.nucleotides)


class Store:
    """The folder beside an output. As a context, it lets go of the lock at the end.

    Args:
        output: the file to be.
        existing: files that make up an output that is there already.
        force: whether they may be replaced, and the results of another run dropped.
        leader: False in a process that shares the work of another, which has made the folder.

    Raises:
        OutputError: the output is there already, or another process is at work on it.
        OSError: the folder cannot be made.
    """

    def __init__(
        self, output: Path, existing: list[Path], force: bool = False, leader: bool = True
    ):
        self.output = output
        self.folder = output.with_name(f"{output.name}.partial")
        self._force = force
        self._lock: IO[bytes] | None = None
        self._leader = leader
        if not leader:
            return
        if not output.parent.is_dir():
            raise OutputError(f"cannot write {output}: there is no folder {output.parent}")
        finished = bool(existing) and not force and not self._manifest_path.exists()
        if not finished or self.folder.exists():
            self.folder.mkdir(exist_ok=True)
            self._lock = self._take_lock()
        if finished:
            # A run may have been killed as the last thing that it did was to clear up.
            self.__exit__()
            raise OutputError(f"{existing[0]} exists already; --force replaces it")

    @property
    def input_path(self) -> Path:
        """Where the input is kept if it can be read only once."""
        return self.folder / "input.fasta"

    @property
    def _manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        if self._leader and self.folder.exists() and not self._manifest_path.exists():
            self.remove()  # Nothing has been computed.
        if self._lock is not None:
            self._lock.close()

    def begin(self, metadata: Mapping[str, Any]) -> bool:
        """Say what is computed here; return whether a run that was cut off is gone on with.

        Raises:
            OutputError: the folder has results of other settings, model or input.
        """
        before = self._read_manifest()
        if before is not None and before != metadata:
            if not self._force:
                raise OutputError(
                    f"{self.folder} has results of a run that was cut off and differs: "
                    f"{_differences(before, metadata)}. Run it as before to go on, or drop its "
                    "results by --force"
                )
            self._delete("manifest.json*")  # First, since without it the rest counts for nothing.
            self._delete("part-*", "output-*")
            before = None
        if before is None:
            self._delete("part-*", "output-*")
            write_atomically(self._manifest_path, json.dumps(metadata, indent=1).encode())
        return before is not None

    def invalidate(self) -> None:
        """Have the next run compute everything anew."""
        self._delete("manifest.json*")

    def has(self, number: int) -> bool:
        """Whether all of a window is computed."""
        return self._stem(number).with_suffix(".values").exists()

    def open_part(self, window: Window, layout: Layout) -> FilePart:
        return FilePart(WindowRows(window, layout), self._stem(window.number))

    def part(self, number: int, layout: Layout) -> Part:
        stem = self._stem(number)
        lengths = json.loads(stem.with_suffix(".json").read_bytes())["lengths"]
        return Part(stem, layout, len(lengths), sum(lengths))

    def remove(self) -> None:
        """Delete the folder; files that are not ours keep it."""
        self._delete("manifest.json*")
        self._delete(*_OURS)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _stem(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}"

    def _read_manifest(self) -> Any:
        if not self._manifest_path.exists():
            return None
        try:
            return json.loads(self._manifest_path.read_bytes())
        except ValueError as error:
            raise OutputError(
                f"{self._manifest_path} is damaged; delete {self.folder} and start anew"
            ) from error

    def _delete(self, *patterns: str) -> None:
        for pattern in patterns:
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)

    def _take_lock(self) -> IO[bytes] | None:
        try:
            import fcntl
        except ImportError:  # Windows
            return None
        file = open_unbuffered(self.folder / "lock", 0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise OutputError(f"another process is working on {self.output}") from error
        return file


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What two nested mappings disagree in, in words."""
    old, new = dict(_flatten(before)), dict(_flatten(now))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in names)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
