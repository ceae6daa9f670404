"""The results of a run that is not finished, kept beside its output so that it can be resumed.

A run cuts its input into chunks of records, the same ones each time. The results of chunk N are a
part, a safetensors file that is whole and on the disk or not there. Beside the output OUT is a
folder OUT.partial until the output is complete:

manifest.json        what the results depend on; a run that resumes must agree with it
part-N.safetensors   the results of chunk N
checkpoint-N         of fine-tuning, the state of training after step N
input.fasta          the input, if it can be read only once (standard input, a generator)
lock-I-of-N          held by the process that computes the I-th of N shares; not empty once that
                     process has agreed with the manifest
done-I-of-N          the I-th of N processes has done its share
done                 the output is whole, and the parts are deleted

Whoever leaves last deletes the folder: when the output is whole and all N processes have done their
shares, so that one that comes late finds nothing left to do, or when nothing has been begun.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ernie_rna.options import Share
from ernie_rna.run.locks import locked
from ernie_rna.run.outputs import OutputError, replacing

# Results, and all that may be in the folder and is deleted with it.
_RESULTS = ("part-*.safetensors", "checkpoint-*", "fold-*")
_OURS = ("manifest.json*", *_RESULTS, "part-*.tmp", "input.fasta*", "done*", "lock*")
# The one entry of a part's metadata, JSON (safetensors writes several in any order), and in it
# the checksum.
METADATA = "ernie_rna"
CHECKSUM = "crc32"

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

    def ragged(self, name: str) -> list[np.ndarray]:
        """Arrays of several shapes, as `pack_ragged` was given them."""
        shapes = self.get(f"{name}_shapes")
        pieces = np.split(self.get(name), np.cumsum(shapes.prod(axis=1))[:-1])
        return [one.reshape(shape) for one, shape in zip(pieces, shapes.tolist(), strict=True)]

    def is_whole(self) -> bool:
        """Whether the results are there, and not damaged."""
        try:
            with safe_open(self.path, framework="np") as file:
                checksum = json.loads(file.metadata()[METADATA])[CHECKSUM]
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception:  # A damaged header raises nearly anything.
            return False
        return checksum == _checksum(arrays)


def pack_ragged(name: str, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of one type and number of dimensions, but of several shapes, as results."""
    return {
        name: np.concatenate([array.ravel() for array in arrays]),
        f"{name}_shapes": np.array([array.shape for array in arrays], np.int64),
    }


