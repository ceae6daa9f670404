"""An .npz file with a matrix for each sequence, under its id."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ernie_rna.run.outputs import replacing
from ernie_rna.run.runner import Output, Write
from ernie_rna.sequences.fasta import FilePath, InputError

MATRICES = ".npz"
_MEMBER = ".npy"  # extension of the files in an .npz archive
_LONGEST_ID = 2**16 - 1 - len(_MEMBER)  # bytes: zip stores the length of a name in 16 bits


def matrix_output(path: str, matrix_of: Callable[[Any], tuple[str, Any]]) -> Output[Any]:
    """Return an .npz output; `matrix_of` takes a result, and returns its id and matrix (L, L)."""

    @contextlib.contextmanager
    def opened(path: str) -> Iterator[Write[Any]]:
        with replacing(Path(path)) as temporary, write_matrices(temporary) as write:
            yield lambda result: write(*matrix_of(result))

    return Output(path, opened, check_matrix_id)


@contextlib.contextmanager
def write_matrices(path: FilePath) -> Iterator[Callable[[str, np.ndarray], None]]:
    """Write matrices to an .npz file: yields a function that takes an id and its matrix.

    Each matrix is written at once, compressed, so memory does not grow with their number. Equal
    matrices produce equal bytes. ``numpy.load(path)[id]`` reads one back. The function raises
    ValueError for an id that was written before, or that `check_matrix_id` refuses.

    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "contacts.npz")
    >>> with write_matrices(path) as write:
    ...     write("tiny", np.eye(2, dtype=np.float32))
    >>> np.load(path)["tiny"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:

        def write(id: str, matrix: np.ndarray) -> None:
            check_matrix_id(id)
            if f"{id}{_MEMBER}" in archive.NameToInfo:
                raise ValueError(f"the file already has a matrix of {id!r}")
            # A ZipInfo has a fixed time, so that the bytes depend on the content alone.
            info = zipfile.ZipInfo(f"{id}{_MEMBER}")
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(matrix), allow_pickle=False)

        yield write


def check_matrix_id(id: str) -> None:
    """Refuse an id that an .npz file cannot hold.

    Raises:
        InputError: the id is too long, or ends in .npy. NumPy adds that to all names, so of `x`
            and `x.npy` `numpy.load` would find only one.
    """
    if id.endswith(_MEMBER):
        raise InputError(f"{id}: an id in an .npz file cannot end in {_MEMBER}; rename the record")
    size = len(id.encode())
    if size > _LONGEST_ID:
        raise InputError(
            f"{id[:40]}...: an id in an .npz file has at most {_LONGEST_ID} bytes, not {size}"
        )
