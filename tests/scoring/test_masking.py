"""Masked tokens: how they pair, and what the model expects in their place."""

import pytest
import torch

from ernie_rna.run.loading import load_masked_lm
from ernie_rna.scoring.masking import mask_tokens, nucleotide_log_probabilities
from ernie_rna.scoring.mutate import NUCLEOTIDES

# The head runs on the wanted positions alone, which rounds otherwise: 3.8e-6, of values to 12; and
# 7.7e-6 on a CPU with AVX2, the authors' logits being made on one with AVX-512.
TOLERANCE = 1e-5


@pytest.mark.parametrize(
    ("name", "sequence", "how"),
    [("pretrain_mask", "trna_arg", "pretraining"), ("mlm", "mlm", "inference")],
)
def test_the_authors_logits(golden_folder, tokenizer, sequences, golden, name, sequence, how):
    model = load_masked_lm(golden_folder, device="cpu")
    batch = tokenizer(sequences[sequence].replace("<mask>", "G"), return_tensors="pt")
    given = batch["input_ids"].clone()
    wanted = golden[f"{name}.input_ids"][None] == model.config.mask_token_id
    input_ids, scores = mask_tokens(batch["input_ids"], wanted, model.config, how)
    assert torch.equal(input_ids[0], golden[f"{name}.input_ids"])
    assert torch.equal(batch["input_ids"], given)
    assert (scores is None) == (how == "inference")
    assert scores is None or torch.equal(scores[0], golden[f"{name}.pairing_scores"])
    mask = batch["attention_mask"]
    values = nucleotide_log_probabilities(model, input_ids, mask, wanted, scores)
    columns = tokenizer.convert_tokens_to_ids(list(NUCLEOTIDES))
    expected = golden[f"{name}.logits"].log_softmax(-1)[wanted[0]][:, columns]
    torch.testing.assert_close(values, expected, rtol=0, atol=TOLERANCE)


def test_an_unknown_pairing_is_refused(config):
    ids = torch.zeros(1, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="inference or pretraining; got 'none'"):
        mask_tokens(ids, ids.bool(), config, "none")
