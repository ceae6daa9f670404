"""Maps of closeness: the authors' values in any batch, the output file, and errors."""

import numpy as np
import pytest
import torch

from ernie_rna.model.modeling_ernie_rna import ErnieRnaForCloseness
from ernie_rna.run.loading import EncodingError
from ernie_rna.run.outputs import OutputError
from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.closeness import ClosenessTask, closeness
from tests.golden_folder import head_checkpoint, write_golden_folder

SHORT = {"a": "GGGAAACCC", "b": "AUGCAUGCAUGC", "c": "G"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("closeness")
    write_golden_folder(folder, head_checkpoint("closeness"))
    return ErnieRnaForCloseness.from_pretrained(folder).eval()


def test_the_authors_values_in_a_batch(model, heads, sequences):
    trna = sequences["trna_arg"]
    rnas = {**SHORT, "padded": trna[:-1], "trna_arg": trna}
    maps = {one.id: one.probabilities for one in closeness(rnas, model, batch_tokens=4096)}
    assert list(maps) == list(rnas)
    expected = heads["closeness.trna_arg.probabilities"]
    np.testing.assert_allclose(maps["trna_arg"], expected, rtol=0, atol=1e-5)
    for id, sequence in rnas.items():
        assert maps[id].shape == (len(sequence), len(sequence))
        np.testing.assert_array_equal(maps[id], maps[id].T)


@pytest.mark.parametrize(
    ("id", "message"),
    [("x.npy", r"x\.npy: an id in an .npz file cannot end"), ("x" * 70_000, "65531 bytes, not 70")],
)
def test_ids_that_an_npz_file_cannot_hold(model, tmp_path, monkeypatch, id, message):
    monkeypatch.setattr(ClosenessTask, "load", None)
    with pytest.raises(InputError, match=message):
        closeness({**SHORT, id: "GG"}, model, tmp_path / "maps.npz", progress=False)
    assert not list(tmp_path.iterdir())


def test_the_file_equals_the_results_and_a_run_stores_its_settings(model, tmp_path, killed_after):
    output, options = tmp_path / "maps.npz", {"batch_tokens": 32, "progress": False}
    with killed_after(0):
        closeness(SHORT, model, output, **options)
    with pytest.raises(OutputError, match=r"differs: settings\.pairing_scores was 'seq"):
        closeness(SHORT, model, output, pairing_scores="zero", **options)
    closeness(SHORT, model, output, **options)
    zeros = closeness(SHORT, model, pairing_scores="zero")
    with np.load(output) as file:
        assert list(file) == list(SHORT)
        for one, zero in zip(closeness(SHORT, model, batch_tokens=1), zeros, strict=True):
            np.testing.assert_allclose(file[one.id], one.probabilities, rtol=0, atol=1e-5)
            assert one.id == "c" or np.abs(one.probabilities - zero.probabilities).max() > 1e-3


def test_refuses_other_outputs_and_models(model):
    with pytest.raises(ValueError, match=r"^-: the extension must be \.npz"):
        closeness(SHORT, model, "-")
    with pytest.raises(ValueError, match="has no closeness head: it is ErnieRnaModel"):
        closeness(SHORT, model.ernie_rna)


def test_an_error_of_nan_names_the_sequence(model, monkeypatch):
    monkeypatch.setattr(model.pair_head.conv_out.bias, "data", torch.full((1,), torch.nan))
    with pytest.raises(EncodingError, match="b: its closeness is not finite"):
        list(closeness(SHORT, model))
