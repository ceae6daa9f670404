"""The folder of results: gone in the end, and swept before."""

import os
import time

import pytest

from ernie_rna.web.temporary import sweep, temporary_folder


def test_gone_with_all_in_it(monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "before")
    with temporary_folder() as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        (folder / "job").mkdir()
        (folder / "job" / "file").touch()
    assert not folder.exists()
    assert os.environ["GRADIO_TEMP_DIR"] == "before"


@pytest.mark.parametrize(
    ("seconds", "size", "left"),
    [(1000, 10, {"0", "1", "2"}), (15, 10, {"0", "1"}), (1000, 2, {"0"}), (1000, 0, set())],
)
def test_old_files_go_first(tmp_path, seconds, size, left):
    for number in range(3):
        file = tmp_path / f"job{number}" / str(number)
        file.parent.mkdir()
        file.write_bytes(b"12"[: 1 + number % 2])
        os.utime(file, (time.time() - 10 * number,) * 2)
    sweep(tmp_path, seconds, size)
    assert {file.name for file in tmp_path.rglob("?")} == left
    assert len(list(tmp_path.iterdir())) == len(left)
