"""Probabilities of base pairs, as programs that fold by energy write them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ernie_rna.run.matrices import MATRICES
from ernie_rna.sequences.fasta import FilePath, InputError
from ernie_rna.structures.formats.by_extension import (
    files_at,
    named_after,
    numbered_lines,
    read_by_id,
)

# A pair of a list, its positions counted from 1, and base i, N where the file does not name it.
PAIR = np.dtype([("i", np.int64), ("j", np.int64), ("probability", np.float64), ("base", "U1")])
_FILES = (".bpp", ".txt", ".posteriors", MATRICES)


def read_probabilities(path: FilePath) -> dict[str, np.ndarray]:
    """Probabilities of base pairs by id, of a file or of the files of a folder.

    Args:
        path: a .bpp, .txt or .posteriors file with lines ``i j probability``, as LinearPartition
            writes them, or ``i base j:probability ...``, as EternaFold and CONTRAfold do; positions
            count from 1. It is of the RNA that the file is called after, or of several below lines
            ``>id``. Or an .npz file with a matrix under each id, as `ernie-rna fold --matrix
            probabilities` writes it. Or a folder of such files.

    Returns:
        (pairs,) of `PAIR`, or the matrices of an .npz file.

    Raises:
        ValueError: the extension is none of these, or the folder has no such file.
        InputError: a line is none of both, or an id is there twice.
    """
    files = files_at(path, _FILES, "--prior must be vienna, or a file")
    return read_by_id(files, "probabilities", _read)


def _read_matrices(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as file, np.lib.npyio.NpzFile(file) as matrices:
            found = {name: np.asarray(matrices[name]) for name in matrices.files}
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path}: damaged, or no .npz file of matrices: {error}") from None
    for name, matrix in found.items():
        if matrix.dtype.kind not in "fiu":
            raise InputError(f"{path}: {name} is no matrix of numbers")
    return found


def _read(path: Path, suffix: str) -> dict[str, np.ndarray]:
    if suffix == MATRICES:
        return _read_matrices(path)
    id = named_after(path)
    rows: dict[str, list[tuple[int, int, float, str]]] = {}
    for line, text in numbered_lines(path):
        first, *others = text.split()
        if first.startswith(">"):
            id = (first[1:] or "".join(others[:1])).strip()
            if id in rows:
                raise InputError.at(path, line, f"{id} is there already")
            rows[id] = []
            continue
        is_list = ":" in text or (len(others) == 1 and others[0].isalpha())
        cells = [cell.split(":") for cell in others[1:]] if is_list else [others]
        try:
            (base,) = list("".join(others[:1])) if is_list else ["N"]  # one letter
            i = int(first)
            new = [(i, int(j), float(p), base) for j, p in cells]
        except ValueError:
            problem = f"expected 'i j probability' or 'i base j:probability ...', not {text[:40]!r}"
            raise InputError.at(path, line, problem) from None
        if any(
            not (min(i, j) > 0 and max(i, j) < 10**6 and 0 <= p <= 1.0001) for i, j, p, _ in new
        ):
            problem = "positions count from 1 to 999999, probabilities from 0 to 1"
            raise InputError.at(path, line, problem)
        rows.setdefault(id, []).extend(new)
    return {id: np.array(own, PAIR) for id, own in (rows or {id: []}).items()}
