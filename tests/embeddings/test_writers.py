"""Every output format: what is in it, that it is streamed, and a disk that fills."""

import contextlib
import errno
import json
import resource
import sys
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file

from ernie_rna.embeddings.embedding import resolve_columns
from ernie_rna.embeddings.readers import read_embeddings, read_metadata
from ernie_rna.embeddings.writers import Table, check_output, existing_files, write_table
from ernie_rna.run.outputs import OutputError, full_disk_explained, replacing, write_atomically
from ernie_rna.run.store import Store
from ernie_rna.sequences.fasta import FastaRecord

FORMATS = [".safetensors", ".h5", ".npz", ".parquet"]
METADATA = {"columns": [], "model": {"name": "M"}, "note": 'Ü "quoted" \n'}


@pytest.fixture(params=FORMATS)
def suffix(request):
    pytest.importorskip({".h5": "h5py", ".parquet": "pyarrow"}.get(request.param, "numpy"))
    return request.param


@pytest.fixture
def make_table(tmp_path):
    """Parts of random vectors, as a run leaves them, and the vectors."""

    def make(suffix, records=50, dtype=np.float32, window_records=16, hidden=8):
        pooling = ("mean", "cls") if suffix == ".parquet" else ("mean", "cls", "token")
        columns = resolve_columns((0, 2), pooling, 2)
        given = [FastaRecord(f"r{i}-é", "A" * (1 + i % 7)) for i in range(records)]
        generator = np.random.default_rng(0)
        metadata = {**METADATA, "columns": [column.name for column in columns]}
        store = Store(tmp_path / f"out{suffix}")
        store.begin(metadata)
        expected = {column.name: {} for column in columns}
        starts = range(0, records, window_records)
        for number, start in enumerate(starts):
            window = given[start : start + window_records]
            results = {
                "ids": [record.id for record in window],
                "lengths": np.array([len(record.sequence) for record in window]),
            }
            for column in columns:
                rows = results["lengths"] if column.per_token else [1] * len(window)
                vectors = [generator.normal(size=(n, hidden)).astype(dtype) for n in rows]
                expected[column.name].update(zip(results["ids"], vectors, strict=True))
                results[column.name] = np.concatenate(vectors)
            store.put(number, results)
        return Table(metadata, store.parts(len(starts))), store, given, expected

    return make


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_reads_what_was_written(make_table, suffix, dtype):
    table, store, given, expected = make_table(suffix, dtype=dtype)
    assert write_table(table, store.output, store.folder) == [store.output]
    found = list(read_embeddings(store.output))
    assert [(e.id, e.length) for e in found] == [(r.id, len(r.sequence)) for r in given]
    for embedding in found:
        assert set(embedding.arrays) == set(expected)
        for name, vectors in expected.items():
            array = vectors[embedding.id]
            array = array if name.startswith("token") else array[0]
            assert embedding.arrays[name].dtype == dtype
            np.testing.assert_array_equal(embedding.arrays[name], array)
    assert read_metadata(store.output) == table.metadata


def test_the_same_bytes_again(make_table, suffix):
    table, store, _, _ = make_table(suffix)
    write_table(table, store.output, store.folder)
    first = store.output.read_bytes()
    write_table(table, store.output, store.folder)
    assert store.output.read_bytes() == first


def test_shards(make_table):
    table, store, given, _ = make_table(".safetensors")
    files = write_table(table, store.output, store.folder, shard_bytes=3000)
    names = [f"out-{i:05d}-of-00004.safetensors" for i in range(1, 5)]
    assert [path.name for path in files] == [*names, "out.safetensors.index.json"]
    index = json.loads(files[-1].read_text())
    assert index["metadata"] == table.metadata
    bounds = [(shard["start"], shard["stop"]) for shard in index["shards"]]
    assert bounds == [(0, 16), (16, 32), (32, 48), (48, 50)]
    assert [e.id for e in read_embeddings(store.output)] == [record.id for record in given]
    assert set(existing_files(store.output)) == set(files)
    # One file in their place leaves none of them behind.
    write_table(table, store.output, store.folder)
    assert existing_files(store.output) == [store.output]
    assert not any(path.exists() for path in files)


