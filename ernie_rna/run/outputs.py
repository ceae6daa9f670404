"""Writes outputs that appear complete or not at all, even after a kill or with a full disk, and
checks before any work that an output can be written.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from os import PathLike, fspath
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from ernie_rna.options import OptionError
from ernie_rna.run.locks import locked

STANDARD_OUTPUT = "-"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Called with the path of what was written, and the path that it is about to be renamed to.
appearing: ContextVar[Callable[[Path, Path], object]] = ContextVar(
    "appearing", default=lambda written, path: None
)


class OutputError(RuntimeError):
    """The output cannot be written, or not with these settings; the message says what to do."""


def exists_already(path: str | Path) -> OutputError:
    """The error for a file that would be replaced without --force."""
    return OutputError(f"{path} exists already; --force replaces it")


def behind_link(path: Path) -> Path:
    """Return the target of a symbolic link, even if it does not exist; any other path unchanged."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which is renamed to `path` if the block succeeds.

    Until then `path` stays as it was. If the block raises, the temporary file is deleted; if the
    process is killed, `clear_dead` deletes it later. Each process has its own temporary file: if
    several write the same `path`, it holds the complete file of the last one.
    """
    path = behind_link(path)
    with _hidden(path) as folder:
        new = folder / path.name
        yield new
        with open(new, "rb+") as file:
            os.fsync(file.fileno())
        appearing.get()(new, path)
        os.replace(new, path)
    if os.name == "posix":  # Syncing the folder writes the new name to the disk.
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def replacing_folder(path: Path, force: bool = True) -> Iterator[Path]:
    """Yield a temporary folder to write to, which replaces `path` as in `replacing`.

    The folders above it are created, and deleted if the block raises. If the process is killed, the
    next one deletes the temporary folder. `force` replaces what exists at the end; an empty folder
    is always replaced.

    Raises:
        OutputError: another process has written `path` in the meantime, and `force` is False.
    """
    path = behind_link(path)
    made = [folder for folder in path.absolute().parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_dead(path)
        with _hidden(path) as folder:
            # transformers 4.41 imports a model's code by the folder's name, which must have no dot.
            new, old = folder / "new", folder / "old"
            new.mkdir()
            yield new
            appearing.get()(new, path)
            if path.exists():
                os.replace(path, old)
            if not force and old.exists() and not (old.is_dir() and not any(old.iterdir())):
                raise OutputError(
                    f"{path} was written by another process in the meantime; it was not changed"
                )
            os.replace(new, path)
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # It is in use.
                folder.rmdir()


@contextlib.contextmanager
def _hidden(path: Path) -> Iterator[Path]:
    """Yield a locked temporary folder beside `path`, and delete it at the end."""
    folder = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        folder.mkdir()
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):  # The file system may have no locks.
                held.enter_context(locked(folder / "lock", wait=True))
            yield folder
    finally:  # also after Ctrl-C
        _discard(folder)


def clear_dead(path: Path) -> None:
    """Delete the temporary folders of killed processes that were writing `path`, or a file beside
    it whose name begins with that of `path`. A live process holds a lock on its folder."""
    if os.name != "posix":  # no locks
        return
    path = behind_link(path)
    for folder in path.parent.glob(f".{glob.escape(path.name)}*.{'[0-9a-f]' * 8}.tmp"):
        with contextlib.suppress(OSError), locked(folder / "lock") as lock:
            if lock is not None:
                _discard(folder)


def _discard(folder: Path) -> None:
    """Delete a temporary folder, after moving an old output that was not replaced back."""
    old, path = folder / "old", folder.with_name(folder.name[1:].rsplit(".", 2)[0])
    with contextlib.suppress(OSError):
        if old.exists() and not path.exists():  # The process ended between two renames.
            os.replace(old, path)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def full_disk_explained(output: str | Path, way_out: str = "") -> Iterator[None]:
    """Turn "no space left" and similar errors, which name no file, into one that does."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        # Errors of safetensors have the system's error number only in their text.
        match = re.search(r"\(os error ([0-9]+)\)", str(error))
        code = int(match[1]) if match else getattr(error, "errno", None)
        if code not in _FULL:
            raise
        raise OutputError(f"no room to write {output} ({error}){way_out}") from error


