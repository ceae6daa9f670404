"""Every format of embeddings: round trips, memory, damaged and foreign files, and full disks."""

import json
import os
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ernie_rna.embeddings.embed import resolve_columns
from ernie_rna.embeddings.formats import (
    Embedding,
    check_format,
    existing_files,
    is_per_token,
    pack,
    read_embeddings,
    read_metadata,
    write_parts,
)
from ernie_rna.options import POOLINGS
from ernie_rna.run.outputs import OutputError, full_disk_explained
from ernie_rna.run.parts import Part
from ernie_rna.sequences.fasta import InputError
from tests.run.conftest import raising

MODULES = {".safetensors": "numpy", ".h5": "h5py", ".npz": "numpy", ".parquet": "pyarrow"}
METADATA = {"model": {"name": "M"}, "note": 'Ü "quoted" \n'}
LARGE = 1 << 30


@pytest.fixture(params=MODULES)
def suffix(request):
    pytest.importorskip(MODULES[request.param])
    return request.param


@pytest.fixture
def make_parts(tmp_path):
    """A function that returns parts, as a run stores them, their metadata, and their embeddings."""

    def make(records=50, dtype=np.float32, chunk_records=16, hidden=8, pooling=POOLINGS):
        columns = [*resolve_columns((0, 2), pooling, 2)]
        metadata = {**METADATA, "columns": columns}
        generator = np.random.default_rng(0)
        embeddings, parts = [], []
        for i in range(records):
            arrays, length = {}, 1 + i % 7
            for name in columns:
                shape = (length, hidden) if is_per_token(name) else (hidden,)
                arrays[name] = generator.normal(size=shape).astype(dtype)
            embeddings.append(Embedding(f"r{i}-é", length, arrays))
        for start in range(0, records, chunk_records):
            parts.append(Part(tmp_path / f"part-{start}.safetensors"))
            parts[-1].put(pack(embeddings[start : start + chunk_records]), metadata)
        return parts, metadata, embeddings

    return make


@pytest.fixture
def write(make_parts, tmp_path):
    """A function that writes embeddings to one file and returns it, its metadata and these."""

    def write(name, **options):
        parts, metadata, embeddings = make_parts(**options)
        assert write_parts(parts, tmp_path / name, metadata, LARGE) == [tmp_path / name]
        return tmp_path / name, metadata, embeddings

    return write


def peak_memory(call):
    tracemalloc.start()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def check_equal(embeddings, expected, dtype=None):
    for embedding, other in zip(embeddings, expected, strict=True):
        assert (embedding.id, embedding.length) == (other.id, other.length)
        assert set(embedding.arrays) == set(other.arrays)
        for name, array in other.arrays.items():
            array = array.astype(dtype or array.dtype)
            np.testing.assert_array_equal(embedding.arrays[name], array, strict=True)


