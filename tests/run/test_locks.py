"""Locks on a file that its last holder deletes."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ernie_rna.run.locks import locked


@pytest.mark.parametrize("is_recreated", [False, True])
def test_who_waited_for_a_deleted_file_locks_the_new_one(tmp_path, is_recreated):
    pytest.importorskip("fcntl")
    path = tmp_path / "folder" / "lock"

    def wait():
        with locked(path, wait=True) as file:
            return os.path.samestat(os.fstat(file.fileno()), path.stat())

    with ThreadPoolExecutor(1) as pool:
        with locked(path):
            waiting = pool.submit(wait)
            time.sleep(0.2)
            path.unlink()
            if is_recreated:
                path.touch()
        assert waiting.result(10)
