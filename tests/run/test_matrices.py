"""Writing matrices to an .npz file, one at a time."""

import numpy as np
import pytest

from ernie_rna.run.matrices import write_matrices


def test_names_and_values_are_kept_and_files_are_reproducible(tmp_path):
    matrices = {"a": np.eye(3, dtype=np.float32), "b/../c d": np.zeros((0, 0), dtype=np.float16)}
    for path in (tmp_path / "one.npz", tmp_path / "two.npz"):
        with write_matrices(path) as write:
            for name, matrix in matrices.items():
                write(name, matrix)
            with pytest.raises(ValueError, match="already has a matrix of 'a'"):
                write("a", np.eye(2))
    with np.load(tmp_path / "one.npz") as archive:
        assert archive.files == list(matrices)
        for name, matrix in matrices.items():
            assert archive[name].dtype == matrix.dtype
            assert np.array_equal(archive[name], matrix)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