def save_arrays(arrays: dict[str, np.ndarray], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file; where the system refuses, the error is an OSError as elsewhere."""
    try:
        save_file(arrays, path, metadata)
    except SafetensorError as error:
        code = re.search(r"\(os error ([0-9]+)\)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def partial_folder(output: Path) -> Path:
    """Where the results of an output are kept until it is whole."""
    return output.with_name(f"{output.name}.partial")


def check_place(output: Path) -> None:
    """Raise OutputError where no run can begin, or be resumed, to write an output."""
    folder = partial_folder(output)
    if not output.parent.is_dir():
        raise OutputError(f"cannot write {output}: there is no folder {output.parent}")
    if folder.is_file():
        raise OutputError(
            f"cannot write {output}: {folder}, where unfinished results are kept, is a file"
        )


class Store:
    """The folder beside an output. As a context, it leaves the folder at the end.

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
        self._force, self._share = force, share
        self._held = contextlib.ExitStack()
        with self._guarded():
            lock = self._held.enter_context(locked(self._lock_path))
            if lock is None:
                raise self._busy()
            lock.truncate(0)
            self._own = lock

    @property
    def input_path(self) -> Path:
        """Where the input is kept if it can be read only once."""
        return self.folder / "input.fasta"

    @property
    def begun(self) -> bool:
        """Whether there is a manifest."""
        return self._manifest_path.exists()

    @property
    def done(self) -> bool:
        """Whether a process has said that the output is whole."""
        return (self.folder / "done").exists()

    @property
    def _manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    @property
    def _lock_path(self) -> Path:
        return self.folder / f"lock-{self._share.index + 1}-of-{self._share.count}"

    def _done_path(self, index: int) -> Path:
        return self.folder / f"done-{index + 1}-of-{self._share.count}"

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        with self._guarded():
            shares = range(self._share.count)
            finished = self.done and all(self._done_path(index).exists() for index in shares)
            if (finished or not self.begun) and not self._others():
                self._remove()
        self._held.close()

    def begin(self, manifest: Mapping[str, Any], whole: bool = False) -> bool:
        """Say what is computed here; return whether results of an earlier run are there.

        Args:
            manifest: all that the results depend on, for JSON.
            whole: whether all outputs are there.

        Raises:
            OutputError: the folder has results of other settings, model or input.
        """
        manifest = json.loads(json.dumps(manifest))  # Lists for tuples, as they are read.
        with self._guarded():
            before = self._read_manifest()
            if before != manifest or (self.done and not whole):
                if before not in (None, manifest):
                    self._check_may_drop(before, manifest)
                self.drop()
                with replacing(self._manifest_path) as path:
                    path.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            self._own.write(b"+")
            self._own.flush()
            return self.done or any(any(self.folder.glob(pattern)) for pattern in _RESULTS)

    def _check_may_drop(self, before: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        if not self._force and self.done:
            raise OutputError(f"{self.output} exists already; --force replaces it")
        if not self._force:
            raise OutputError(
                f"{self.folder} has results of an unfinished run that differs: "
                f"{differences(before, manifest)}. Run it as before to resume it, or drop its "
                "results by --force"
            )
        if self._others(begun=True):
            raise self._busy()

    def invalidate(self) -> None:
        """Have the next run compute everything anew."""
        self._delete("manifest.json*")

    def drop(self) -> None:
        """Delete the results, and what says what they are."""
        self.invalidate()  # First, since without it the rest counts for nothing.
        self._delete(*_RESULTS, "done*")

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
        about = json.dumps({**metadata, CHECKSUM: _checksum(arrays)}, sort_keys=True)
        with replacing(self.part(number).path) as path:
            save_arrays(arrays, path, {METADATA: about})

    @contextlib.contextmanager
    def assembling(self) -> Iterator[None]:
        """Alone in putting the output together."""
        with locked(self.folder / "lock-output", wait=True):
            yield

    def finish_share(self) -> None:
        """Say that this process has done its share."""
        self._done_path(self._share.index).touch()

    def finish(self) -> None:
        """Say that the output is whole."""
        (self.folder / "done").touch()
        self._delete(*_RESULTS)

    def _guarded(self) -> contextlib.AbstractContextManager[Any]:
        """Alone in looking at who is here and in changing what that decides: for a moment."""
        return locked(self.folder / "lock", wait=True)

    def _others(self, begun: bool = False) -> bool:
        """Whether other processes are here, or are here and have agreed with the manifest."""
        for path in self.folder.glob("lock-*-of-*"):
            if path != self._lock_path and (path.stat().st_size or not begun):
                with locked(path) as lock:
                    if lock is None:
                        return True
        return False

    def _busy(self) -> OutputError:
        return OutputError(f"another process is working on {self.output}")

    def _remove(self) -> None:
        """Delete the folder; files that are not ours keep it."""
        self.invalidate()
        self._delete(*_OURS)
        with contextlib.suppress(OSError):  # not empty
            self.folder.rmdir()

    def _read_manifest(self) -> Any:
        if not self.begun:
            return None
        try:
            return dict(json.loads(self._manifest_path.read_bytes()))
        except (ValueError, TypeError, RecursionError) as error:
            if self._force:
                return {}
            raise OutputError(
                f"{self._manifest_path} is damaged; --force drops the unfinished results"
            ) from error

    def _delete(self, *patterns: str) -> None:
        for pattern in patterns:
            for path in self.folder.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)


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


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
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
