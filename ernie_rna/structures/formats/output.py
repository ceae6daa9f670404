"""Writes the structures, matrices and tables of `fold` to files and folders by extension.

.dbn .db   FASTA with a dot-bracket line below each sequence
.tsv .csv  a table with the columns id, sequence, dot_bracket and description
.ct        all structures in one file in the authors' style; `OUT.ct/` is a folder with a file each
.bpseq     a folder with a file each, since the format holds a single structure
.npz       a matrix for each id

Files in a folder are named after the ids, with percent-encoding of characters that a file name
cannot have (`a/b` is `a%2Fb.ct`). Two tables say how sure the model is of each pair and each base;
their positions count from 1, and partner 0 means unpaired. An output appears once it is complete.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ernie_rna.run.matrices import MATRICES, matrix_output
from ernie_rna.run.outputs import STANDARD_OUTPUT, OutputError, check_output_files, replacing_folder
from ernie_rna.run.runner import Output, Write, text_output
from ernie_rna.sequences.fasta import InputError
from ernie_rna.sequences.tables import TABLES, format_row
from ernie_rna.structures.formats.by_extension import FORMATTERS, TSV_HEADER

if TYPE_CHECKING:
    from ernie_rna.structures.fold import Fold

_IN_FOLDERS = (".ct", ".bpseq")
_PAIRS = "id\ti\tj\tbase_i\tbase_j\tprobability\n"
_BASES = "id\tposition\tbase\tpartner\treliability\n"


def fold_outputs(
    paths: Sequence[str], pairs: str | None = None, bases: str | None = None
) -> list[Output[Fold]]:
    """The outputs of a run, checked before any work.

    Args:
        paths: files or folders for structures and matrices.
        pairs, bases: files for the tables.

    Raises:
        ValueError: an extension is unknown, or an output is named twice.
        OutputError: a path exists and may not be replaced, or the folder to write to does not
            exist.
    """
    outputs = [_output(path) for path in paths]
    for path, header, lines in ((pairs, _PAIRS, _pair_lines), (bases, _BASES, _base_lines)):
        if path is not None:
            check_output_files([path], force=True, extensions=tuple(TABLES))
            outputs.append(text_output(path, header, lines))
    folders = [path for path in paths if suffix_of(path) in _IN_FOLDERS]
    check_output_files([output.path for output in outputs], force=True, folders=folders)
    return outputs


def suffix_of(path: str) -> str:
    """The extension that names the format; standard output is dot-bracket."""
    return ".dbn" if path == STANDARD_OUTPUT else Path(path).suffix.lower()


def _output(path: str) -> Output[Fold]:
    suffix, in_folder = suffix_of(path), path.endswith("/")
    if suffix not in (*FORMATTERS, MATRICES):
        known = ", ".join((*FORMATTERS, MATRICES))
        raise ValueError(f"{path}: the extension must be one of {known}")
    if in_folder and suffix not in _IN_FOLDERS:
        raise ValueError(f"{path}: a folder takes {' or '.join(_IN_FOLDERS)} files")
    if in_folder or suffix == ".bpseq":
        _check_folder(path, suffix)
        return Output(path, _open_folder, partial(file_name, suffix=suffix))
    if suffix in _IN_FOLDERS and Path(path).is_dir():
        raise OutputError(f"{path} is a folder; name {path}/ to write a file for each structure")
    if suffix == MATRICES:
        return matrix_output(path, lambda folded: (folded.structure.id, folded.matrix))
    header, formatter = TSV_HEADER if suffix in TABLES else "", FORMATTERS[suffix]
    return text_output(path, header, lambda folded: formatter(folded.structure))


def _pair_lines(folded: Fold) -> Iterator[str]:
    assert folded.reliabilities is not None
    structure = folded.structure
    for i, j in structure.pairs:
        cells = structure.id, i + 1, j + 1, structure.sequence[i], structure.sequence[j]
        yield format_row(*cells, f"{folded.reliabilities[i]:.4f}")


def _base_lines(folded: Fold) -> Iterator[str]:
    assert folded.reliabilities is not None
    structure, reliabilities = folded.structure, folded.reliabilities.tolist()
    rows = zip(structure.sequence, structure.partners, reliabilities, strict=True)
    for position, (base, partner, reliability) in enumerate(rows, 1):
        yield format_row(structure.id, position, base, partner, f"{reliability:.4f}")


def _check_folder(path: str, suffix: str) -> None:
    """Raise OutputError if the path exists and is not an earlier output folder."""
    if Path(path).is_file():
        raise OutputError(f"{path} must be a folder, but there is a file of that name")
    if Path(path).is_dir():
        foreign = sorted(file.name for file in Path(path).iterdir() if file.suffix != suffix)
        if foreign:
            raise OutputError(
                f"{path} holds {foreign[0]}, which ernie-rna did not write; name another folder"
            )


@contextlib.contextmanager
def _open_folder(output: str) -> Iterator[Write[Fold]]:
    suffix = suffix_of(output)
    with replacing_folder(Path(output)) as folder:

        def write(folded: Fold) -> None:
            path = folder / file_name(folded.structure.id, suffix)
            if path.exists():  # On a file system that ignores case, ids can collide.
                raise ValueError(f"the file {path.name} already exists, of another id")
            path.write_text(FORMATTERS[suffix](folded.structure), encoding="utf-8", newline="\n")

        yield write
        _check_folder(output, suffix)  # again, since the folder is replaced next


def file_name(id: str, suffix: str) -> str:
    """Name of the file for a sequence, unique for each id.

    Raises:
        InputError: the name would be too long for a file.

    >>> file_name("AB000109.1/1-77", ".ct")
    'AB000109.1%2F1-77.ct'
    """
    name = quote(id, safe=" +,=@()[]") + suffix
    if len(name) > 250:
        raise InputError(
            f"{id[:40]}...: the id is too long for a file name; write one .ct, .dbn or .tsv file"
        )
    return name
