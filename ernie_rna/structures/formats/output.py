"""Where `fold` puts its structures, matrices and tables: files and folders by extension.

.dbn .db   FASTA with a dot-bracket line below each sequence
.tsv       a table with the columns id, sequence, dot_bracket and description
.ct        all structures in one file, as the authors write one; `OUT.ct/` is a folder, a file each
.bpseq     a folder, a file each: the format holds a single structure
.npz       a matrix for each id

Files in a folder are called after the ids, with characters that are no part of a file name
written as in addresses on the web (`a/b` is `a%2Fb.ct`). Two tables say how sure the model is of
each pair and each base; their positions count from 1, and partner 0 is unpaired. An output appears
once it is complete.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from ernie_rna.run.outputs import (
    STANDARD_OUTPUT,
    OutputError,
    check_output_files,
    replacing,
    replacing_folder,
)
from ernie_rna.run.runner import Output, Write, text_output
from ernie_rna.sequences.fasta import FilePath, InputError
from ernie_rna.sequences.tables import format_row
from ernie_rna.structures.formats.by_extension import FORMATTERS
from ernie_rna.structures.formats.dbn import TSV_HEADER

if TYPE_CHECKING:
    from ernie_rna.structures.fold import Fold

_IN_FOLDERS = (".ct", ".bpseq")
MATRICES = ".npz"
_MEMBER = ".npy"  # of which a .npz file consists
_LONGEST_ID = 2**16 - 1 - len(_MEMBER)  # bytes: zip files have names of 16 bits' length


def check_outputs(outputs: Sequence[str], tables: Sequence[str] = ()) -> None:
    """Raise before any work what would keep an output from being written.

    Args:
        outputs: of structures and matrices.
        tables: others, which are .tsv files.

    Raises:
        ValueError: an extension names no format, or an output is named twice.
        OutputError: what is there is nothing that may be replaced, or there is no folder to write
            it to.
    """
    folders = [output for output in outputs if suffix_of(output) in _IN_FOLDERS]
    check_output_files([*outputs, *tables], force=True, folders=folders)
    for output in outputs:
        suffix = suffix_of(output)
        if output != STANDARD_OUTPUT and suffix not in (*FORMATTERS, MATRICES):
            known = ", ".join((*FORMATTERS, MATRICES))
            raise ValueError(f"{output}: the extension must be one of {known}")
        if output.endswith("/") and suffix not in _IN_FOLDERS:
            raise ValueError(f"{output}: a folder takes {' or '.join(_IN_FOLDERS)} files")
        if Path(output).exists():
            _check_replaceable(output)
    for table in tables:
        if table != STANDARD_OUTPUT and suffix_of(table) != ".tsv":
            raise ValueError(f"{table}: the extension must be .tsv")


def _check_replaceable(output: str) -> None:
    """Raise OutputError if what is there is no earlier output of this kind."""
    path = Path(output)
    if not _is_folder(output):
        if path.is_dir():
            raise OutputError(f"{output} is a folder; write {output}/ for a file each in it")
        return
    if not path.is_dir():
        raise OutputError(f"{output} is to be a folder, but there is a file of that name")
    others = sorted(file.name for file in path.iterdir() if file.suffix != suffix_of(output))
    if others:
        raise OutputError(
            f"{output} holds {others[0]}, which is none of our files; name another folder"
        )


def suffix_of(output: str) -> str:
    """The extension that names the format; standard output takes dot-bracket."""
    return ".dbn" if output == STANDARD_OUTPUT else Path(output).suffix.lower()


def _is_folder(output: str) -> bool:
    return output.endswith("/") or suffix_of(output) == ".bpseq"


def fold_output(path: str) -> Output[Fold]:
    """An output of `fold` that `check_outputs` has passed."""
    suffix = suffix_of(path)
    if suffix == MATRICES:
        return matrix_output(path, lambda folded: (folded.structure.id, folded.matrix))
    if _is_folder(path):
        return Output(path, _open_folder)
    header, format_one = TSV_HEADER * (suffix == ".tsv"), FORMATTERS[suffix]
    return text_output(path, header, lambda folded: format_one(folded.structure))


def pairs_output(path: str) -> Output[Fold]:
    """A table with a line for each pair of each structure."""
    header = format_row("id", "i", "j", "base_i", "base_j", "probability")
    return text_output(path, header, _pair_lines)


def _pair_lines(folded: Fold) -> Iterator[str]:
    structure, reliabilities = folded.structure, _reliabilities(folded)
    for i, j in structure.pairs:
        bases = structure.sequence[i], structure.sequence[j]
        yield format_row(structure.id, i + 1, j + 1, *bases, f"{reliabilities[i]:.4f}")


def bases_output(path: str) -> Output[Fold]:
    """A table with a line for each base of each structure."""
    header = format_row("id", "position", "base", "partner", "reliability")
    return text_output(path, header, _base_lines)


def _base_lines(folded: Fold) -> Iterator[str]:
    structure = folded.structure
    rows = zip(structure.sequence, structure.partners, _reliabilities(folded), strict=True)
    for position, (base, partner, reliability) in enumerate(rows, 1):
        yield format_row(structure.id, position, base, partner, f"{reliability:.4f}")


def _reliabilities(folded: Fold) -> list[float]:
    assert folded.reliabilities is not None
    reliabilities: list[float] = folded.reliabilities.tolist()
    return reliabilities


@contextlib.contextmanager
def _open_folder(output: str) -> Iterator[Write[Fold]]:
    suffix = suffix_of(output)
    with replacing_folder(Path(output)) as folder:

        def write(folded: Fold) -> None:
            path = folder / file_name(folded.structure.id, suffix)
            if path.exists():  # Where the file system takes no notice of case.
                raise ValueError(f"a file {path.name} is there already, of another id")
            text = FORMATTERS[suffix](folded.structure)
            path.write_text(text, encoding="utf-8", newline="\n")

        yield write


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


# ---------------------------------------------------------------------------------------------
# Matrices


def matrix_output(
    path: str, matrix_of: Callable[[Any], tuple[str, np.ndarray | None]]
) -> Output[Any]:
    """An .npz file with the matrix of each result, (length, length), under its id."""

    @contextlib.contextmanager
    def opened(path: str) -> Iterator[Write[Any]]:
        with replacing(Path(path)) as temporary, write_matrices(temporary) as write:
            yield lambda result: write(*matrix_of(result))

    return Output(path, opened)


@contextlib.contextmanager
def write_matrices(path: FilePath) -> Iterator[Callable[[str, np.ndarray | None], None]]:
    """Write matrices to an .npz file: gives a function for each id and its matrix, None for none.

    Each matrix goes to the file at once, compressed, so memory does not grow with their number. The
    same matrices give the same bytes. ``numpy.load(path)[id]`` reads one back. The function raises
    ValueError for an id that is written twice, or is none by `check_matrix_id`.

    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "contacts.npz")
    >>> with write_matrices(path) as write:
    ...     write("tiny", np.eye(2, dtype=np.float32))
    >>> np.load(path)["tiny"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:

        def write(id: str, matrix: np.ndarray | None) -> None:
            check_matrix_id(id)
            if f"{id}{_MEMBER}" in archive.NameToInfo:
                raise ValueError(f"the file already has a matrix of {id!r}")
            if matrix is None:
                return
            # A ZipInfo has a fixed time, so that the bytes depend on the content alone.
            info = zipfile.ZipInfo(f"{id}{_MEMBER}")
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(matrix), allow_pickle=False)

        yield write


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
