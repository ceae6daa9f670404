"""Files of embeddings that are damaged, or not ours."""

import json
import shutil

import numpy as np
import pytest
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from safetensors.numpy import save_file

from ernie_rna.embeddings.embed import embed
from ernie_rna.embeddings.readers import read_embeddings, read_metadata
from ernie_rna.sequences.fasta import InputError

RNA = {"a": "GGGAAACCC", "b-é": "ACGU", "c": "ACGUN" * 5}
MODULES = {".h5": "h5py", ".parquet": "pyarrow", ".npz": "numpy", ".safetensors": "safetensors"}


@pytest.fixture
def write(config, tmp_path):
    """Writes embeddings of three RNAs to a file with an extension."""

    def write(suffix):
        pytest.importorskip(MODULES[suffix])
        model = ErnieRnaModel(config, add_pooling_layer=False).eval()
        path = tmp_path / f"out{suffix}"
        embed(RNA, model, path, progress=False)
        return path

    return write


@pytest.mark.parametrize("suffix", MODULES)
@pytest.mark.parametrize("damage", ["empty", "cut", "head", "end"])
def test_damaged_files_are_refused(write, suffix, damage):
    path = write(suffix)
    content = path.read_bytes()
    damaged = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "head": b"\0" * 16 + content[16:],
        "end": content[:-16],
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(InputError, match=rf"out\{suffix}: damaged, or no file of embeddings"):
        list(read_embeddings(path))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "out.safetensors"
    save_file({"ids": np.frombuffer(b"a\n", np.uint8), "lengths": np.ones(1, np.int64)}, path)
    with pytest.raises(InputError, match=r"out\.safetensors: damaged, or no file of embeddings"):
        read_metadata(path)
    with pytest.raises(FileNotFoundError):
        list(read_embeddings(tmp_path / "nowhere.npz"))
    with pytest.raises(ValueError, match=r"out\.csv: the extension must be one of"):
        list(read_embeddings(tmp_path / "out.csv"))


def test_vectors_that_do_not_fit_the_lengths(tmp_path):
    arrays = {
        "ids": np.frombuffer(b"a\nb\n", np.uint8),
        "lengths": np.array([2, 3]),
        "token_layer1": np.ones(5, np.float32),
    }
    metadata = {"ernie_rna": json.dumps({"columns": ["token_layer1"]})}
    save_file(arrays, tmp_path / "out.safetensors", metadata)
    with pytest.raises(InputError, match=r"token_layer1 of 'a' has shape \(2,\) for 2 nuc"):
        list(read_embeddings(tmp_path / "out.safetensors"))


def test_hdf5_without_checksums(write, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(write(".h5")) as ours, h5py.File(tmp_path / "old.h5", "w") as old:
        for name in ours:
            old[name] = ours[name][()]
    with pytest.raises(InputError, match=r"old\.h5: .*without checksums \(superblock 0\)"):
        list(read_embeddings(tmp_path / "old.h5"))


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (b"{", InputError),
        (b"{}", InputError),
        (b'{"shards": []}', InputError),
        (b'{"shards": [{"file": "../a.safetensors"}]}', InputError),
        (b'{"shards": [{"file": "a.csv"}]}', InputError),
        (b'{"shards": [{"file": "out-3.safetensors"}]}', FileNotFoundError),
    ],
)
def test_an_index_of_shards_that_is_off(write, index, error):
    path = write(".safetensors")
    shutil.move(path, path.with_name("out-1.safetensors"))
    path.with_name("out.safetensors.index.json").write_bytes(index)
    with pytest.raises(error):
        list(read_embeddings(path))
