"""Stores the results of an unfinished run beside its output, so that the run can be resumed.

A run cuts its input into chunks of records, the same ones each time. The results of chunk N are a
part, a safetensors file that is complete on the disk or missing. Beside the output OUT is a folder
OUT.partial until the output is complete:

manifest.json        what the results depend on; a run that resumes must have an equal manifest
part-N-X.safetensors the results of chunk N; X is a checksum of the settings and the records of the
                     chunk, so results of other settings or of a changed input are never used
checkpoint-N         the state of a fine-tuning after step N
fold-N               the metrics and states of fold N of a cross-validation
input.fasta          a copy of an input that can be read only once (standard input, a generator)
lock-I-of-N          held by the process that computes the I-th of N shares; not empty once that
                     process has compared its manifest
lock-output          held by the process that writes the outputs; has a line, see `_identity`, for
                     each file that the run may replace: those that --force found, and its own
done-I-of-N          the I-th of N processes has computed its share
done.json            the output is complete, and parts are deleted; has its problems and metrics

The last process to leave deletes the folder if nothing was begun, or if the output is complete and
all N processes have computed their shares, so that a late process finds nothing left to do.
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

# The files of results, and all files of a run. The manifest is deleted first, because without it
# the others count for nothing.
_RESULTS = ("part-*.safetensors", "checkpoint-*", "fold-*")
_OURS = ("manifest.json", *_RESULTS, "input.fasta", "done*", "lock*", ".*.tmp")
# Messages name these if runs differ, but the model's sha256 decides whether they do.
_NOT_COMPARED = ("model.name", "model.revision")


def partial_folder(output: Path) -> Path:
    """The folder that stores the results of an output until it is complete."""
    return output.with_name(f"{output.name}.partial")


def is_begun(output: Path) -> bool:
    """Whether an unfinished run has stored results for an output."""
    return (partial_folder(output) / "manifest.json").exists()


def check_place(output: Path) -> None:
    """Raise OutputError if no run that writes this output can begin or be resumed."""
    folder = partial_folder(output)
    if not output.parent.is_dir():
        raise OutputError(f"cannot write {output}: there is no folder {output.parent}")
    if folder.is_file() or folder.is_symlink():
        kind = "link" if folder.is_symlink() else "file"
        raise OutputError(
            f"cannot write {output}: {folder}, where unfinished results are kept, is a {kind}"
        )


class Store:
    """The folder beside an output, as a context that deletes the folder if it is no longer needed.

    Args:
        output: the file that the run will write.
        share: what this process computes.
        force: whether results of other settings may be dropped, and outputs replaced.

    Raises:
        OutputError: another process computes the same share.
        OSError: the folder cannot be created.
    """

    def __init__(self, output: Path, share: Share, force: bool = False):
        self.output, self.folder = output, partial_folder(output)
        self.input_path = self.folder / "input.fasta"  # copy of an input that can be read only once
        self._manifest_path = self.folder / "manifest.json"
        self._done_path = self.folder / "done.json"
        self._output_lock = self.folder / "lock-output"
        self._lock_path = self.folder / f"lock-{share.index + 1}-of-{share.count}"
        self._settings: Mapping[str, Any] = {}  # those of this run, flattened
        self._key = 0  # crc32 of the settings, in the names of parts
        self._force, self._share = force, share
        self._held = contextlib.ExitStack()
        with self._guarded():
            lock = self._held.enter_context(locked(self._lock_path))
            if lock is None:
                raise self._busy()
            lock.truncate(0)
            self._lock_file = lock

    @property
    def begun(self) -> bool:
        """Whether there is a manifest."""
        return self._manifest_path.exists()

    @property
    def done(self) -> bool:
        """Whether a process has recorded that the output is complete."""
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
        """Write the manifest, or compare it with an earlier run's; return whether results exist.

        Args:
            manifest: all that the results depend on, for JSON.
            whole: whether all outputs exist; called only if a process has recorded so.

        Raises:
            OutputError: the folder has results of other settings, model or input.
        """
        manifest = json.loads(json.dumps(manifest))  # Tuples become lists, as in the file.
        self._settings = _compared(manifest)
        self._key = zlib.crc32(json.dumps(self._settings, sort_keys=True).encode())
        with self._guarded():
            differs = self.begun and not self._agrees()
            if differs and not self._force:
                if self.done:
                    raise exists_already(self.output)
                raise OutputError(
                    f"{self.folder} has results of an unfinished run that differs: "
                    f"{differences(self._read_manifest(), manifest)}. Repeat the earlier command "
                    "to resume it, or drop its results by --force"
                )
            if differs and self._others(begun=True):
                raise self._busy()
            if differs or not self.begun or (self.done and not whole()):
                self.drop()
                with replacing(self._manifest_path) as path:
                    path.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            self._lock_file.write(b"+")
            self._lock_file.flush()
            return self.done or any(any(self.folder.glob(pattern)) for pattern in _RESULTS)

    def _agrees(self) -> bool:
        """Whether the folder has a manifest with the settings of this process."""
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
        """Make the next run compute everything again."""
        self._delete("manifest.json")

    def drop(self) -> None:
        """Delete the results and the manifest."""
        self.invalidate()
        self._delete(*_RESULTS, "done*", self._output_lock.name)

    def part(self, number: int, records: Iterable[FastaRecord] = ()) -> Part:
        """The part with the results of a chunk: its number and records."""
        key = self._key
        for record in records:
            key = zlib.crc32(f"{record.id} {record.description}\n{record.sequence}\n".encode(), key)
        return Part(self.folder / f"part-{number:06d}-{key:08x}.safetensors")

    def owns(self, number: int) -> bool:
        """Whether this process computes a chunk."""
        return number % self._share.count == self._share.index and not self.done

    def owner(self, number: int) -> str:
        """The share that computes a chunk, written as for --part, such as 2/8."""
        return f"{number % self._share.count + 1}/{self._share.count}"

    @contextlib.contextmanager
    def assembling(self) -> Iterator[dict[str, Any] | None]:
        """Let only this process write the outputs, each of which is claimed before it appears.

        Yields what was given to `finish`; None if no process has called it yet.

        Raises:
            OutputError: another process has dropped the results of this run.
        """

        def check_and_claim(written: Path, path: Path) -> None:
            self.check_ours(path)
            self.claim([written])

        with locked(self._output_lock, wait=True):
            if not self._agrees():
                raise OutputError(
                    f"another process has dropped the unfinished results of {self.output}; run it "
                    "again"
                )
            token = appearing.set(check_and_claim)
            try:
                yield json.loads(self._done_path.read_bytes()) if self.done else None
            finally:
                appearing.reset(token)

    def claim(self, paths: Iterable[Path]) -> None:
        """Record that this run may replace these files."""
        with open(self._output_lock, "a", encoding="ascii") as file:
            file.writelines(f"{_identity(path)}\n" for path in paths)

    def check_ours(self, path: Path) -> None:
        """Raise OutputError for an existing file that this run may replace only with --force."""
        if path.exists() and not self._force:
            has_log = self.begun and self._output_lock.exists()
            claimed = self._output_lock.read_bytes() if has_log else b""
            if _identity(path).encode() not in claimed.splitlines():
                raise exists_already(path)

    def _share_path(self, index: int) -> Path:
        return self.folder / f"done-{index + 1}-of-{self._share.count}"

    def finish_share(self) -> None:
        """Record that this process has computed its share."""
        self._share_path(self._share.index).touch()

    def finish(self, **outcome: Any) -> None:
        """Record that the output is complete, with the outcome, for JSON, and delete the parts."""
        with replacing(self._done_path) as path:
            path.write_text(json.dumps(outcome), encoding="utf-8")
        self._delete(*_RESULTS)

    def _guarded(self) -> contextlib.AbstractContextManager[Any]:
        """The lock that a process holds for the moment in which it looks for others and decides."""
        return locked(self.folder / "lock", wait=True)

    def _others(self, begun: bool = False) -> bool:
        """Whether others use the folder; with `begun`, only those that compared manifests."""
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
    """Text that identifies a file or folder, and stays the same when it is renamed."""
    status = path.stat()
    return f"{status.st_ino} {status.st_mtime_ns}"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The differences of two nested mappings, as text."""
    old, new = dict(_flatten(before)), dict(_flatten(now))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in names)


def _compared(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The flattened settings of a manifest that must be equal to resume a run."""
    return {name: value for name, value in _flatten(manifest) if name not in _NOT_COMPARED}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
