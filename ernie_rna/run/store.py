"""Results on their way to an output, kept so that a killed run goes on where it stopped.

A run cuts its work into windows, the same ones each time, small enough to be done again:

    with Store(Path("out.npz")) as store:
        store.begin(settings)  # what the results depend on, for JSON
        for number, window in enumerate(windows):
            if not store.has(number):
                store.put(number, {"ids": ids, "scores": scores})
        for part in store.parts(len(windows)):
            ...  # part.texts("ids"), part.get("scores"), or part.array("scores").blocks
        store.remove()

`inference.resumable` does this for whatever is computed of sequences. Beside the output `OUT`
stands a folder `OUT.partial` until the output is complete:

manifest.json        what a run that goes on must agree with
lock                 held by the process that works here
input.fasta          the input, if it can be read only once (standard input, a generator)
part-N.safetensors   the results of window N: whole and on the disk, or not there
output-*             the output while it is put together
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import safe_open

from ernie_rna.run.arrays import Array, write_safetensors
from ernie_rna.run.outputs import OutputError, replacing, write_atomically

# What may stand in the folder, and be deleted with it.
_OURS = ("manifest.json*", "lock", "input.fasta", "part-*", "output-*")
_CHECKSUM = "crc32"  # under this name in a part's metadata
# Arrays are read in blocks of about this size.
_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class Part:
    """The results of a window; nothing of them is in memory."""

    path: Path

    @property
    def nbytes(self) -> int:
        return self.path.stat().st_size

    def get(self, name: str) -> np.ndarray:
        """An array whole."""
        with safe_open(self.path, framework="np") as file:
            array: np.ndarray = file.get_tensor(name)
        return array

    def texts(self, name: str) -> list[str]:
        """A list of texts, as it was put."""
        return self.get(name).tobytes().decode().split("\n")[:-1]

    def array(self, name: str) -> Array:
        """An array in blocks of rows."""
        with safe_open(self.path, framework="np") as file:
            rows = file.get_slice(name)
            code, shape = rows.get_dtype(), tuple(rows.get_shape())  # "F32", of shape (16, 768)
        dtype = np.dtype(f"{code[0].lower()}{int(code[1:]) // 8}")
        return Array(name, dtype, shape, self._blocks(name, dtype, shape))

    def _blocks(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        at_once = max(1, _BLOCK_BYTES // max(1, row_bytes))
        with safe_open(self.path, framework="np") as file:
            rows = file.get_slice(name)
            for start in range(0, shape[0], at_once):
                yield rows[start : min(start + at_once, shape[0])]


def partial_folder(output: Path) -> Path:
    """Where the results of an output are kept until it is whole."""
    return output.with_name(f"{output.name}.partial")


def check_place(output: Path, existing: Sequence[Path], force: bool) -> None:
    """Raise OutputError where no run can begin, or go on, to write an output; as for `Store`."""
    if not output.parent.is_dir():
        raise OutputError(f"cannot write {output}: there is no folder {output.parent}")
    if output.exists() and not output.is_file():
        raise OutputError(f"cannot write {output}: it is no file")
    if partial_folder(output).is_file():
        raise OutputError(
            f"cannot write {output}: {partial_folder(output)}, where unfinished results are kept, "
            "is a file"
        )
    if existing and not force and not partial_folder(output).exists():
        raise OutputError(f"{existing[0]} exists already; --force replaces it")


class Store:
    """The folder beside an output. As a context, it lets go of the lock at the end.

    Args:
        output: the file to be.
        existing: files that make up an output that is there already; None is `output` itself.
        force: whether they may be replaced, and the results of another run dropped.
        leader: False in a process that shares the work of another, which has made the folder.

    Raises:
        OutputError: the output is there already, or another process is at work on it.
        OSError: the folder cannot be made.
    """

    def __init__(
        self,
        output: Path,
        existing: Sequence[Path] | None = None,
        force: bool = False,
        leader: bool = True,
    ):
        self.output = output
        self.folder = partial_folder(output)
        self._force = force
        self._lock: IO[bytes] | None = None
        self._leader = leader
        if not leader:
            return
        if existing is None:
            existing = [output] if output.exists() else []
        check_place(output, existing, force)
        finished = bool(existing) and not force and not self._manifest_path.exists()
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

    def begin(self, manifest: Mapping[str, Any]) -> bool:
        """Say what is computed here; return whether a run that was cut off is gone on with.

        Args:
            manifest: all that the results depend on, as JSON gives it back.

        Raises:
            OutputError: the folder has results of other settings, model or input.
        """
        before = self._read_manifest()
        if before is not None and before != manifest:
            if not self._force:
                raise OutputError(
                    f"{self.folder} has results of a run that was cut off and differs: "
                    f"{_differences(before, manifest)}. Run it as before to go on, or drop its "
                    "results by --force"
                )
            self.invalidate()  # First, since without it the rest counts for nothing.
            before = None
        if before is None:
            self._delete("part-*", "output-*")
            write_atomically(self._manifest_path, json.dumps(manifest, indent=1).encode())
        return before is not None

    def invalidate(self) -> None:
        """Have the next run compute everything anew."""
        self._delete("manifest.json*")

    def has(self, number: int) -> bool:
        """Whether a window's results are there, and not damaged."""
        if not self._path(number).exists():
            return False
        try:
            with safe_open(self._path(number), framework="np") as file:
                checksum = file.metadata()[_CHECKSUM]
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception:  # A damaged header raises nearly anything.
            return False
        return checksum == _checksum(arrays)

    def put(self, number: int, results: Mapping[str, np.ndarray | Sequence[str]]) -> None:
        """Keep a window's results.

        Args:
            results: by name, arrays of at least one dimension, or lists of texts without line
                ends. The names are ours to choose: an id is none, since "__metadata__" may be one.

        Raises:
            OSError: the disk is full; nothing is left of the part.
        """
        arrays = [_as_array(name, values) for name, values in results.items()]
        with replacing(self._path(number)) as path:
            checksum = _checksum({array.name: next(iter(array.blocks)) for array in arrays})
            write_safetensors(path, arrays, {_CHECKSUM: checksum})

    def parts(self, count: int) -> list[Part]:
        """The results of the first windows, once they are all there."""
        return [Part(self._path(number)) for number in range(count)]

    def remove(self) -> None:
        """Delete the folder; files that are not ours keep it."""
        self.invalidate()
        self._delete(*_OURS)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.safetensors"

    def _read_manifest(self) -> Any:
        if not self._manifest_path.exists():
            return None
        try:
            return dict(json.loads(self._manifest_path.read_bytes()))
        except (ValueError, TypeError, RecursionError) as error:
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
        file = open(self.folder / "lock", "wb")  # noqa: SIM115  # closed with this
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise OutputError(f"another process is working on {self.output}") from error
        return file


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """The crc32 of arrays with their names, types and shapes."""
    crc = 0
    for name, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{name} {array.dtype} {array.shape}\n".encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(array).tobytes(), crc)
    return f"{crc:08x}"


def _as_array(name: str, values: np.ndarray | Sequence[str]) -> Array:
    """An array as it is; texts in UTF-8, each followed by a newline."""
    if not isinstance(values, np.ndarray):
        if any("\n" in text for text in values):
            raise ValueError(f"a text of {name} has a line end in it")
        values = np.frombuffer("".join(f"{text}\n" for text in values).encode(), np.uint8)
    return Array(name, values.dtype, values.shape, [values])


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
