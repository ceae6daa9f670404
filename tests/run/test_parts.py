"""Results of chunks: files that give back what was put, and that are whole or not there."""

import os
from dataclasses import dataclass, replace

import numpy as np
import pytest

from ernie_rna.run.outputs import OutputError, full_disk_explained
from ernie_rna.run.parts import Part, pack, unpack


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


def test_gives_back_dataclasses(part):
    arrays = [np.arange(6.0).reshape(2, 3), np.zeros((0, 3)), np.ones((1, 1))]
    given = [Outer(Inner(f"a\n{n}", [[n, 2]]), n, array) for n, array in enumerate(arrays)]
    given[1] = replace(given[1], maybe=np.arange(3, dtype=np.int8), problem="é")
    part.put(pack(given), {})
    for one, found in zip(given, unpack(part, Outer), strict=True):
        assert (one.inner, one.number, one.problem) == (found.inner, found.number, found.problem)
        for own, other in ((one.values, found.values), (one.maybe, found.maybe)):
            assert type(own) is type(other)
            if own is not None:
                np.testing.assert_array_equal(own, other, strict=True)


def test_the_same_results_give_the_same_bytes(part):
    results = {"b": np.ones(3), "a": ["x"], "c": np.zeros((2, 2), np.float16)}
    part.put(results, {"x": 1, "y": 2})
    content = part.path.read_bytes()
    part.put(dict(reversed(results.items())), {"y": 2, "x": 1})
    assert part.path.read_bytes() == content


def test_refuses_texts_of_two_lines(part):
    with pytest.raises(ValueError, match="a text of lines contains a line end"):
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

    full = pytest.raises(OutputError, match=r"no room to write out .*: make room")
    with full, full_disk_explained("out", ": make room"), file_limit(2000):
        part.put({"values": np.zeros(1000)}, {})
    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        part.put({"values": np.zeros(1)}, {})
    assert not any(part.path.parent.iterdir())
