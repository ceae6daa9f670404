"""Results of chunks: files that give back what was put, and that are whole or not there."""

import errno
import os

import numpy as np
import pytest

from ernie_rna.run.parts import Part


@pytest.fixture
def part(tmp_path):
    return Part(tmp_path / "part-0.safetensors")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.uint8])
@pytest.mark.parametrize("shape", [(0,), (5,), (0, 3), (7, 3), (2, 3, 4)])
def test_gives_back_what_was_put(part, dtype, shape):
    values = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    texts = ["", "a b", "é\t1.5"]
    assert not part.is_whole()
    part.put({"values": values, "lines": texts, "columns": values.T}, {"of": "run"})
    found = part.get("values")
    np.testing.assert_array_equal(found, values)
    assert (found.dtype, part.shape("values")) == (dtype, shape)
    np.testing.assert_array_equal(part.get("columns"), values.T)
    assert part.texts("lines") == texts
    assert part.is_whole()


def test_the_same_results_give_the_same_bytes(part):
    results = {"b": np.ones(3), "a": ["x"], "c": np.zeros((2, 2), np.float16)}
    part.put(results, {"x": 1, "y": 2})
    content = part.path.read_bytes()
    part.put(dict(reversed(results.items())), {"y": 2, "x": 1})
    assert part.path.read_bytes() == content


def test_refuses_texts_of_two_lines(part):
    with pytest.raises(ValueError, match="a text of lines has a line end in it"):
        part.put({"lines": ["a\nb"]}, {})


def test_a_damaged_part_is_not_there(part):
    part.put({"values": np.ones((7, 3), np.float32), "lines": ["a", "b"]}, {})
    content = part.path.read_bytes()
    for at in range(len(content)):
        part.path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        if part.is_whole():  # Blanks behind the header are no part of it.
            assert content[at : at + 1] == b" "
    for harmed in (content[:-1], bytes(len(content)), b""):
        part.path.write_bytes(harmed)
        assert not part.is_whole()


def test_a_part_that_is_not_written_whole_is_not_there(part, file_limit, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    with file_limit(2000), pytest.raises(OSError, match="too large") as error:
        part.put({"values": np.zeros(1000)}, {})
    assert error.value.errno == errno.EFBIG
    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        part.put({"values": np.zeros(1)}, {})
    assert not any(part.path.parent.iterdir())
