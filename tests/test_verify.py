"""What a user can verify of a converted folder."""

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


def test_weights_tell_whose_checkpoint_it_is_and_code_must_be_there(golden_folder, tmp_path):
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
# The published vectors, by a stand-in of the small model


@pytest.fixture
def stand_in(model, tmp_path) -> Path:
    model.set_attn_implementation("eager")
    np.save(tmp_path / "cls_embedding.npy", verify.cls_embedding(model).numpy())
    return tmp_path / "cls_embedding.npy"


def test_cls_embeddings_are_those_behind_each_layer(model, golden, sequences):
    embedding = verify.cls_embedding(model)  # (sequences, layers, hidden)
    named = {"5S rRNA": "rrna_5s", "arginine tRNA": "trna_arg"}
    for row, (name, golden_name) in zip(embedding.float(), named.items(), strict=True):
        assert verify.SEQUENCES[name] == sequences[golden_name]
        expected = golden[f"{golden_name}.hidden_states"][1:, 0]
        torch.testing.assert_close(row, expected, atol=BARS["hidden state"], rtol=0)


@pytest.mark.parametrize("flipped", [None, 0, 1], ids=["as published", "sequences", "layers"])
def test_vectors_are_compared_by_sequence_and_layer(golden_folder, stand_in, model, flipped):
    """Of the folder's own code."""
    assert type(model).__module__.startswith("transformers_modules.")
    np.save(stand_in, np.load(stand_in) if flipped is None else np.flip(np.load(stand_in), flipped))
    found = verify.compare_with_published(golden_folder, stand_in)
    assert list(found) == ["eager", "sdpa", "float64"]
    for values in found.values():
        assert values.shape == (2, 4)
        assert ((values < verify.PUBLISHED_BAR) == (flipped is None)).all()


def huge(file) -> None:
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
        (huge, "not a numpy array of numbers"),
        (None, "No such file"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "wrong.npy"
    if content is not None:
        with path.open("w+b") as file:
            content(file) if callable(content) else np.save(file, content)
    with pytest.raises(verify.VerifyError, match=message):
        verify.read_cls_embedding(path, (2, 4, 48))


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
