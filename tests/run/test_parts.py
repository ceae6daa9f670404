"""Parts, which are the stored results of chunks: either complete and unchanged, or absent."""

import os
from dataclasses import dataclass, replace

import numpy as np
import pytest

from ernie_rna.run.outputs import OutputError, full_disk_explained
from ernie_rna.run.parts import Part, pack, unpack
from tests.run.conftest import raising


@pytest.fixture
def part(tmp_path):
    return Part(tmp_path / "part-0.safetensors")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.uint8])
@pytest.mark.parametrize("shape", [(0,), (5,), (0, 3), (7, 3), (2, 3, 4)])
def test_arrays_and_texts_are_read_back(part, dtype, shape):
    values = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    texts = ["", "a b", "é\t1.5"]
    assert not part.is_whole()
    part.put({"values": values, "lines": texts, "columns": values.T}, {"of": "run"})
    np.testing.assert_array_equal(part.get("values"), values, strict=True)
    assert part.shape("values") == shape
    np.testing.assert_array_equal(part.get("columns"), values.T)
    assert part.texts("lines") == texts
    assert part.is_whole()


@dataclass(frozen=True)
class Inner:
    text: str
    pairs: list[list[int]]


@dataclass(frozen=True)
class Outer:
    inner: Inner
    number: int
    values: np.ndarray
    maybe: np.ndarray | None = None
    problem: str | None = None


def test_dataclasses_are_read_back(part):
    arrays = [np.arange(6.0).reshape(2, 3), np.zeros((0, 3)), np.ones((1, 1))]
    results = [Outer(Inner(f"a\n{n}", [[n, 2]]), n, array) for n, array in enumerate(arrays)]
    results[1] = replace(results[1], maybe=np.arange(3, dtype=np.int8), problem="é")
    part.put(pack(results), {})
    for stored, result in zip(unpack(part, Outer), results, strict=True):
        assert (stored.inner, stored.number) == (result.inner, result.number)
        assert stored.problem == result.problem
        np.testing.assert_array_equal(stored.values, result.values, strict=True)
        assert (stored.maybe is None) == (result.maybe is None)
        if result.maybe is not None:
            np.testing.assert_array_equal(stored.maybe, result.maybe, strict=True)


def test_the_same_results_give_the_same_bytes(part):
    results = {"b": np.ones(3), "a": ["x"], "c": np.zeros((2, 2), np.float16)}
    part.put(results, {"x": 1, "y": 2})
    content = part.path.read_bytes()
    part.put(dict(reversed(results.items())), {"y": 2, "x": 1})
    assert part.path.read_bytes() == content


def test_refuses_a_text_of_two_lines(part):
    with pytest.raises(ValueError, match="a text of lines contains a line end"):
        part.put({"lines": ["a\nb"]}, {})


def test_a_damaged_part_counts_as_absent(part):
    part.put({"values": np.ones((7, 3), np.float32), "lines": ["a", "b"]}, {})
    content = part.path.read_bytes()
    for i, byte in enumerate(content):
        part.path.write_bytes(content[:i] + bytes([byte ^ 1]) + content[i + 1 :])
        if part.is_whole():
            assert byte == ord(" ")  # The checksum leaves out the blanks after the header.
    for damaged in (content[:-1], bytes(len(content)), b""):
        part.path.write_bytes(damaged)
        assert not part.is_whole()


def test_an_incomplete_part_leaves_no_file(part, file_limit, monkeypatch):
    no_room = pytest.raises(OutputError, match=r"no room to write out .*: make room")
    with no_room, full_disk_explained("out", ": make room"), file_limit(2000):
        part.put({"values": np.zeros(1000)}, {})
    monkeypatch.setattr(os, "fsync", raising(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        part.put({"values": np.zeros(1)}, {})
    assert not any(part.path.parent.iterdir())
