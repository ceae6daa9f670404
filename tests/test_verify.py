"""What a user can verify of a converted folder."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ernie_rna import verify
from ernie_rna.model import layers_ernie_rna
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from tests.golden.compare import BARS
from tests.golden_folder import CHECKPOINT, GOLDEN


@pytest.fixture(scope="module")
def model(golden_folder):
    return verify.load_own(golden_folder, "modeling_ernie_rna.ErnieRnaModel").eval()


# ---------------------------------------------------------------------------------------------
# A checkpoint


def test_weights_tell_whose_checkpoint_it_is_and_code_must_be_there(golden_folder, tmp_path):
    assert verify.has_weights_of(golden_folder, CHECKPOINT)
    assert verify.has_weights_of(golden_folder, GOLDEN / "tiny_fairseq_args.pt")
    weights = load_file(golden_folder / "model.safetensors")
    weights["lm_head.decoder.bias"][3] += 1e-6
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert not verify.has_weights_of(tmp_path, CHECKPOINT)
    with pytest.raises(verify.VerifyError, match=r"no folder with model\.safetensors"):
        verify.has_weights_of(tmp_path / "absent", CHECKPOINT)
    shutil.copytree(golden_folder, tmp_path / "out")
    (tmp_path / "out" / "modeling_ernie_rna.py").unlink()
    with pytest.raises(verify.VerifyError, match="lacks the model or its code"):
        verify.load_own(tmp_path / "out", "modeling_ernie_rna.ErnieRnaModel")


# ---------------------------------------------------------------------------------------------
# The published vectors, by a stand-in of the small model


@pytest.fixture
def stand_in(model, tmp_path) -> Path:
    model.set_attn_implementation("eager")
    np.save(tmp_path / "cls_embedding.npy", verify.cls_embedding(model).numpy())
    return tmp_path / "cls_embedding.npy"


def test_the_published_sequences_are_the_golden_ones(sequences):
    assert verify.SEQUENCES["5S rRNA"] == sequences["rrna_5s"]
    assert verify.SEQUENCES["arginine tRNA"] == sequences["trna_arg"]


def test_cls_embeddings_are_those_behind_each_layer(model, golden):
    embedding = verify.cls_embedding(model)  # (sequences, layers, hidden)
    for row, name in zip(embedding.float(), ("rrna_5s", "trna_arg"), strict=True):
        expected = golden[f"{name}.hidden_states"][1:, 0]
        torch.testing.assert_close(row, expected, atol=BARS["hidden state"], rtol=0)


def test_the_folders_own_code_is_compared(golden_folder, stand_in, model):
    assert type(model).__module__.startswith("transformers_modules.")
    found = verify.compare_with_published(golden_folder, stand_in)
    assert {case: values.shape for case, values in found.items()} == dict.fromkeys(
        ("eager", "sdpa", "float64"), (2, 4)
    )
    assert max(values.max() for values in found.values()) < verify.PUBLISHED_BAR


@pytest.mark.parametrize("axis", [0, 1], ids=["sequences", "layers"])
def test_sequences_and_layers_are_not_mixed_up(golden_folder, stand_in, axis):
    np.save(stand_in, np.flip(np.load(stand_in), axis))
    found = verify.compare_with_published(golden_folder, stand_in)
    assert all((found[attention] > verify.PUBLISHED_BAR).all() for attention in ("eager", "sdpa"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((2, 12, 768)), r"of shape \(2, 12, 768\); for this model .* = \(2, 4, 48\)"),
        (np.zeros((2, 4, 48), dtype=int), "holds int64 .* must be floating-point"),
        (np.array([{"a": 1}] * 2, dtype=object), "not a numpy array of numbers"),
        (b"", "not a numpy array of numbers"),
        (b"version https://git-lfs.github.com", "not a numpy array of numbers"),
        (pickle.dumps(np.zeros((2, 4, 48))), "not a numpy array of numbers"),
        (None, "No such file"),
        ({"a": np.zeros(3)}, "archive of arrays"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "wrong.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        with path.open("wb") as file:
            np.savez(file, **content) if isinstance(content, dict) else np.save(file, content)
    with pytest.raises(verify.VerifyError, match=message):
        verify.read_cls_embedding(path, (2, 4, 48))


def test_a_header_that_promises_too_much_is_refused(tmp_path):
    path = tmp_path / "huge.npy"
    np.save(path, np.zeros((2, 4, 48)))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(2, 4, 48)", b"(2, 4, 999999999999)").replace(b"   ", b"", 1))
    with pytest.raises(verify.VerifyError):
        verify.read_cls_embedding(path, (2, 4, 999999999999))


# ---------------------------------------------------------------------------------------------
# Rounding at the released size, by a model just large enough for oneDNN


@pytest.mark.parametrize("dtypes", [(), (torch.float32,)], ids=["without", "with"])
def test_each_product_that_runs_is_measured(monkeypatch, dtypes):
    """Measured: 9e-7 at most, 1.1e-7 in the root mean square, for both."""
    config = ErnieRnaConfig(hidden_size=264, num_hidden_layers=2, intermediate_size=264)
    monkeypatch.setattr(layers_ernie_rna, "_ONEDNN_DTYPES", dtypes)
    errors = verify.measure_full_size(["GGGGAAAACCCC", "AUGC" * 20], config)
    assert list(errors) == (["PyTorch's", "oneDNN's"] if dtypes else ["PyTorch's"])
    for largest, root_mean_square in errors.values():
        assert 0 < root_mean_square < largest < 1e-5
    if dtypes and torch.backends.mkldnn.is_available():
        assert errors["PyTorch's"] != errors["oneDNN's"]  # They are two products indeed.
    assert torch.backends.mkldnn.enabled
