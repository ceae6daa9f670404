"""Structures by the authors' trained head: their .ct text to the byte, in any batch."""

import json

import numpy as np
import pytest
import torch
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForSecondaryStructure
from safetensors.torch import load_file

from ernie_rna.cli.main import main
from ernie_rna.parity.heads import CONTACT_BAR
from ernie_rna.run.loading import load_model
from ernie_rna.structures.fold import fold
from ernie_rna.structures.formats.ct import format_ct
from ernie_rna.structures.pairing_maps import HeadMaps, ScoreMaps, load_maps, reads_head
from tests.golden_folder import GOLDEN, head_checkpoint, write_golden_folder

NAMES = ("trna_arg", "rrna_5s")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_golden_folder(
        tmp_path_factory.mktemp("structure"), head_checkpoint("secondary_structure")
    )


@pytest.fixture(scope="module")
def model(folder):
    return ErnieRnaForSecondaryStructure.from_pretrained(folder).eval()


@pytest.fixture
def rnas(sequences):
    return {name: text for name, text in sequences.items() if name not in ("mlm", "unknown")}


@pytest.mark.parametrize(
    ("attention", "batch_tokens"), [("sdpa", 1), ("sdpa", 4096), ("eager", 300)]
)
def test_golden_structures_in_any_batch(model, rnas, attention, batch_tokens):
    expected = load_file(GOLDEN / "tiny_heads_expected.safetensors")
    texts = json.loads((GOLDEN / "tiny_structures.json").read_text())
    options = {"batch_tokens": batch_tokens, "attention": attention}
    results = fold(rnas, model, matrix="contacts", min_loop=0, min_stem=1, **options)
    folds = {one.structure.id: one for one in results}
    assert list(folds) == list(rnas)
    for name in NAMES:
        contact = expected[f"secondary_structure.{name}.contact"].numpy()
        np.testing.assert_allclose(folds[name].matrix, contact, rtol=0, atol=CONTACT_BAR)
        assert format_ct(folds[name].structure) == texts[f"secondary_structure.{name}"]


def test_the_folder_decides(folder, model, rnas):
    assert isinstance(load_maps(folder, None, None, None), HeadMaps)
    (by_folder,) = fold([rnas["trna_arg"]], folder)
    (by_model,) = fold([rnas["trna_arg"]], model)
    assert by_folder == by_model
    assert reads_head(folder, None, None)
    assert not reads_head(model.ernie_rna, None, None)


@pytest.mark.parametrize("asked", [{"layer": -1}, {"head": 5}])
def test_a_layer_or_head_asks_for_the_scores(folder, rnas, asked):
    (scores,) = fold([rnas["trna_arg"]], folder, matrix="scores", **asked)
    (plain,) = fold([rnas["trna_arg"]], load_model(folder, device="cpu"), matrix="scores")
    np.testing.assert_array_equal(scores.matrix, plain.matrix)
    assert isinstance(load_maps(folder, -1, None, None), ScoreMaps)


def test_pairing_scores_are_those_of_the_configuration_unless_asked(model, rnas):
    def matrix(**options):
        (one,) = fold([rnas["trna_arg"]], model, matrix="scores", **options)
        return one.matrix

    by_default, zero = matrix(), matrix(pairing_scores="zero")
    assert np.abs(zero - by_default).max() > 1
    model.config.pairing_scores = "zero"
    try:
        np.testing.assert_array_equal(matrix(), zero)
        np.testing.assert_array_equal(matrix(pairing_scores="sequence"), by_default)
    finally:
        model.config.pairing_scores = "sequence"


def test_the_threshold_is_that_of_the_configuration(model, rnas):
    model.config.pair_threshold = 1e6  # above every logit: no contact is left
    try:
        (one,) = fold([rnas["trna_arg"]], model)
    finally:
        model.config.pair_threshold = 1.5
    assert one.structure.pairs == []


def test_a_map_counts_its_squares(folder):
    maps = load_maps(folder, None, None, None)
    assert maps.squared_from < load_maps(folder, -1, None, None).squared_from
    assert 0 < maps.width < maps.model.config.hidden_size


def test_zero_equals_a_matrix_of_zeros(model, rnas):
    from ernie_rna.run.loading import run_on_tokens, tokenize

    ids, mask = tokenize([rnas["trna_arg"], "GGGAAACCC"], torch.device("cpu"))
    zeros = torch.zeros(2, ids.shape[1], ids.shape[1])
    with torch.inference_mode():
        given = model(input_ids=ids, attention_mask=mask, pairing_scores=zeros).logits
    logits = run_on_tokens(model, ids, mask, "zero").logits
    assert (logits - given).abs().max() <= 1e-5 * given.abs().max()


def test_the_command_says_what_it_reads(folder, tmp_path, capsys):
    (tmp_path / "rna.fasta").write_text(">a\nGGGAAACCC\n")
    arguments = ["fold", str(tmp_path / "rna.fasta"), "-m", str(folder)]
    assert main(arguments) == 0
    assert "structures by the model's secondary-structure head" in capsys.readouterr().err
    assert main([*arguments, "--head", "5"]) == 0
    assert "without training, by the attention scores" in capsys.readouterr().err
    assert main([*arguments, "--quiet"]) == 0
    assert "structures by" not in capsys.readouterr().err