@pytest.mark.parametrize("records", [50, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_embeddings_and_metadata_are_read_back(write, suffix, records, dtype):
    output, metadata, embeddings = write(f"out{suffix}", records=records, dtype=dtype)
    check_equal(read_embeddings(output), embeddings)
    assert read_metadata(output) == metadata


@pytest.mark.parametrize(("name", "separator"), [("out.csv", ","), ("out.TSV", "\t")])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_tables(write, name, separator, dtype):
    output, metadata, embeddings = write(name, dtype=dtype, pooling=("mean", "cls"))
    table = np.genfromtxt(output, delimiter=separator, names=True, dtype=None, encoding="utf-8")
    assert table.dtype.names[:4] == ("id", "length", "cls_layer0_0", "cls_layer0_1")
    expected = [embedding["mean_layer2"][7] for embedding in embeddings]
    assert table["mean_layer2_7"].astype(np.float32).tolist() == expected
    check_equal(read_embeddings(output), embeddings, np.float32)
    assert read_metadata(output) == {"columns": metadata["columns"]}
    with pytest.raises(ValueError, match="a table cannot hold token vectors"):
        check_format(str(output), ("token",))


def test_shards(make_parts, tmp_path):
    parts, metadata, embeddings = make_parts()
    output = tmp_path / "out.safetensors"
    contents = [part.path.read_bytes() for part in parts]
    parts[0].path.chmod(0o600)  # as some versions of safetensors write it
    files = write_parts(parts, output, metadata, 3000)
    assert len({path.stat().st_mode for path in files}) == 1
    names = [f"out-{i:05d}-of-00004.safetensors" for i in range(1, 5)]
    assert [path.name for path in files] == [*names, "out.safetensors.index.json"]
    assert [path.read_bytes() for path in files[:-1]] == contents  # Shards are the moved parts.
    index = json.loads(files[-1].read_text())
    assert index["metadata"] == metadata
    bounds = [(shard["start"], shard["stop"]) for shard in index["shards"]]
    assert bounds == [(0, 16), (16, 32), (32, 48), (48, 50)]
    for path in (output, files[-1]):
        check_equal(read_embeddings(path), embeddings)
        assert read_metadata(path) == metadata
    assert set(existing_files(output)) == set(files)
    # A single file replaces all of them.
    write_parts(make_parts()[0], output, metadata, LARGE)
    assert existing_files(output) == [output]
    assert not any(path.exists() for path in files)


def test_files_are_readable_without_this_library(write):
    path, metadata, embeddings = write("out.safetensors")
    arrays, ids = load_file(path), [embedding.id for embedding in embeddings]
    assert bytes(arrays["ids"]).decode().split() == ids
    start, stop = arrays["offsets"][7:9]
    np.testing.assert_array_equal(arrays["token_layer2"][start:stop], embeddings[7]["token_layer2"])
    with np.load(write("out.npz")[0]) as archive:
        assert archive["ids"].tolist() == ids
        assert archive["lengths"].tolist() == [embedding.length for embedding in embeddings]
        for name in ("offsets", *metadata["columns"]):
            np.testing.assert_array_equal(archive[name], arrays[name])
        assert json.loads(str(archive["metadata"])) == metadata
    h5py, parquet = map(pytest.importorskip, ("h5py", "pyarrow.parquet"))
    rows = parquet.read_table(write("out.parquet")[0])
    assert rows.column_names == ["id", "length", *metadata["columns"]]
    assert rows["cls_layer2"][3].as_py() == embeddings[3]["cls_layer2"].tolist()
    assert rows["token_layer0"][5].as_py() == embeddings[5]["token_layer0"].tolist()
    with h5py.File(write("out.hdf5")[0]) as file:
        assert set(file) == {"ids", "lengths", "offsets", *metadata["columns"]}
        assert file["ids"].asstr()[5] == ids[5]


def test_memory_is_a_fraction_of_the_file(make_parts, tmp_path, suffix):
    # Apart from the vectors of a part, the ids, which are Python objects, need most of it.
    parts, metadata, _ = make_parts(records=2000, chunk_records=100, hidden=256)
    output = tmp_path / f"out{suffix}"
    write_parts(parts, output, metadata, LARGE)  # Imports are not counted.
    size = output.stat().st_size
    assert peak_memory(lambda: write_parts(parts, output, metadata, LARGE)) < size / 4
    # From an .npz, numpy can only read complete arrays.
    limit = size * (1.2 if suffix == ".npz" else 0.25)
    assert peak_memory(lambda: [None for _ in read_embeddings(output)]) < limit


def test_other_extensions_and_missing_libraries(tmp_path, monkeypatch):
    for name in ("out.xlsx", "out", "out.NPZ.txt"):
        with pytest.raises(ValueError, match=r"extension must be one of .safetensors, .h5, .hdf5"):
            check_format(name)
        with pytest.raises(ValueError, match=rf"{name}: the extension must be one of"):
            read_metadata(name)
    check_format("OUT.NPZ")
    for module in ("h5py", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    for name, extra in (("o.h5", "hdf5"), ("o.parquet", "parquet")):
        with pytest.raises(ImportError, match=rf'pip install "ernie-rna\[{extra}\]"'):
            check_format(name)


# ---------------------------------------------------------------------------------------------
# Files that are damaged or foreign


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"\0" * 16 + content[16:], id="head"),
        pytest.param(lambda content: content[:-16], id="end"),
    ],
)
def test_damaged_files_are_refused(write, suffix, damage):
    path, _, _ = write(f"out{suffix}")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=rf"out\{suffix}: damaged, or not a file of embeddings"):
        list(read_embeddings(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,c\n", "line 1: no column id, length; it has a, b, c"),
        ("id,length\nx,1\n", "damaged, or .*: its columns must be id, length"),
        ("id,length,m_layer0_1,m_layer0_0\nx,1,2,3\n", "damaged, or .* vectors, all in order"),
        ("id,length,m_layer0_0\nx,-4,1\n", "damaged, or .*: a sequence of -4 nucleotides"),
        ("id,length,m_layer0_0\nx,1,zwei\n", "damaged, or not a file of embeddings"),
    ],
)
def test_foreign_tables(tmp_path, content, message):
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(InputError, match=rf"in\.csv: {message}"):
        list(read_embeddings(tmp_path / "in.csv"))


