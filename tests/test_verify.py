"""Checks of a converted folder: its checkpoint, the published embeddings, the full size."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from ernie_rna import verify
from ernie_rna.model import layers_ernie_rna
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from tests.golden.compare import BARS
from tests.golden_folder import CHECKPOINT, GOLDEN, head_checkpoint, write_golden_folder


@pytest.fixture(scope="module")
def model(golden_folder):
    return verify.load_own(golden_folder, "modeling_ernie_rna.ErnieRnaModel").eval()


# ---------------------------------------------------------------------------------------------
# A checkpoint


def test_a_folder_matches_its_checkpoint_and_must_be_complete(golden_folder, tmp_path):
    assert verify.has_weights_of(golden_folder, CHECKPOINT)
    assert verify.has_weights_of(golden_folder, GOLDEN / "tiny_fairseq_args.pt")
    with pytest.raises(verify.VerifyError, match=r"not a folder with model\.safetensors"):
        verify.has_weights_of(tmp_path / "absent", CHECKPOINT)
    sharded = write_golden_folder(tmp_path, head_checkpoint("closeness"))
    model = AutoModel.from_pretrained(sharded)
    model.save_pretrained(sharded, max_shard_size="200KB")
    (sharded / "model.safetensors").unlink()
    assert verify.has_weights_of(sharded, head_checkpoint("closeness"))
    next(sharded.glob("model-*-of-*.safetensors")).unlink()
    with pytest.raises(verify.VerifyError, match=r"not a folder with model-.*\.safetensors"):
        verify.has_weights_of(sharded, head_checkpoint("closeness"))
    changed = tmp_path / "changed"
    shutil.copytree(golden_folder, changed)
    weights = load_file(changed / "model.safetensors")
    weights["lm_head.decoder.bias"][3] += 1e-6
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    assert not verify.has_weights_of(changed, CHECKPOINT)
    (changed / "modeling_ernie_rna.py").unlink()
    with pytest.raises(verify.VerifyError, match="the model or its code is missing"):
        verify.load_own(changed, "modeling_ernie_rna.ErnieRnaModel")


# ---------------------------------------------------------------------------------------------
# The published embeddings, replaced by those of the small model


@pytest.fixture
def published(model, tmp_path) -> Path:
    """A file as the published one, computed by the small model."""
    model.set_attn_implementation("eager")
    np.save(tmp_path / "cls_embedding.npy", verify.cls_embedding(model).numpy())
    return tmp_path / "cls_embedding.npy"


def test_cls_embeddings_are_the_hidden_states_after_each_layer(model, golden, sequences):
    embedding = verify.cls_embedding(model)  # (sequences, layers, hidden)
    named = {"5S rRNA": "rrna_5s", "arginine tRNA": "trna_arg"}
    for row, (name, golden_name) in zip(embedding.float(), named.items(), strict=True):
        assert verify.SEQUENCES[name] == sequences[golden_name]
        expected = golden[f"{golden_name}.hidden_states"][1:, 0]
        torch.testing.assert_close(row, expected, atol=BARS["hidden state"], rtol=0)


@pytest.mark.parametrize("flipped", [None, 0, 1], ids=["as published", "sequences", "layers"])
def test_embeddings_are_compared_by_sequence_and_layer(golden_folder, published, model, flipped):
    assert type(model).__module__.startswith("transformers_modules.")  # the code of the folder
    if flipped is not None:
        np.save(published, np.flip(np.load(published), flipped))
    differences = verify.compare_with_published(golden_folder, published)
    assert list(differences) == ["eager", "sdpa", "float64"]
    for values in differences.values():
        assert values.shape == (2, 4)
        assert ((values < verify.PUBLISHED_BAR) == (flipped is None)).all()


def write_huge_shape(file) -> None:
    np.save(file, np.zeros((2, 4, 48)))
    file.seek(0)
    data = file.read().replace(b"(2, 4, 48)", b"(2, 4, 999999999999)").replace(b"   ", b"", 1)
    file.seek(0)
    file.write(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((2, 12, 768)), r"of shape \(2, 12, 768\); for this model .* = \(2, 4, 48\)"),
        (np.zeros((2, 4, 48), dtype=int), "holds int64 .* must be floating-point"),
        (np.array([{"a": 1}] * 2, dtype=object), "not a numpy array of numbers"),
        (lambda file: None, "not a numpy array of numbers"),
        (lambda file: file.write(b"version https://git-lfs.github.com"), "not a numpy array"),
        (lambda file: pickle.dump(np.zeros((2, 4, 48)), file), "not a numpy array of numbers"),
        (lambda file: np.savez(file, a=np.zeros(3)), "not a numpy array of numbers"),
        (write_huge_shape, "not a numpy array of numbers"),
        (None, "No such file"),
    ],
)
def test_a_wrong_file_of_embeddings_is_refused(tmp_path, content, message):
    path = tmp_path / "wrong.npy"
    if content is not None:
        with path.open("w+b") as file:
            content(file) if callable(content) else np.save(file, content)
    with pytest.raises(verify.VerifyError, match=message):
        verify.read_cls_embedding(path, (2, 4, 48))


# ---------------------------------------------------------------------------------------------
# Rounding at full size, with a model just large enough for oneDNN


@pytest.mark.parametrize("dtypes", [(), (torch.float32,)], ids=["without", "with"])
def test_the_error_of_every_available_matrix_product_is_measured(monkeypatch, dtypes):
    """The bar is 1e-5. Measured for both products: largest 9e-7, root mean square 1.1e-7."""
    config = ErnieRnaConfig(hidden_size=264, num_hidden_layers=2, intermediate_size=264)
    monkeypatch.setattr(layers_ernie_rna, "_ONEDNN_DTYPES", dtypes)
    errors = verify.measure_full_size(["GGGGAAAACCCC", "AUGC" * 20], config)
    assert list(errors) == (["PyTorch's", "oneDNN's"] if dtypes else ["PyTorch's"])
    for largest, root_mean_square in errors.values():
        assert 0 < root_mean_square < largest < 1e-5
    if dtypes and torch.backends.mkldnn.is_available():
        assert errors["PyTorch's"] != errors["oneDNN's"]  # Both have been used.
    assert torch.backends.mkldnn.enabled
