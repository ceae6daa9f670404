"""Batches of pairs and of masked tokens, and the heads in transformers' own Trainer."""

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


def examples(tokenizer, *given):
    return [{**tokenizer(sequence), "labels": labels} for sequence, labels in given]


def test_labels_of_pairs(tokenizer):
    batch = PairCollator(tokenizer)(examples(tokenizer, HAIRPIN, SHORT))
    labels = batch["labels"]
    assert batch["input_ids"].shape == (2, 11)
    assert batch["attention_mask"].sum(1).tolist() == [11, 7]
    assert labels.shape == (2, 9, 9)
    assert torch.equal(labels, labels.transpose(1, 2))
    assert labels[0, 0, 8] == labels[0, 2, 6] == 1
    assert labels[0, 0, 7] == 0  # G and C that do not pair
    assert labels[0, 0, 3] == -100  # G and A cannot
    assert labels[1, 0, 4] == 1  # known, whatever the letters
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
def test_labels_that_are_no_structure_of_the_sequence_are_refused(tokenizer, labels, message):
    with pytest.raises(ValueError, match=message):
        PairCollator(tokenizer)(examples(tokenizer, ("GGGAAACCC", labels)))


def small(head):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4}
    heads = {"pair_blocks": 1, "loading_blocks": 1, "loading_channels": 8}
    kind = getattr(ernie_rna, f"ErnieRnaFor{head}")
    return kind(ernie_rna.ErnieRnaConfig(**sizes, **heads, intermediate_size=32))


def trainer(model, data, collator, folder, **more):
    arguments = {"max_steps": 2, "per_device_train_batch_size": 2, "report_to": [], "use_cpu": True}
    given = TrainingArguments(str(folder), **arguments, remove_unused_columns=False, **more)
    return Trainer(model, given, data_collator=collator, train_dataset=data)


def test_structures_in_the_plain_trainer(tokenizer, tmp_path):
    data = examples(tokenizer, HAIRPIN, SHORT, ("AAAAA", "....."), ("AAAAA", "....."))
    made = trainer(small("SecondaryStructure"), data, PairCollator(tokenizer), tmp_path)
    assert made.train().training_loss > 0
    assert made.evaluate(data[2:])["eval_loss"] == 0  # admits no pair: 0, and not 0 / 0


def test_ribosome_loading_gives_the_plain_trainer_one_array(tokenizer, tmp_path):
    data = [{**row, "labels": -100.0} for row in examples(tokenizer, ("ACGU", 0), ("GGAU", 0))]
    model = small("RibosomeLoading")
    collator = DataCollatorWithPadding(tokenizer)
    made = trainer(model, data, collator, tmp_path, gradient_accumulation_steps=2)
    assert made.train().training_loss > 0  # -100 is a number like others
    predictions = made.predict(data).predictions
    assert predictions.shape == (2,)
    with torch.no_grad():
        batch = tokenizer(["ACGU", "GGAU"], return_tensors="pt")
        output = model.eval()(**batch)
    assert predictions == pytest.approx(output.predictions.numpy(), abs=1e-4)
    assert "keys_to_ignore_at_inference" not in model.config.to_dict()


def test_the_trainer_saves_the_tokenizer_of_a_collator(tokenizer, config, tmp_path):
    for collator in (PairCollator(tokenizer), MaskingCollator(tokenizer, config)):
        folder = tmp_path / type(collator).__name__
        trainer(small("MaskedLM"), [], collator, folder).save_model()
        assert {"tokenizer.json", "tokenization_ernie_rna.py"} <= {*listing(folder)}


# ---------------------------------------------------------------------------------------------
# Masked tokens


@pytest.fixture
def tokenized(tokenizer):
    return [{"input_ids": tokenizer(rna).input_ids} for rna in (RNA, RNA[:11], RNA[3:30])]


def test_pretraining_knows_nothing_of_masked_bases(tokenizer, config, tokenized):
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
    # Those that were left or replaced are masked as well.
    shown = masked & (batch["input_ids"] != tokenizer.mask_token_id)
    left = shown & (batch["input_ids"] == batch["labels"])
    assert left.any()
    assert (shown & ~left).any()
    diagonal = scores.diagonal(dim1=1, dim2=2)
    assert ((diagonal == MASKED_PAIRING_SCORE) == masked).all()


def test_inference_leaves_the_scores_to_the_model(tokenizer, config, tokenized, model):
    batch = MaskingCollator(tokenizer, config, "inference")(tokenized)
    assert "pairing_scores" not in batch
    ids = batch["input_ids"]
    given = model(**batch, pairing_scores=pairing_scores(ids, config))
    torch.testing.assert_close(model(**batch).logits, given.logits, atol=2e-5, rtol=0)


def test_a_batch_trains_the_model(tokenizer, config, tokenized, model):
    model(**MaskingCollator(tokenizer, config, "pretraining")(tokenized)).loss.backward()
    assert model.ernie_rna.twod_proj.linear1.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="inference or pretraining; got 'none'"):
        MaskingCollator(tokenizer, config, "none")
