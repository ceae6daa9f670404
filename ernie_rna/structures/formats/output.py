"""Where `ernie-rna fold` puts its structures and matrices: files and folders by extension.

.dbn .db   FASTA with a dot-bracket line below each sequence
.tsv       a table with the columns id, sequence and dot_bracket
.ct        all structures in one file, as the authors write one; `OUT.ct/` is a folder, a file each
.bpseq     a folder, a file each: the format holds a single structure
.npz       a matrix for each id

Files in a folder are called after the ids, with characters that are no part of a file name
written as in addresses on the web (`a/b` is `a%2Fb.ct`). An output appears once it is complete.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from ernie_rna.run.outputs import (
    STANDARD_OUTPUT,
    OutputError,
    check_output_files,
    full_disk_explained,
    open_text,
    replacing,
    replacing_folder,
)
from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.formats.by_extension import FORMATTERS
from ernie_rna.structures.formats.dbn import TSV_HEADER
from ernie_rna.structures.formats.structure import FilePath, Structure

if TYPE_CHECKING:
    from ernie_rna.structures.fold import Fold

_IN_FOLDERS = (".ct", ".bpseq")
_MATRIX = ".npz"
_MEMBER = ".npy"  # of which a .npz file consists
_LONGEST_ID = 2**16 - 1 - len(_MEMBER)  # bytes: zip files have names of 16 bits' length

# Takes a result; raises ValueError where the format cannot hold it.
Write = Callable[["Fold"], None]


def check_outputs(outputs: Sequence[str], force: bool = False) -> None:
    """Raise before any work what would keep an output from being written.

    Raises:
        ValueError: an extension names no format, or an output is named twice.
        OutputError: an output exists and `force` is False, or is nothing that may be replaced;
            or there is no folder to write it to.
    """
    check_output_files(outputs, force, folders=True)
    for output in outputs:
        suffix = _suffix(output)
        if output == STANDARD_OUTPUT:
            continue
        if suffix not in (*FORMATTERS, _MATRIX):
            known = ", ".join((*FORMATTERS, _MATRIX))
            raise ValueError(f"{output}: the extension must be one of {known}")
        if output.endswith("/") and suffix not in _IN_FOLDERS:
            raise ValueError(f"{output}: a folder takes {' or '.join(_IN_FOLDERS)} files")
        if Path(output).exists():
            _check_replaceable(output)


def wants_matrix(outputs: Sequence[str]) -> bool:
    """Whether an output holds matrices."""
    return any(_suffix(output) == _MATRIX for output in outputs)


@contextlib.contextmanager
def open_output(output: str) -> Iterator[Write]:
    """Open an output that `check_outputs` has passed; it stays if the block ends well.

    Raises:
        OutputError: the disk is full.
    """
    with full_disk_explained(output), _OPENERS[_kind(output)](output) as write:
        yield _explaining(output, write)


@contextlib.contextmanager
def open_table(
    output: str, header: str, lines_of: Callable[[Structure, np.ndarray], Iterator[str]]
) -> Iterator[Write]:
    """Open a table of `confidence`, which takes results with probabilities; "-" is stdout.

    Raises:
        OutputError: the disk is full.
    """
    with open_text(output) as file:
        file.write(header)

        def write(folded: Fold) -> None:
            assert folded.matrix is not None
            file.writelines(lines_of(folded.structure, folded.matrix))

        yield _explaining(output, write)


def _explaining(output: str, write: Write) -> Write:
    def explain(folded: Fold) -> None:
        with full_disk_explained(output):
            write(folded)

    return explain


@contextlib.contextmanager
def _open_structures(output: str) -> Iterator[Write]:
    suffix = ".dbn" if output == STANDARD_OUTPUT else _suffix(output)
    with open_text(output) as file:
        file.write(TSV_HEADER * (suffix == ".tsv"))
        yield _into(file, FORMATTERS[suffix])


@contextlib.contextmanager
def _open_folder(output: str) -> Iterator[Write]:
    with replacing_folder(Path(output)) as folder:
        yield _into_folder(folder, _suffix(output))


@contextlib.contextmanager
def _open_matrices(output: str) -> Iterator[Write]:
    with replacing(Path(output)) as path, MatrixWriter(path) as writer:
        yield _into_matrices(writer)


_OPENERS = {"text": _open_structures, "folder": _open_folder, "matrices": _open_matrices}


def _kind(output: str) -> str:
    if _suffix(output) == _MATRIX:
        return "matrices"
    return "folder" if _is_folder(output) else "text"


def _suffix(output: str) -> str:
    return Path(output).suffix.lower()


def _is_folder(output: str) -> bool:
    return output.endswith("/") or _suffix(output) == ".bpseq"


def _into(file: IO[str], format_one: Callable[[Structure], str]) -> Write:
    def write(folded: Fold) -> None:
        file.write(format_one(folded.structure))

    return write


def _into_matrices(writer: MatrixWriter) -> Write:
    def write(folded: Fold) -> None:
        if folded.matrix is not None:
            writer.write(folded.structure.id, folded.matrix)

    return write


def _into_folder(folder: Path, suffix: str) -> Write:
    def write(folded: Fold) -> None:
        text = FORMATTERS[suffix](folded.structure)
        path = folder / file_name(folded.structure.id, suffix)
        if path.exists():  # Where the file system takes no notice of case.
            raise ValueError(f"a file {path.name} is there already, of another id")
        path.write_text(text, encoding="utf-8", newline="\n")

    return write


def file_name(id: str, suffix: str) -> str:
    """The name of a sequence's file; no two ids share one.

    Raises:
        ValueError: no file can have so long a name.

    >>> file_name("AB000109.1/1-77", ".ct")
    'AB000109.1%2F1-77.ct'
    """
    name = quote(id, safe=" +,=@()[]") + suffix
    if len(name) > 250:
        raise ValueError("the id is too long for the name of a file; write one .ct, .dbn or .tsv")
    return name


def _check_replaceable(output: str) -> None:
    """Raise OutputError if `output` is there and is no earlier output of this kind."""
    path = Path(output)
    if not _is_folder(output):
        if path.is_dir():
            raise OutputError(f"{output} is a folder; write {output}/ for a file each in it")
        return
    if not path.is_dir():
        raise OutputError(f"{output} is to be a folder, but there is a file of that name")
    others = sorted(file.name for file in path.iterdir() if file.suffix != _suffix(output))
    if others:
        raise OutputError(
            f"{output} holds {others[0]}, which is none of our files; name another folder"
        )


def check_matrix_id(id: str) -> None:
    """Refuse an id that no .npz file can hold.

    Raises:
        InputError: it is too long, or ends in .npy, which such files add to all names: of `x` and
            `x.npy` `numpy.load` would find only one.
    """
    if id.endswith(_MEMBER):
        raise InputError(f"{id}: an .npz file has no ids that end in {_MEMBER}")
    size = len(id.encode())
    if size > _LONGEST_ID:
        raise InputError(
            f"{id[:40]}...: an id in an .npz file has at most {_LONGEST_ID} bytes, not {size}"
        )


class MatrixWriter:
    """Write pairing maps or contacts to an .npz file, one array a sequence, under its id.

    Each matrix goes to the file at once, compressed, so memory does not grow with their number. The
    same matrices give the same bytes. ``numpy.load(path)[id]`` reads one back.

    Raises:
        ValueError: an id is written twice, or is none by `check_matrix_id`.

    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "contacts.npz")
    >>> with MatrixWriter(path) as writer:
    ...     writer.write("tiny", np.eye(2, dtype=np.float32))
    >>> np.load(path)["tiny"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(self, path: FilePath) -> None:
        self._archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)

    def write(self, name: str, matrix: np.ndarray) -> None:
        """Add the matrix of the sequence called ``name``, (length, length)."""
        check_matrix_id(name)
        if f"{name}{_MEMBER}" in self._archive.NameToInfo:
            raise ValueError(f"the file already has a matrix of {name!r}")
        # A ZipInfo has a fixed time, so that the bytes depend on the content alone.
        info = zipfile.ZipInfo(f"{name}{_MEMBER}")
        info.compress_type = zipfile.ZIP_DEFLATED
        with self._archive.open(info, "w", force_zip64=True) as file:
            np.lib.format.write_array(file, np.asarray(matrix), allow_pickle=False)

    def close(self) -> None:
        self._archive.close()

    def __enter__(self) -> MatrixWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