def test_what_other_readers_see(make_table):
    table, store, given, expected = make_table(".safetensors")
    write_table(table, store.output, store.folder)
    arrays = load_file(store.output)
    assert bytes(arrays["ids"]).decode().split() == [record.id for record in given]
    start, stop = arrays["offsets"][7:9]
    np.testing.assert_array_equal(
        arrays["token_layer2"][start:stop], expected["token_layer2"][given[7].id]
    )
    npz = store.output.with_suffix(".npz")
    write_table(table, npz, store.folder)
    with np.load(npz) as archive:
        assert archive["ids"].tolist() == [record.id for record in given]
        assert archive["lengths"].tolist() == [len(record.sequence) for record in given]
        np.testing.assert_array_equal(archive["mean_layer0"], arrays["mean_layer0"])
        assert json.loads(str(archive["metadata"])) == table.metadata


def test_the_names_of_hdf5_and_parquet(make_table):
    h5py = pytest.importorskip("h5py")
    parquet = pytest.importorskip("pyarrow.parquet")
    table, store, given, expected = make_table(".parquet")
    write_table(table, store.output, store.folder)
    rows = parquet.read_table(store.output)
    assert rows.column_names == ["id", "length", *table.metadata["columns"]]
    assert rows["cls_layer2"][3].as_py() == expected["cls_layer2"][given[3].id][0].tolist()
    hdf5 = store.output.with_suffix(".hdf5")
    write_table(table, hdf5, store.folder)
    with h5py.File(hdf5) as file:
        assert set(file) == {"ids", "lengths", *table.metadata["columns"]}
        assert file["ids"].asstr()[5] == given[5].id


def test_writes_without_holding_the_table(make_table, suffix):
    # Beside the vectors of a part, the ids, as objects, are what is largest here.
    table, store, _, _ = make_table(suffix, records=2000, window_records=100, hidden=256)
    write_table(table, store.output, store.folder)  # Imports are not counted.
    tracemalloc.start()
    write_table(table, store.output, store.folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < store.output.stat().st_size / 4


@pytest.mark.parametrize(
    ("name", "pooling", "message"),
    [
        ("out.csv", "mean", "the extension must be one of .safetensors, .h5, .hdf5, .npz"),
        ("out", "mean", "the extension must be one of"),
        ("out.parquet", "token", "a row a sequence, so no token vectors; write .h5"),
    ],
)
def test_refuses_outputs(tmp_path, name, pooling, message):
    with pytest.raises(ValueError, match=message):
        check_output(tmp_path / name, {pooling})


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("o.h5", "h5py", "hdf5"), ("o.parquet", "pyarrow.parquet", "parquet")],
)
def test_names_the_extra(tmp_path, monkeypatch, name, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)
    with pytest.raises(ImportError, match=rf'pip install "ernie-rna\[{extra}\]"'):
        check_output(tmp_path / name, {"mean"})


# ---------------------------------------------------------------------------------------------
# A disk that fills


@contextlib.contextmanager
def room_for(size):
    """Bounds the size of files, which fails a write as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.03, 0.1, 0.3, 0.5, 0.9, 0.99])
def test_no_room_for_the_output(make_table, suffix, share):
    table, store, _, _ = make_table(suffix, window_records=4)
    write_table(table, store.output, store.folder)
    whole = store.output.read_bytes()
    store.output.write_bytes(b"what was there before")
    refused = pytest.raises(OutputError, match=r"no room to write .*run it again")
    with (
        refused,
        room_for(int(share * len(whole))),
        full_disk_explained(store.output, "; run it again"),
    ):
        write_table(table, store.output, store.folder)
    assert store.output.read_bytes() == b"what was there before"
    assert not list(store.folder.glob("output-*"))
    write_table(table, store.output, store.folder)
    assert store.output.read_bytes() == whole


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(PermissionError), full_disk_explained(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_replacing(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def write_half():
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
