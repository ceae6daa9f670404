"""Masked tokens: their pairing scores, and the nucleotides that the model expects there."""

import pytest
import torch

from ernie_rna.run.loading import load_masked_lm
from ernie_rna.scoring.masking import mask_tokens, nucleotide_log_probabilities
from ernie_rna.scoring.mutate import NUCLEOTIDES

# The head runs only on the masked positions, where sums are rounded differently: 3.8e-6, of values
# up to 12. On a CPU with AVX2 it is 7.7e-6, as the authors' logits are from one with AVX-512.
TOLERANCE = 1e-5


@pytest.mark.parametrize(
    ("name", "sequence", "kind"),
    [("pretrain_mask", "trna_arg", "pretraining"), ("mlm", "mlm", "inference")],
)
def test_the_authors_logits(golden_folder, tokenizer, sequences, golden, name, sequence, kind):
    model = load_masked_lm(golden_folder, device="cpu")
    batch = tokenizer(sequences[sequence].replace("<mask>", "G"), return_tensors="pt")
    before = batch["input_ids"].clone()
    masked = golden[f"{name}.input_ids"][None] == model.config.mask_token_id
    input_ids, scores = mask_tokens(batch["input_ids"], masked, model.config, kind)
    assert torch.equal(input_ids[0], golden[f"{name}.input_ids"])
    assert torch.equal(batch["input_ids"], before)
    assert (scores is None) == (kind == "inference")
    assert scores is None or torch.equal(scores[0], golden[f"{name}.pairing_scores"])
    mask = batch["attention_mask"]
    values = nucleotide_log_probabilities(model, input_ids, mask, masked, scores)
    columns = tokenizer.convert_tokens_to_ids(list(NUCLEOTIDES))
    expected = golden[f"{name}.logits"].log_softmax(-1)[masked[0]][:, columns]
    torch.testing.assert_close(values, expected, rtol=0, atol=TOLERANCE)


def test_an_unknown_kind_of_pairing_is_refused(config):
    ids = torch.zeros(1, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="inference or pretraining; got 'none'"):
        mask_tokens(ids, ids.bool(), config, "none")
