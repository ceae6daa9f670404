"""Masked tokens: how they pair, and what the model expects in their place."""

import pytest
import torch

from ernie_rna.run.loading import load_masked_lm
from ernie_rna.scoring.masking import (
    mask_tokens,
    masked_pairing_scores,
    nucleotide_log_probabilities,
    pairing_scores,
)
from ernie_rna.scoring.mutate import NUCLEOTIDES
from tests.golden_folder import write_golden_folder


def test_pairing_scores_are_the_authors(config, golden):
    names = [key.removesuffix(".pairing_scores") for key in golden if "pairing_scores" in key]
    for name in sorted({*names} - {"pretrain_mask"}):
        scores = pairing_scores(golden[f"{name}.input_ids"], config)
        assert torch.equal(scores, golden[f"{name}.pairing_scores"]), name


def test_masked_pairing_scores_are_those_of_the_authors_pretraining(config, golden):
    unmasked = golden["trna_arg.input_ids"]
    masked = torch.zeros_like(unmasked, dtype=torch.bool)
    masked[golden["pretrain_mask.positions"]] = True
    scores = masked_pairing_scores(unmasked, masked, config)
    assert torch.equal(scores, golden["pretrain_mask.pairing_scores"])


def test_an_unknown_pairing_is_refused(config):
    ids = torch.zeros(1, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="inference or pretraining; got 'none'"):
        mask_tokens(ids, ids.bool(), config, "none")


# ---------------------------------------------------------------------------------------------
# What the model expects in place of a mask


# The head runs on the wanted positions alone, which rounds otherwise: 3.8e-6, of values to 12; and
# 7.7e-6 on a CPU with AVX2, the authors' logits being made on one with AVX-512.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def golden_model(tmp_path_factory):
    return load_masked_lm(write_golden_folder(tmp_path_factory.mktemp("model")), device="cpu")


def test_the_authors_logits_masked_as_in_pretraining(golden_model, tokenizer, sequences, golden):
    unmasked = tokenizer(sequences["trna_arg"], return_tensors="pt")
    wanted = torch.zeros_like(unmasked["input_ids"], dtype=torch.bool)
    wanted[0, golden["pretrain_mask.positions"]] = True
    config = golden_model.config
    input_ids, scores = mask_tokens(unmasked["input_ids"], wanted, config, "pretraining")
    assert torch.equal(input_ids[0], golden["pretrain_mask.input_ids"])
    values = nucleotide_log_probabilities(
        golden_model, input_ids, unmasked["attention_mask"], wanted, scores
    )
    columns = tokenizer.convert_tokens_to_ids(list(NUCLEOTIDES))
    expected = golden["pretrain_mask.logits"].log_softmax(-1)[wanted[0]][:, columns]
    torch.testing.assert_close(values, expected, rtol=0, atol=TOLERANCE)


def test_the_authors_logits_masked_as_at_inference(golden_model, tokenizer, sequences, golden):
    batch = tokenizer(sequences["mlm"].replace("<mask>", "G"), return_tensors="pt")
    wanted = golden["mlm.input_ids"][None] == golden_model.config.mask_token_id
    input_ids, scores = mask_tokens(batch["input_ids"], wanted, golden_model.config)
    assert scores is None
    assert torch.equal(input_ids[0], golden["mlm.input_ids"])
    values = nucleotide_log_probabilities(golden_model, input_ids, batch["attention_mask"], wanted)
    columns = tokenizer.convert_tokens_to_ids(list(NUCLEOTIDES))
    expected = golden["mlm.logits"].log_softmax(-1)[wanted[0]][:, columns]
    torch.testing.assert_close(values, expected, rtol=0, atol=TOLERANCE)


def test_the_given_ids_are_left_as_they_are(config, tokenizer):
    input_ids = tokenizer("ACGU", return_tensors="pt")["input_ids"]
    before = input_ids.clone()
    mask_tokens(input_ids, torch.ones_like(input_ids, dtype=torch.bool), config, "pretraining")
    assert torch.equal(input_ids, before)
