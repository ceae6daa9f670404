"""What is kept beside an output: parts that are whole or not there, and read in blocks."""

import errno
import resource

import numpy as np
import pytest
from safetensors.numpy import load_file

from ernie_rna.run import store as store_module
from ernie_rna.run.arrays import Array, join, write_safetensors
from ernie_rna.run.outputs import OutputError, reserve
from ernie_rna.run.store import Store

SETTINGS = {"model": {"name": "M"}, "layers": [0, 1]}


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "out.npz") as store:
        store.begin(SETTINGS)
        yield store


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.uint8])
@pytest.mark.parametrize("shape", [(0,), (5,), (0, 3), (7, 3), (2, 3, 4)])
def test_gives_back_what_was_put(store, monkeypatch, dtype, shape):
    monkeypatch.setattr(store_module, "_BLOCK_BYTES", 16)
    values = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    texts = ["", "a b", "é\t1.5"]
    store.put(0, {"values": values, "lines": texts})
    (part,) = store.parts(1)
    np.testing.assert_array_equal(part.get("values"), values)
    assert part.texts("lines") == texts
    array = part.array("values")
    assert (array.shape, array.dtype) == (shape, dtype)
    blocks = list(array.blocks)
    assert all(block.nbytes <= max(16, values[:1].nbytes) for block in blocks)
    np.testing.assert_array_equal(np.concatenate([values[:0], *blocks]), values)


def test_joins_parts(store):
    for number in range(3):
        store.put(number, {"values": np.full((number, 2), number)})
    joined = join([part.array("values") for part in store.parts(3)])
    assert joined.shape == (3, 2)
    assert np.concatenate(list(joined.blocks)).tolist() == [[1, 1], [2, 2], [2, 2]]


def test_refuses_texts_of_two_lines(store):
    with pytest.raises(ValueError, match="a text of lines has a line end in it"):
        store.put(0, {"lines": ["a\nb"]})


def test_a_damaged_part_is_not_there(store):
    store.put(0, {"values": np.ones((7, 3), np.float32), "lines": ["a", "b"]})
    assert store.has(0)
    (part,) = store.parts(1)
    content = part.path.read_bytes()
    for at in range(len(content)):
        part.path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        if store.has(0):  # Blanks behind the header are no part of it.
            assert content[at : at + 1] == b" "
    part.path.write_bytes(content[:-1])
    assert not store.has(0)


@pytest.mark.parametrize("content", [b"[]x", b"[1]", b"3", b"\xff", b"[" * 100_000])
def test_a_damaged_manifest_is_refused(store, content):
    (store.folder / "manifest.json").write_bytes(content)
    with pytest.raises(OutputError, match=r"manifest\.json is damaged; delete"):
        store.begin(SETTINGS)


def test_a_part_for_which_there_is_no_room_is_not_there(store):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(OSError, match=r"too large") as error:
            store.put(0, {"values": np.zeros(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.errno == errno.EFBIG
    assert not store.has(0)
    assert sorted(path.name for path in store.folder.iterdir()) == ["lock", "manifest.json"]


def test_goes_on_if_nothing_has_changed(tmp_path):
    output = tmp_path / "out"
    with Store(output) as store:
        assert not store.begin(SETTINGS)
        store.put(0, {"values": np.zeros(1)})
    with Store(output) as store:
        assert store.begin(SETTINGS)
        assert [store.has(number) for number in range(2)] == [True, False]
        with pytest.raises(OutputError, match=r"layers was \[0, 1\], is \[1\].*--force"):
            store.begin({**SETTINGS, "layers": [1]})
    with Store(output, force=True) as store:
        assert not store.begin({**SETTINGS, "layers": [1]})
        assert not store.has(0)
        store.remove()
    assert list(tmp_path.iterdir()) == []


def test_leaves_the_files_of_others(store):
    (store.folder / "notes.txt").write_text("mine")
    store.remove()
    assert [path.name for path in store.folder.iterdir()] == ["notes.txt"]


def test_an_output_that_is_there(tmp_path):
    (tmp_path / "out").write_text("precious")
    with pytest.raises(OutputError, match="out exists already; --force replaces it"):
        Store(tmp_path / "out")


def test_safetensors_reads_what_is_streamed(tmp_path):
    blocks = [np.ones((2, 3), np.float16), np.zeros((1, 3), np.float16)]
    arrays = [Array("a", np.dtype(np.float16), (3, 3), blocks)]
    arrays.append(Array("b", np.dtype(np.int64), (2,), [np.arange(2)]))
    write_safetensors(tmp_path / "file", arrays, {"key": "value"})
    found = load_file(tmp_path / "file")
    np.testing.assert_array_equal(found["a"], np.concatenate(blocks))
    np.testing.assert_array_equal(found["b"], [0, 1])


@pytest.mark.parametrize("posix", [True, False])
def test_reserves_room_or_says_that_there_is_none(tmp_path, monkeypatch, posix):
    if not posix:
        monkeypatch.delattr("os.posix_fallocate")
        usage = type("Usage", (), {"free": 1 << 20})
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    reserve(tmp_path / "file", 1000)
    with pytest.raises(OSError, match=r"No space|too large") as error:
        reserve(tmp_path / "file", 1 << 60)
    assert error.value.errno in (errno.ENOSPC, errno.EFBIG)
