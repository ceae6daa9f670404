import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, DataCollatorForLanguageModeling

from ernie_rna.model.configuration_ernie_rna import VOCABULARY
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer

pytestmark = pytest.mark.core


def test_ids_equal_the_authors(tokenizer, golden, sequences):
    assert tokenizer.get_vocab() == {token: index for index, token in enumerate(VOCABULARY)}
    assert len(tokenizer) == 25
    for name, sequence in sequences.items():
        assert tokenizer(sequence).input_ids == golden[f"{name}.input_ids"].tolist(), name


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("Tt", [6, 6]),
        ("nyrskwmdhvbxi", list(range(8, 21))),
        ("A<mask>A", [5, 24, 5]),
        ("<mask><mask>", [24, 24]),
        ("A-.Z*é1", [5, 3, 3, 3, 3, 3, 3]),
        ("A G\nC\t", [5, 4, 7]),  # as `readlines` gives them
    ],
)
def test_ids(tokenizer, text, ids):
    assert tokenizer(text).input_ids == [0, *ids, 2]
    assert tokenizer(text, add_special_tokens=False).input_ids == ids


def test_offsets_pass_over_white_space(tokenizer):
    flags = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    encoded = tokenizer(" AU\n<mask>\tc\r\n", **flags)
    assert encoded.offset_mapping == [(0, 0), (1, 2), (2, 3), (4, 10), (11, 12), (0, 0)]
    assert encoded.special_tokens_mask == [1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(side):
    tokenizer = ErnieRnaTokenizer(padding_side=side)
    batch = tokenizer(["AUGC", "GG"], padding=True, return_tensors="pt")
    short = [1, 1, 0, 4, 4, 2] if side == "left" else [0, 4, 4, 2, 1, 1]
    assert batch.input_ids.tolist() == [[0, 5, 6, 4, 7, 2], short]
    assert torch.equal(batch.attention_mask, (batch.input_ids != 1).long())
    assert sorted(batch) == ["attention_mask", "input_ids"]


def test_truncation_keeps_the_special_tokens(tokenizer):
    ids = tokenizer("ACGU" * 300, truncation=True).input_ids
    assert len(ids) == 1024
    assert (ids[0], ids[-1]) == (0, 2)
    assert tokenizer("ACGU", truncation=True, max_length=4).input_ids == [0, 5, 7, 2]


def test_long_sequences_are_kept_and_warned_of(caplog):
    tokenizer = ErnieRnaTokenizer()
    with caplog.at_level("WARNING"):
        warner = __import__("logging").getLogger("transformers")
        warner.propagate = True
        ids = tokenizer(["A" * 1500, "A" * 1400]).input_ids[0]
    assert len(ids) == 1502
    (record,) = caplog.records
    assert "1502 tokens, and the model was trained on at most 1024" in record.message


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (([],), "no sequence to tokenize: the list is empty"),
        (("A", "C"), "one sequence at a time"),
        ((["A"], ["C"]), "one sequence at a time"),
        (([("A", "C")],), "one sequence at a time"),
        (([["A", "C"]],), "one sequence at a time"),
    ],
)
def test_an_empty_list_and_pairs_are_refused(tokenizer, args, message):
    with pytest.raises(ValueError, match=message):
        tokenizer(*args, padding=True, return_tensors="pt")


def test_decoding(tokenizer):
    ids = tokenizer("acgTn<mask>").input_ids
    assert tokenizer.decode(ids) == "<cls>ACGUN<mask><eos>"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ACGUN"
    assert tokenizer.batch_decode([ids, ids])[1] == "<cls>ACGUN<mask><eos>"
    assert tokenizer.tokenize("AC<mask>") == ["A", "C", "<mask>"]
    letters = "".join(token for token in VOCABULARY if len(token) == 1)
    again = tokenizer.decode(tokenizer(letters).input_ids, skip_special_tokens=True)
    assert again == letters


def test_saved_tokenizer_loads_by_remote_code(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    tokenizer.save_vocabulary(str(tmp_path))
    ids = json.loads(Path(tmp_path, "vocab.json").read_text())
    assert ids == tokenizer.get_vocab()
    assert list(ids.values()) == sorted(ids.values())
    loaded = AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(loaded).__name__ == "ErnieRnaTokenizer"
    assert loaded("AUG<mask>n").input_ids == tokenizer("AUG<mask>n").input_ids
    assert (loaded.model_max_length, loaded.padding_side) == (1024, "right")
    assert loaded.mask_token_id == 24


def test_masked_language_model_collator(tokenizer):
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5)
    batch = collator([tokenizer("AUGC" * 10), tokenizer("GG")])
    assert batch["input_ids"].shape == (2, 42)
    labelled = batch["labels"] != -100
    assert labelled[0].any()
    # Special tokens are never masked.
    assert not labelled[:, 0].any()
    assert not labelled[1, 4:].any()
