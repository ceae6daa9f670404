import json
import logging

import pytest
import torch
from transformers import AutoTokenizer, DataCollatorForLanguageModeling

from ernie_rna.model.configuration_ernie_rna import VOCABULARY
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer

pytestmark = pytest.mark.core
LETTERS = "".join(token for token in VOCABULARY if len(token) == 1)


def test_ids_equal_those_of_the_authors(tokenizer, golden, sequences):
    assert tokenizer.get_vocab() == {token: index for index, token in enumerate(VOCABULARY)}
    assert len(tokenizer) == 25
    for name, sequence in sequences.items():
        assert tokenizer(sequence).input_ids == golden[f"{name}.input_ids"].tolist(), name


@pytest.mark.parametrize(
    ("text", "ids", "decoded"),
    [
        ("", [], ""),
        ("Tt", [6, 6], "UU"),
        ("nyrskwmdhvbxi", list(range(8, 21)), "NYRSKWMDHVBXI"),
        (LETTERS, list(range(4, 21)), LETTERS),
        ("A<mask>A", [5, 24, 5], "AA"),
        ("<mask><mask>", [24, 24], ""),
        ("A-.Z*é1", [5, 3, 3, 3, 3, 3, 3], "A"),
        ("A G\nC\t", [5, 4, 7], "AGC"),  # White space is ignored, such as ends of lines.
    ],
)
def test_ids_and_decoding(tokenizer, text, ids, decoded):
    assert tokenizer(text).input_ids == [0, *ids, 2]
    assert tokenizer(text, add_special_tokens=False).input_ids == ids
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == decoded
    tokens = [VOCABULARY[id] for id in ids]
    assert tokenizer.batch_decode([[0, *ids, 2]] * 2) == ["".join(["<cls>", *tokens, "<eos>"])] * 2
    assert tokenizer.tokenize(text) == tokens


def test_offsets_skip_white_space(tokenizer):
    flags = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    encoded = tokenizer(" AU\n<mask>\tc\r\n", **flags)
    assert encoded.offset_mapping == [(0, 0), (1, 2), (2, 3), (4, 10), (11, 12), (0, 0)]
    assert encoded.special_tokens_mask == [1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("side", "short"), [("left", [1, 1, 0, 4, 4, 2]), ("right", [0, 4, 4, 2, 1, 1])]
)
def test_padding(side, short):
    tokenizer = ErnieRnaTokenizer(padding_side=side)
    batch = tokenizer(["AUGC", "GG"], padding=True, return_tensors="pt")
    assert batch.input_ids.tolist() == [[0, 5, 6, 4, 7, 2], short]
    assert torch.equal(batch.attention_mask, (batch.input_ids != 1).long())
    assert sorted(batch) == ["attention_mask", "input_ids"]


def test_truncation_keeps_the_special_tokens(tokenizer):
    ids = tokenizer("ACGU" * 300, truncation=True).input_ids
    assert (len(ids), ids[0], ids[-1]) == (1024, 0, 2)
    assert tokenizer("ACGU", truncation=True, max_length=4).input_ids == [0, 5, 7, 2]


def test_long_sequences_are_kept_with_a_warning(caplog):
    with caplog.at_level("WARNING"):
        logging.getLogger("transformers").propagate = True
        ids = ErnieRnaTokenizer()(["A" * 1500, "A" * 1400]).input_ids[0]
    assert len(ids) == 1502
    (record,) = caplog.records
    assert "1502 tokens, and the model was trained on at most 1024" in record.message


@pytest.mark.parametrize("pair", [(["A"], ["U"]), ([["A"]], [["U"]]), ([(["A"], ["U"])],)], ids=str)
def test_pairs_of_words_are_refused(tokenizer, pair):
    words = {"is_split_into_words": True}
    assert tokenizer(["A", "C"], **words).input_ids == [0, 5, 7, 2]
    assert tokenizer([["A", "C"], ("G",)], **words).input_ids == [[0, 5, 7, 2], [0, 4, 2]]
    # transformers 4.41 refuses the last of these itself.
    with pytest.raises(ValueError, match=r"one sequence at a time|text input must be of type"):
        tokenizer(*pair, **words)


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


def test_saved_tokenizer_loads_by_remote_code(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    tokenizer.save_vocabulary(str(tmp_path))
    ids = json.loads((tmp_path / "vocab.json").read_text())
    assert list(ids.items()) == list(zip(VOCABULARY, range(25), strict=True))
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
    assert not labelled[1, 3:].any()
