"""Collators for pairs and for masked tokens, and training with the Trainer of transformers."""

import pytest
import torch
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

import ernie_rna
from ernie_rna import MaskingCollator, PairCollator
from ernie_rna.scoring.masking import MASKED_PAIRING_SCORE, pairing_scores
from ernie_rna.training.metrics import NO_LABEL
from tests.conftest import listing

HAIRPIN = ("GGGAAACCC", "(((...)))")
SHORT = ("GAAAN", "(...)")
RNA = "GGCGCGGUACCCAAGUGGUAAGGGAGAGGUCUGCAAAACC"


def examples(tokenizer, *rows):
    return [{**tokenizer(sequence), "labels": labels} for sequence, labels in rows]


def test_labels_of_pairs(tokenizer):
    batch = PairCollator(tokenizer)(examples(tokenizer, HAIRPIN, SHORT))
    labels = batch["labels"]
    assert batch["input_ids"].shape == (2, 11)
    assert batch["attention_mask"].sum(1).tolist() == [11, 7]
    assert labels.shape == (2, 9, 9)
    assert torch.equal(labels, labels.transpose(1, 2))
    assert labels[0, 0, 8] == labels[0, 2, 6] == 1
    assert labels[0, 0, 7] == 0  # G and C could pair but do not.
    assert labels[0, 0, 3] == -100  # G and A cannot pair.
    assert labels[1, 0, 4] == 1  # A known pair counts whatever its letters.
    assert (labels[1, 5:] == -100).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("(...)", r"of 9 characters for GGGAAACCC; got '\(\.\.\.\)'"),
        ("", "of 9 characters for GGGAAACCC; got ''"),
        (None, "labels must be a structure in dot-bracket notation, .*; got None"),
        ("(((...)).", r"labels '\(\(\(\.\.\.\)\)\.' of GGGAAACCC: '\(' at index 0"),
    ],
)
def test_labels_must_be_a_structure_of_the_sequence(tokenizer, labels, message):
    with pytest.raises(ValueError, match=message):
        PairCollator(tokenizer)(examples(tokenizer, ("GGGAAACCC", labels)))


def small_model(head):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4}
    heads = {"pair_blocks": 1, "loading_blocks": 1, "loading_channels": 8}
    model_class = getattr(ernie_rna, f"ErnieRnaFor{head}")
    return model_class(ernie_rna.ErnieRnaConfig(**sizes, **heads, intermediate_size=32))


def make_trainer(model, rows, collator, folder, **more):
    more |= {"max_steps": 2, "per_device_train_batch_size": 2, "report_to": [], "use_cpu": True}
    arguments = TrainingArguments(str(folder), remove_unused_columns=False, **more)
    return Trainer(model, arguments, data_collator=collator, train_dataset=rows)


def test_trainer_trains_structures(tokenizer, tmp_path):
    rows = examples(tokenizer, HAIRPIN, SHORT, ("AAAAA", "....."), ("AAAAA", "....."))
    model = small_model("SecondaryStructure")
    trainer = make_trainer(model, rows, PairCollator(tokenizer), tmp_path)
    assert trainer.train().training_loss > 0
    assert trainer.evaluate(rows[2:])["eval_loss"] == 0  # No pair is possible: 0, not 0 / 0.


def test_trainer_gets_one_array_of_ribosome_loadings(tokenizer, tmp_path):
    rows = examples(tokenizer, ("ACGU", -100.0), ("GGAU", -100.0))
    model = small_model("RibosomeLoading")
    collator = DataCollatorWithPadding(tokenizer)
    trainer = make_trainer(model, rows, collator, tmp_path, gradient_accumulation_steps=2)
    assert trainer.train().training_loss > 0  # In a regression -100 is a number like any other.
    predictions = trainer.predict(rows).predictions
    assert predictions.shape == (2,)
    with torch.no_grad():
        batch = tokenizer(["ACGU", "GGAU"], return_tensors="pt")
        output = model.eval()(**batch)
    assert predictions == pytest.approx(output.predictions.numpy(), abs=1e-4)
    assert "keys_to_ignore_at_inference" not in model.config.to_dict()


def test_trainer_saves_the_tokenizer_of_a_collator(tokenizer, config, tmp_path):
    for collator in (PairCollator(tokenizer), MaskingCollator(tokenizer, config)):
        folder = tmp_path / type(collator).__name__
        make_trainer(small_model("MaskedLM"), [], collator, folder).save_model()
        assert {"tokenizer.json", "tokenization_ernie_rna.py"} <= {*listing(folder)}


# ---------------------------------------------------------------------------------------------
# Masked tokens


@pytest.fixture
def tokenized(tokenizer):
    return [{"input_ids": tokenizer(rna).input_ids} for rna in (RNA, RNA[:11], RNA[3:30])]


def test_in_mode_pretraining_the_scores_do_not_depend_on_masked_bases(tokenizer, config, tokenized):
    examples = tokenized * 20
    batch = MaskingCollator(tokenizer, config, "pretraining", probability=0.5)(examples)
    masked = batch["labels"] != NO_LABEL
    unmasked = torch.where(masked, batch["labels"], batch["input_ids"])
    for row, example in enumerate(examples):
        length = len(example["input_ids"])
        assert unmasked[row, :length].tolist() == example["input_ids"]
        assert not masked[row, [0, length - 1]].any()
        assert not masked[row, length:].any()
    scores, either = batch["pairing_scores"], masked[:, :, None] | masked[:, None, :]
    assert (scores[either] == MASKED_PAIRING_SCORE).all()
    assert torch.equal(scores[~either], pairing_scores(unmasked, config)[~either])
    assert (scores[~either] > 0).any()
    # Some masked bases are left as they are and some are replaced by others; both count as masked.
    visible = masked & (batch["input_ids"] != tokenizer.mask_token_id)
    unchanged = visible & (batch["input_ids"] == batch["labels"])
    assert unchanged.any()
    assert (visible & ~unchanged).any()
    diagonal = scores.diagonal(dim1=1, dim2=2)
    assert ((diagonal == MASKED_PAIRING_SCORE) == masked).all()


def test_in_mode_inference_the_model_computes_the_scores(tokenizer, config, tokenized, model):
    batch = MaskingCollator(tokenizer, config, "inference")(tokenized)
    assert "pairing_scores" not in batch
    expected = model(**batch, pairing_scores=pairing_scores(batch["input_ids"], config)).logits
    torch.testing.assert_close(model(**batch).logits, expected, atol=2e-5, rtol=0)


def test_gradients_reach_the_projection_of_pairing_scores(tokenizer, config, tokenized, model):
    model(**MaskingCollator(tokenizer, config, "pretraining")(tokenized)).loss.backward()
    assert model.ernie_rna.twod_proj.linear1.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="inference or pretraining; got 'none'"):
        MaskingCollator(tokenizer, config, "none")
