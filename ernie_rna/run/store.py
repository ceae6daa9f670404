"""The results of a run that is not finished, kept beside its output so that it can be resumed.

A run cuts its input into chunks of records, the same ones each time. The results of chunk N are a
part, a safetensors file that is whole and on the disk or not there. Beside the output OUT is a
folder OUT.partial until the output is complete:

manifest.json        what the results depend on; a run that resumes must agree with it
lock                 held by the processes that work here: shared, or alone to begin and to end
lock-I-of-N          held by the process that computes the I-th of N shares
input.fasta          the input, if it can be read only once (standard input, a generator)
part-N.safetensors   the results of chunk N
checkpoint-N/        of fine-tuning, the state of training after step N
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from ernie_rna.options import Share
from ernie_rna.run.outputs import OutputError, replacing

# Results, and all that may be in the folder and is deleted with it.
_RESULTS = ("part-*", "checkpoint-*")
_OURS = ("manifest.json*", *_RESULTS, "input.fasta*", "lock-*", "lock")
# The one entry of a part's metadata, JSON (safetensors writes several in any order), and in it
# the checksum.
METADATA = "ernie_rna"
_CHECKSUM = "crc32"

# By name, arrays of at least one dimension, or lists of texts without line ends.
Results = Mapping[str, np.ndarray | Sequence[str]]


@dataclass(frozen=True)
class Part:
    """The results of a chunk on the disk."""

    path: Path

    def get(self, name: str) -> np.ndarray:
        """An array."""
        with safe_open(self.path, framework="np") as file:
            array: np.ndarray = file.get_tensor(name)
        return array

    def shape(self, name: str) -> tuple[int, ...]:
        """Of an array."""
        with safe_open(self.path, framework="np") as file:
            return tuple(file.get_slice(name).get_shape())

    def texts(self, name: str) -> list[str]:
        """A list of texts, as it was put."""
        return self.get(name).tobytes().decode().split("\n")[:-1]

    def is_whole(self) -> bool:
        """Whether the results are there, and not damaged."""
        try:
            with safe_open(self.path, framework="np") as file:
                checksum = json.loads(file.metadata()[METADATA])[_CHECKSUM]
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception:  # A damaged header raises nearly anything.
            return False
        return checksum == _checksum(arrays)


def partial_folder(output: Path) -> Path:
    """Where the results of an output are kept until it is whole."""
    return output.with_name(f"{output.name}.partial")


def check_place(output: Path, existing: Sequence[Path], force: bool) -> None:
    """Raise OutputError where no run can begin, or be resumed, to write an output.

    Args:
        existing: files that make up an output that is there already.
        force: whether they may be replaced.
    """
    folder = partial_folder(output)
    if not output.parent.is_dir():
        raise OutputError(f"cannot write {output}: there is no folder {output.parent}")
    if folder.is_file():
        raise OutputError(
            f"cannot write {output}: {folder}, where unfinished results are kept, is a file"
        )
    # A run that was killed while it cleared up has left a folder without a manifest.
    if existing and not force and not (folder / "manifest.json").exists():
        raise OutputError(f"{existing[0]} exists already; --force replaces it")


class Store:
    """The folder beside an output. As a context, it releases its locks at the end.

    Args:
        output: the file to be.
        share: what this process computes.
        force: whether results of other settings may be dropped.

    Raises:
        OutputError: another process computes the same share.
        OSError: the folder cannot be made.
    """

    def __init__(self, output: Path, share: Share, force: bool = False):
        self.output = output
        self.folder = partial_folder(output)
        self._force = force
        self._locks = contextlib.ExitStack()
        busy = OutputError(f"another process is working on {output}")
        with contextlib.ExitStack() as stack:
            self._shared = stack.enter_context(_lock(self.folder / "lock", shared=True))
            if self._shared is None:
                raise busy
            name = f"lock-{share.index + 1}-of-{share.count}"
            if stack.enter_context(_lock(self.folder / name)) is None:
                raise busy
            self._locks = stack.pop_all()

    @property
    def input_path(self) -> Path:
        """Where the input is kept if it can be read only once."""
        return self.folder / "input.fasta"

    @property
    def begun(self) -> bool:
        """Whether there is a manifest; it goes first when the output is complete."""
        return self._manifest_path.exists()

    @property
    def _manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        # Nothing has been computed, and the folder is not another run's by now.
        if not self.begun and _is_at(self._shared, self.folder / "lock"):
            with contextlib.suppress(OutputError), self.alone():
                self.remove()
        self._locks.close()

    @contextlib.contextmanager
    def alone(self, wait: bool = False) -> Iterator[None]:
        """Hold the folder alone, as long as this lasts.

        Args:
            wait: whether to wait for the others, or to raise.

        Raises:
            OutputError: other processes work here.
        """
        if not _change(self._shared, shared=False, wait=wait):
            _change(self._shared, shared=True, wait=True)
            raise OutputError(f"another process is working on {self.output}")
        try:
            yield
        finally:
            _change(self._shared, shared=True, wait=True)

    def begin(self, manifest: Mapping[str, Any]) -> bool:
        """Say what is computed here; return whether results of an earlier run are there.

        Args:
            manifest: all that the results depend on, as JSON gives it back.

        Raises:
            OutputError: the folder has results of other settings, model or input.
        """
        before = self._read_manifest()
        if before == manifest:
            return any(any(self.folder.glob(pattern)) for pattern in _RESULTS)
        if before is not None and not self._force:
            raise OutputError(
                f"{self.folder} has results of an unfinished run that differs: "
                f"{_differences(before, manifest)}. Run it as before to resume it, or drop its "
                "results by --force"
            )
        with self._first_of_all():
            now = self._read_manifest()
            if now is not None and now != before:  # Another process was faster.
                return self.begin(manifest)
            self.drop()
            text = json.dumps(manifest, indent=1)
            with replacing(self._manifest_path) as path:
                path.write_text(text, encoding="utf-8")
        return False

    @contextlib.contextmanager
    def _first_of_all(self) -> Iterator[None]:
        """Alone in writing the manifest; to drop results, alone in the folder."""
        if self.begun:
            with self.alone():
                yield
        else:
            with _lock(self.folder / "lock-manifest", wait=True):
                yield

    def invalidate(self) -> None:
        """Have the next run compute everything anew."""
        self._delete("manifest.json*")

    def part(self, number: int) -> Part:
        """The results of a chunk, there or not."""
        return Part(self.folder / f"part-{number:06d}.safetensors")

    def put(self, number: int, results: Results, metadata: Mapping[str, Any]) -> None:
        """Keep a chunk's results.

        Args:
            metadata: what the file says of itself.

        Raises:
            OSError: the disk is full; nothing is left of the part.
        """
        arrays = {name: _as_array(name, values) for name, values in results.items()}
        about = json.dumps({**metadata, _CHECKSUM: _checksum(arrays)}, sort_keys=True)
        with replacing(self.part(number).path) as path:
            save_file(arrays, path, metadata={METADATA: about})

    @contextlib.contextmanager
    def assembling(self) -> Iterator[None]:
        """Alone in putting the output together."""
        with _lock(self.folder / "lock-output", wait=True):
            yield

    def remove(self) -> None:
        """Delete the folder; files that are not ours keep it."""
        self.invalidate()
        self._delete(*_OURS)
        with contextlib.suppress(OSError):  # not empty
            self.folder.rmdir()

    def drop(self) -> None:
        """Delete results, and what says what they are."""
        self.invalidate()  # First, since without it the rest counts for nothing.
        self._delete(*_RESULTS)

    def _read_manifest(self) -> Any:
        if not self.begun:
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
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[IO[bytes] | None]:
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
            if not _change(file, shared=shared, wait=wait):
                yield None
                return
            if _is_at(file, path):
                yield file
                return


def _is_at(file: IO[bytes] | None, path: Path) -> bool:
    """Whether an open file is the one that is there now."""
    assert file is not None
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _change(file: IO[bytes] | None, *, shared: bool, wait: bool) -> bool:
    """Lock a file, or change its lock; whether that has succeeded."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    assert file is not None
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """The crc32 of arrays with their names, types and shapes."""
    crc = 0
    for name, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{name} {array.dtype} {array.shape}\n".encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(array).tobytes(), crc)
    return f"{crc:08x}"


def _as_array(name: str, values: np.ndarray | Sequence[str]) -> np.ndarray:
    """An array as it is; texts in UTF-8, each followed by a newline."""
    if isinstance(values, np.ndarray):
        return np.ascontiguousarray(values)
    if any("\n" in text for text in values):
        raise ValueError(f"a text of {name} has a line end in it")
    return np.frombuffer("".join(f"{text}\n" for text in values).encode(), np.uint8)


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
