"""Output files of the commands: checked before any work, whole under their name or not there."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from ernie_rna.files.atomic import OutputError, full_disk_explained, replacing

STANDARD_OUTPUT = "-"


def check_output_files(
    outputs: Sequence[str],
    force: bool = False,
    folders: bool = False,
    extension: str | None = None,
) -> None:
    """Raise what would keep files from being written at the end.

    Args:
        outputs: paths; "-" is standard output.
        force: whether files that exist may be replaced.
        folders: whether an output may be a folder that exists.
        extension: that all files must have; None is any.

    Raises:
        ValueError: a path is named twice, or has another extension.
        OutputError: there is such a file and `force` is False, something there is no file, or
            there is no folder for it; standard output is closed.
    """
    places = [Path(output).resolve() for output in outputs]
    for output, place in zip(outputs, places, strict=True):
        if places.count(place) > 1:
            raise ValueError(f"{describe([output])} is named for two outputs")
        path = Path(output)
        if output == STANDARD_OUTPUT:
            if sys.stdout is None:
                raise OutputError("cannot write to standard output: it is closed")
            continue
        if extension is not None and path.suffix.lower() != extension:
            raise ValueError(f"{output}: the extension must be {extension}")
        if not path.parent.is_dir():
            raise OutputError(f"cannot write {output}: there is no folder {path.parent}")
        if path.exists() and not (path.is_file() or (folders and path.is_dir())):
            raise OutputError(f"cannot write {output}: it is no file; - is standard output")
        if path.exists() and not force:
            raise OutputError(f"{output} exists already; --force replaces it")


def check_output_folder(folder: Path, force: bool, may_hold: Sequence[str] = ()) -> None:
    """Raise OutputError for a file, or a folder that holds something which may be overwritten.

    Args:
        may_hold: names of what may be there without `force`.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: a file; name a folder")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names - set(may_hold) and not force:
        raise OutputError(f"{folder}: not empty; --force writes into it")


@contextlib.contextmanager
def open_text(output: str) -> Iterator[IO[str]]:
    """A text file that appears under its name once the block has ended well; "-" is stdout."""
    if output == STANDARD_OUTPUT:
        with full_disk_explained("standard output"):
            yield sys.stdout
            sys.stdout.flush()
        return
    with (
        full_disk_explained(output),
        replacing(Path(output)) as path,
        open(path, "w", encoding="utf-8", newline="\n") as file,
    ):
        yield file


def describe(outputs: Sequence[str]) -> str:
    """The outputs in words."""
    names = {STANDARD_OUTPUT: "standard output"}
    return ", ".join(names.get(output, output) for output in outputs)
