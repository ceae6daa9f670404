"""The results of a run that is not finished, kept beside its output so that it can be resumed.

A run cuts its input into chunks of records, the same ones each time. The results of chunk N are a
part, a safetensors file that is whole and on the disk or not there. Beside the output OUT is a
folder OUT.partial until the output is complete:

manifest.json        what the results depend on; a run that resumes must agree with it
part-N-X.safetensors the results of chunk N; X is of the manifest and the records of that chunk, so
                     that results of other settings or of an input that changed never pass for them
checkpoint-N         of fine-tuning, the state of training after step N
input.fasta          the input, if it can be read only once (standard input, a generator)
lock-I-of-N          held by the process that computes the I-th of N shares; not empty once that
                     process has agreed with the manifest
lock-output          held by the process that writes the outputs; has a line, see `_identity`, of
                     each that the run may replace: what --force found, and what it wrote itself
done-I-of-N          the I-th of N processes has done its share
done.json            the output is whole, and the parts are deleted; what could not be written to
                     it, and metrics

Whoever leaves last deletes the folder: when the output is whole and all N processes have done their
shares, so that one that comes late finds nothing left to do, or when nothing has been begun.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ernie_rna.options import Share
from ernie_rna.run.locks import locked
from ernie_rna.run.outputs import OutputError, appearing, exists_already, replacing
from ernie_rna.run.parts import Part
from ernie_rna.sequences.fasta import FastaRecord

# Results, and all that may be in the folder and is deleted with it: the manifest first, since
# without it the rest counts for nothing.
_RESULTS = ("part-*.safetensors", "checkpoint-*", "fold-*")
_OURS = ("manifest.json", *_RESULTS, "input.fasta", "done*", "lock*", ".*.tmp")
# How a model was called is told where runs differ, but its sha256 says whether they do.
_NOT_COMPARED = ("model.name", "model.revision")


def partial_folder(output: Path) -> Path:
    """Where the results of an output are kept until it is whole."""
    return output.with_name(f"{output.name}.partial")


def is_begun(output: Path) -> bool:
    """Whether an unfinished run has left results of an output."""
    return (partial_folder(output) / "manifest.json").exists()


def check_place(output: Path) -> None:
    """Raise OutputError where no run can begin, or be resumed, to write an output."""
    folder = partial_folder(output)
    if not output.parent.is_dir():
        raise OutputError(f"cannot write {output}: there is no folder {output.parent}")
    if folder.is_file() or folder.is_symlink():
        what = "link" if folder.is_symlink() else "file"
        raise OutputError(
            f"cannot write {output}: {folder}, where unfinished results are kept, is a {what}"
        )


class Store:
    """The folder beside an output. As a context, it leaves the folder at the end.

    Args:
        output: the file to be.
        share: what this process computes.
        force: whether results of other settings may be dropped, and outputs replaced.

    Raises:
        OutputError: another process computes the same share.
        OSError: the folder cannot be made.
    """

    def __init__(self, output: Path, share: Share, force: bool = False):
        self.output, self.folder = output, partial_folder(output)
        self.input_path = self.folder / "input.fasta"  # where what can be read only once is kept
        self._manifest_path = self.folder / "manifest.json"
        self._done_path = self.folder / "done.json"
        self._output_lock = self.folder / "lock-output"
        self._lock_path = self.folder / f"lock-{share.index + 1}-of-{share.count}"
        self._settings: Mapping[str, Any] = {}  # what was begun
        self._key = 0  # of the settings, in the names of parts
        self._force, self._share = force, share
        self._held = contextlib.ExitStack()
        with self._guarded():
            lock = self._held.enter_context(locked(self._lock_path))
            if lock is None:
                raise self._busy()
            lock.truncate(0)
            self._own = lock

    @property
    def begun(self) -> bool:
        """Whether there is a manifest."""
        return self._manifest_path.exists()

    @property
    def done(self) -> bool:
        """Whether a process has said that the output is whole."""
        return self._done_path.exists()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        with self._guarded():
            shares = range(self._share.count)
            finished = self.done and all(self._share_path(index).exists() for index in shares)
            if (finished or not self.begun) and not self._others():
                self._delete(*_OURS)
                with contextlib.suppress(OSError):  # Files that are not ours keep the folder.
                    self.folder.rmdir()
        self._held.close()

    def begin(self, manifest: Mapping[str, Any], whole: Callable[[], bool] = lambda: False) -> bool:
        """Say what is computed here; return whether results of an earlier run are there.

        Args:
            manifest: all that the results depend on, for JSON.
            whole: whether all outputs are there; asked once a process has said so.

        Raises:
            OutputError: the folder has results of other settings, model or input.
        """
        manifest = json.loads(json.dumps(manifest))  # Lists for tuples, as they are read.
        self._settings = _compared(manifest)
        self._key = zlib.crc32(json.dumps(self._settings, sort_keys=True).encode())
        with self._guarded():
            differs = self.begun and not self._agrees()
            if differs and not self._force:
                if self.done:
                    raise exists_already(self.output)
                raise OutputError(
                    f"{self.folder} has results of an unfinished run that differs: "
                    f"{differences(self._read_manifest(), manifest)}. Run it as before to resume "
                    "it, or drop its results by --force"
                )
            if differs and self._others(begun=True):
                raise self._busy()
            if differs or not self.begun or (self.done and not whole()):
                self.drop()
                with replacing(self._manifest_path) as path:
                    path.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            self._own.write(b"+")
            self._own.flush()
            return self.done or any(any(self.folder.glob(pattern)) for pattern in _RESULTS)

    def _agrees(self) -> bool:
        """Whether the manifest is there, and of what this process has begun."""
        return self.begun and _compared(self._read_manifest()) == self._settings

    def _read_manifest(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._manifest_path.read_bytes()))
        except (ValueError, TypeError, RecursionError) as error:
            if self._force:
                return {}
            raise OutputError(
                f"{self._manifest_path} is damaged; --force drops the unfinished results"
            ) from error

    def invalidate(self) -> None:
        """Have the next run compute everything anew."""
        self._delete("manifest.json")

    def drop(self) -> None:
        """Delete the results, and what says what they are."""
        self.invalidate()
        self._delete(*_RESULTS, "done*", self._output_lock.name)

    def part(self, number: int, records: Iterable[FastaRecord] = ()) -> Part:
        """The results of a chunk of records."""
        key = self._key
        for one in records:
            key = zlib.crc32(f"{one.id} {one.description}\n{one.sequence}\n".encode(), key)
        return Part(self.folder / f"part-{number:06d}-{key:08x}.safetensors")

    def owns(self, number: int) -> bool:
        """Whether a chunk is for this process to compute."""
        return number % self._share.count == self._share.index and not self.done

    def owner(self, number: int) -> str:
        """Whose a chunk is, as an option has it."""
        return f"{number % self._share.count + 1}/{self._share.count}"

    @contextlib.contextmanager
    def assembling(self) -> Iterator[dict[str, Any] | None]:
        """Alone in writing the outputs, each of which is claimed before it appears.

        Gives what was given to `finish`, None while nobody has called it.

        Raises:
            OutputError: another process has dropped what this one has begun.
        """

        def appears(written: Path, path: Path) -> None:
            self.check_ours(path)
            self.claim([written])

        with locked(self._output_lock, wait=True):
            if not self._agrees():
                raise OutputError(
                    f"another process has dropped the unfinished results of {self.output}; run it "
                    "again"
                )
            token = appearing.set(appears)
            try:
                yield json.loads(self._done_path.read_bytes()) if self.done else None
            finally:
                appearing.reset(token)

    def claim(self, paths: Iterable[Path]) -> None:
        """Say of files that this run may replace them."""
        with open(self._output_lock, "a", encoding="ascii") as file:
            file.writelines(f"{_identity(path)}\n" for path in paths)

    def check_ours(self, path: Path) -> None:
        """Raise OutputError for a file that is there, which only --force lets this run replace."""
        if path.exists() and not self._force:
            has_log = self.begun and self._output_lock.exists()
            claimed = self._output_lock.read_bytes() if has_log else b""
            if _identity(path).encode() not in claimed.splitlines():
                raise exists_already(path)

    def _share_path(self, index: int) -> Path:
        return self.folder / f"done-{index + 1}-of-{self._share.count}"

    def finish_share(self) -> None:
        """Say that this process has done its share."""
        self._share_path(self._share.index).touch()

    def finish(self, **said: Any) -> None:
        """Say that the output is whole, and more of it, for JSON."""
        with replacing(self._done_path) as path:
            path.write_text(json.dumps(said), encoding="utf-8")
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

    def _delete(self, *patterns: str) -> None:
        for path in (path for pattern in patterns for path in self.folder.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _identity(path: Path) -> str:
    """What a file or folder keeps when it is renamed, and no other has."""
    found = path.stat()
    return f"{found.st_ino} {found.st_mtime_ns}"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What two nested mappings disagree in, in words."""
    old, new = dict(_flatten(before)), dict(_flatten(now))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in names)


def _compared(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a run that resumes must agree with."""
    return {name: value for name, value in _flatten(manifest) if name not in _NOT_COMPARED}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