@pytest.mark.parametrize(
    ("lengths", "shape", "message"),
    [
        ([2, 3], (5,), r"token_layer1 has shape \(5,\), but must have 5 rows"),
        ([2, 3], (4, 2), "damaged, or not a file of embeddings"),
        ([2, 0], (2, 2), "a sequence of 0 nucleotides"),
        ([2, 3], None, "out.safetensors: damaged, or not a file of embeddings"),
    ],
)
def test_foreign_arrays(tmp_path, lengths, shape, message):
    arrays = {"ids": np.frombuffer(b"a\nb\n", np.uint8), "lengths": np.array(lengths)}
    metadata = None  # of another program
    if shape is not None:
        arrays["token_layer1"] = np.ones(shape, np.float32)
        metadata = {"ernie_rna": json.dumps({"columns": ["token_layer1"]})}
    save_file(arrays, tmp_path / "out.safetensors", metadata)
    with pytest.raises(InputError, match=message):
        list(read_embeddings(tmp_path / "out.safetensors"))


def test_hdf5_without_checksums(write, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(write("out.h5")[0]) as new, h5py.File(tmp_path / "old.h5", "w") as old:
        for name in new:
            old[name] = new[name][()]
    with pytest.raises(InputError, match=r"old\.h5: .*without checksums \(superblock 0\)"):
        list(read_embeddings(tmp_path / "old.h5"))


@pytest.mark.parametrize(
    ("index", "error"),
    [
        ("{", InputError),
        ('{"shards": []}', InputError),
        ('{"shards": [{"file": "../a.safetensors"}]}', InputError),
        ('{"shards": [{"file": "a.txt"}]}', InputError),
        ('{"shards": [{"file": "out-3.safetensors"}]}', FileNotFoundError),
    ],
)
def test_an_invalid_index_of_shards(tmp_path, index, error):
    (tmp_path / "out.safetensors.index.json").write_text(index)
    with pytest.raises(error):
        list(read_embeddings(tmp_path / "out.safetensors"))


# ---------------------------------------------------------------------------------------------
# Full disks, killed processes and links


@pytest.mark.parametrize("share", [0.0, 0.03, 0.3, 0.9, 0.99])
def test_no_room_for_the_output(make_parts, tmp_path, suffix, monkeypatch, file_limit, share):
    output = tmp_path / f"out{suffix}"
    parts, metadata, _ = make_parts(chunk_records=4)
    write_parts(parts, output, metadata, LARGE)
    expected = output.read_bytes()
    output.write_bytes(b"from an earlier run")
    room = int(share * len(expected))
    if suffix == ".h5":  # HDF5 can loop forever on a full disk, so the free space is checked first.
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=room))
    with (
        pytest.raises(OutputError, match=r"no room to write .*run it again"),
        file_limit(room),
        full_disk_explained(output, "; run it again"),
    ):
        write_parts(parts, output, metadata, LARGE)
    assert output.read_bytes() == b"from an earlier run"
    assert not list(output.parent.glob("*.tmp"))
    monkeypatch.undo()
    write_parts(parts, output, metadata, LARGE)
    assert output.read_bytes() == expected


def test_shards_of_two_runs_are_never_mixed(make_parts, tmp_path, monkeypatch):
    """Nor is a part lost if the process that moves the parts is killed."""
    output, link = tmp_path / "out.safetensors", os.link
    parts, metadata, _ = make_parts(dtype=np.float16)
    write_parts(parts, output, metadata, 1000)
    parts, metadata, embeddings = make_parts()

    def interrupted(source, target):
        if source == parts[1].path:
            raise KeyboardInterrupt
        link(source, target)

    monkeypatch.setattr(os, "link", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_parts(parts, output, metadata, 1000)
    assert not existing_files(output)
    assert all(part.is_whole() for part in parts)
    # The file system has no links: parts are moved in another way.
    monkeypatch.setattr(os, "link", raising(OSError()))
    write_parts(parts, output, metadata, 1000)
    check_equal(read_embeddings(output), embeddings)


def test_output_through_a_link(make_parts, tmp_path):
    """The target has no extension, like the files in the cache of the Hub."""
    link = tmp_path / "out.safetensors"
    (tmp_path / "cache").mkdir()
    link.symlink_to(tmp_path / "cache" / "blob")
    for size in (3000, LARGE):
        parts, metadata, embeddings = make_parts()
        files = write_parts(parts, link, metadata, size)
        assert {*files} == {*existing_files(link)} == {*(tmp_path / "cache").iterdir()}
        check_equal(read_embeddings(link), embeddings)