def explain(error: Exception) -> str:
    """The text of an error. For text that standard output cannot hold, the word and the way out."""
    if not isinstance(error, UnicodeEncodeError):
        return str(error)
    before, after = error.object[: error.start], error.object[error.start :]
    word = re.findall(r"\S*$", before)[0] + re.findall(r"^\S*", after)[0]
    return (
        f"{word!r} cannot be written to standard output, whose encoding is {error.encoding}: set "
        "PYTHONIOENCODING=utf-8, or write a file"
    )


@contextlib.contextmanager
def open_text(output: str) -> Iterator[IO[str]]:
    """Yield a text file that appears under its name if the block succeeds; "-" is stdout."""
    if output == STANDARD_OUTPUT:
        yield sys.stdout
        sys.stdout.flush()
        return
    with replacing(Path(output)) as path, open(path, "w", encoding="utf-8", newline="\n") as file:
        yield file


def output_path(output: object, name: str = "output") -> str:
    """The path of an output as text; OptionError, for the option `name`, if it is not a path."""
    if isinstance(output, (str, PathLike)) and fspath(output):
        return fspath(output)
    raise OptionError(name, f"must be the path of a file or folder; got {output!r}")


def files_of(path: Any, extensions: Iterable[str]) -> list[Any]:
    """The files of a folder that have one of the extensions; anything else alone in a list."""
    if not isinstance(path, (str, PathLike)) or not os.path.isdir(path):
        return [path]
    return [file for file in Path(path).iterdir() if file.suffix.lower() in extensions]


def holds(output: Path, source: Path) -> bool:
    """Whether an output is a file or folder to be read, or a folder above it, by any links."""
    source = source.resolve()
    return output.resolve() in (source, *source.parents)


def refuse_inputs(outputs: Iterable[str | Path], inputs: Iterable[Any]) -> None:
    """Raise OutputError for an output that is an input, whatever links or spellings name it.

    Args:
        outputs: files and folders, which --force may replace, or "-".
        inputs: files. What is not the path of a file, such as a loaded model, is ignored.
    """
    targets = [output for output in outputs if output != STANDARD_OUTPUT]
    for path in inputs:
        if not isinstance(path, (str, PathLike)) or not os.path.isfile(path):
            continue
        for output in targets:
            if os.path.isfile(output) and os.path.samefile(output, path):  # also a hard link
                raise OutputError(f"the output {output} is the input {path}: name another output")
            if holds(Path(output), Path(path)):
                raise OutputError(f"{output} holds the input {path}: name another output")


def check_output_files(
    outputs: Sequence[str],
    force: bool = False,
    folders: Sequence[str] = (),
    extensions: Sequence[str] = (),
    streams: bool = True,
) -> None:
    """Check before any work that files can be written, and delete temporary files of killed
    processes.

    Args:
        outputs: paths.
        force: whether files that exist may be replaced.
        folders: those of the outputs that may be an existing folder.
        extensions: those allowed; () allows any.
        streams: whether "-" is standard output.

    Raises:
        ValueError: a path is given twice, or has another extension.
        OutputError: a file exists and `force` is False; something that is not a file exists; the
            folder is missing or cannot be written to; a name is too long; standard output is
            closed.
    """
    resolved_paths = [Path(output).resolve() for output in outputs]
    for output, resolved in zip(outputs, resolved_paths, strict=True):
        path = Path(output)
        if resolved_paths.count(resolved) > 1:
            raise ValueError(f"{describe([output])} is named for two outputs")
        if output == STANDARD_OUTPUT and streams:
            if sys.stdout is None:
                raise OutputError("cannot write to standard output: it is closed")
            continue
        if extensions and path.suffix.lower() not in extensions:
            raise ValueError(f"{output}: the extension must be {' or '.join(extensions)}")
        target = behind_link(path)
        folder = target.parent
        if not folder.is_dir():
            raise OutputError(f"cannot write {output}: there is no folder {folder}")
        clear_dead(target)
        try:  # Only writing shows whether permissions and the length of the name allow it.
            with _hidden(target.with_name(f"{target.name}.index.json")):
                pass
        except OSError as error:
            raise OutputError(f"cannot write {output}: {folder}: {error.strerror}") from error
        if path.exists() and not (path.is_file() or (output in folders and path.is_dir())):
            hint = "; - is standard output" if streams else ""
            raise OutputError(f"cannot write {output}: it is not a file{hint}")
        if path.exists() and not force:
            raise exists_already(output)


def describe(outputs: Sequence[str]) -> str:
    """The names of outputs for messages."""
    return ", ".join("standard output" if path == STANDARD_OUTPUT else path for path in outputs)
