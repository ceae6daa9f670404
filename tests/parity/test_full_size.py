"""Rounding at the released size, measured on a model just large enough for oneDNN."""

import pytest
import torch
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig

from ernie_rna.cli import main as cli
from ernie_rna.model import layers_ernie_rna
from ernie_rna.parity import full_size
from ernie_rna.parity.full_size import measure_full_size


@pytest.fixture
def config() -> ErnieRnaConfig:
    return ErnieRnaConfig(hidden_size=264, num_hidden_layers=2, intermediate_size=264)


@pytest.mark.parametrize("dtypes", [(), (torch.float32,)], ids=["without", "with"])
def test_each_product_that_runs_is_measured(config, monkeypatch, dtypes):
    """Measured: 9e-7 at most, 1.1e-7 in the root mean square, for both."""
    monkeypatch.setattr(layers_ernie_rna, "_ONEDNN_DTYPES", dtypes)
    roundings = measure_full_size(["GGGGAAAACCCC", "AUGC" * 20], config)
    names = ["PyTorch's", "oneDNN's"] if dtypes else ["PyTorch's"]
    assert [rounding.product for rounding in roundings] == names
    for rounding in roundings:
        assert 0 < rounding.root_mean_square < rounding.largest < 1e-5
    if dtypes and torch.backends.mkldnn.is_available():
        assert roundings[0].largest != roundings[1].largest  # They are two products indeed.
    assert torch.backends.mkldnn.enabled


def test_the_command_needs_no_folder(config, monkeypatch, capsys):
    monkeypatch.setattr(full_size, "ErnieRnaConfig", lambda: config)
    assert cli.main(["verify", "--full-size"]) == 0
    assert "\nPyTorch's " in capsys.readouterr().out


def test_other_comparisons_need_one(capsys):
    assert cli.main(["verify", "--golden", "x.safetensors"]) == 1
    assert "name the FOLDER" in capsys.readouterr().err
