"""Reads base-pair probabilities in the formats of programs that fold by energy."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ernie_rna.run.matrices import MATRICES
from ernie_rna.sequences.fasta import FilePath, InputError, split_header
from ernie_rna.structures.formats.by_extension import (
    files_at,
    named_after,
    numbered_lines,
    read_by_id,
)

# A pair in a list: positions counted from 1, and base i, N if the file does not name it.
PAIR = np.dtype([("i", np.int64), ("j", np.int64), ("probability", np.float64), ("base", "U1")])
ROUNDING = 0.001  # by which the probabilities of (i, j) and (j, i) may differ
_FILES = (".bpp", ".txt", ".posteriors", MATRICES)


def read_probabilities(path: FilePath) -> dict[str, np.ndarray]:
    """Read base-pair probabilities by id, from a file or the files of a folder.

    Args:
        path: a .bpp, .txt or .posteriors file with lines ``i j probability``, as LinearPartition
            writes them, or ``i base j:probability ...``, as EternaFold and CONTRAfold do; positions
            count from 1. The file is named after its RNA, or holds several below lines ``>id``. Or
            an .npz file with a matrix under each id, as `ernie-rna fold --matrix probabilities`
            writes it. Or a folder of such files.

    Returns:
        For each id, pairs in an array (pairs,) of `PAIR`, or a matrix from an .npz file.

    Raises:
        ValueError: the extension is unknown, or the folder has no file with a known one.
        InputError: a line has neither form, a base is paired with itself, a pair has two
            probabilities, an id is empty or occurs twice, or a file is empty.
    """
    files = files_at(path, _FILES, "--prior must be vienna, or a file")
    return read_by_id(files, "probabilities", _read)


def _read_matrices(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as file, np.lib.npyio.NpzFile(file) as matrices:
            by_id = {id: np.asarray(matrices[id]) for id in matrices.files}
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path}: damaged, or not an .npz file of matrices: {error}") from None
    for id, matrix in by_id.items():
        if matrix.dtype.kind not in "fiu":
            raise InputError(f"{path}: {id} is not a matrix of numbers")
    return by_id


def _read(path: Path, suffix: str) -> dict[str, np.ndarray]:
    if suffix == MATRICES:
        return _read_matrices(path)
    id = named_after(path)
    rows: dict[str, list[tuple[int, int, float, str]]] = {}
    seen: dict[tuple[str, int, int], float] = {}  # (i, j) and (j, i) may both be given
    for line, text in numbered_lines(path):
        if text.startswith(">"):
            id, _ = split_header(text[1:])
            if not id or id in rows:
                raise InputError.at(path, line, f"{id} occurs twice" if id else "an id is empty")
            rows[id] = []
            continue
        first, *rest = text.split()
        is_list = ":" in text or (len(rest) == 1 and rest[0].isalpha())  # i base j:probability ...
        cells = [cell.split(":") for cell in rest[1:]] if is_list else [rest]
        try:
            (base,) = list("".join(rest[:1])) if is_list else ["N"]  # ValueError unless one letter
            i = int(first)
            pairs = [(i, int(j), float(p), base) for j, p in cells]
        except ValueError:
            problem = f"expected 'i j probability' or 'i base j:probability ...', not {text[:40]!r}"
            raise InputError.at(path, line, problem) from None
        if not all(0 < i < 10**6 and 0 < j < 10**6 and 0 <= p <= 1.0001 for i, j, p, _ in pairs):
            problem = "positions must be from 1 to 999999, probabilities from 0 to 1"
            raise InputError.at(path, line, problem)
        for i, j, p, _ in pairs:
            known = seen.setdefault((id, min(i, j), max(i, j)), p)
            if i == j or abs(known - p) > ROUNDING:
                problem = f"has the probabilities {known} and {p}" if i != j else "is one base"
                raise InputError.at(path, line, f"the pair {i} {j} of {id} {problem}")
        rows.setdefault(id, []).extend(pairs)
    if not rows:
        what = f"the file is empty; write a line '>{id}' if no bases of it pair"
        raise InputError(f"{path}: {what}")
    return {id: np.array(pairs, PAIR) for id, pairs in rows.items()}
