"""Tokenizer of ERNIE-RNA: one token per nucleotide, between `<cls>` and `<eos>`."""

import json
import os

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from .configuration_ernie_rna import VOCABULARY

logger = logging.get_logger(__name__)

VOCAB_FILES_NAMES = {"vocab_file": "vocab.json", "tokenizer_file": "tokenizer.json"}
# Newer transformers read these from tokenizer.json and pass them on; `build_tokenizer` has them.
_FROM_TOKENIZER_FILE = (
    *("vocab", "merges", "post_processor", "tokenizer_padding", "tokenizer_truncation"),
)
_TOO_LONG = "sequence-length-is-longer-than-the-specified-maximum"  # transformers' key for it


def build_tokenizer() -> Tokenizer:
    """The rules: T is U, case and white space do not matter, any other character is `<unk>`."""
    ids = {token: index for index, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    letters = "".join(token for token in VOCABULARY if len(token) == 1)
    lower = [normalizers.Replace(letter.lower(), letter) for letter in letters]
    thymine = [normalizers.Replace(letter, "U") for letter in "Tt"]
    blanks = normalizers.Replace(Regex(r"\s+"), "")  # such as the line ends of `readlines`
    tokenizer.normalizer = normalizers.Sequence([blanks, *lower, *thymine])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<cls> $A <eos>",
        special_tokens=[("<cls>", ids["<cls>"]), ("<eos>", ids["<eos>"])],
    )
    return tokenizer


class ErnieRnaTokenizer(PreTrainedTokenizerFast):
    """Turns RNA (or DNA) sequences into token ids and back.

    `"AUG<mask>AUG"` holds one mask. T is read as U, any case is accepted, blanks and line ends
    are dropped, IUPAC letters have ids of their own, and every other character becomes `<unk>`.

    Raises:
        ValueError: a list is empty, or a second sequence is given; ERNIE-RNA was never trained
            on pairs.

    Example:
        >>> ErnieRnaTokenizer()("acgT").input_ids
        [0, 5, 7, 4, 6, 2]
    """

    vocab_files_names = VOCAB_FILES_NAMES
    model_input_names = ["input_ids", "attention_mask"]
    slow_tokenizer_class = None

    def __init__(
        self,
        vocab_file=None,
        tokenizer_file=None,
        cls_token="<cls>",
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=1024,
        **kwargs,
    ):
        for name in _FROM_TOKENIZER_FILE:
            kwargs.pop(name, None)
        kwargs.pop("tokenizer_object", None)
        kwargs.setdefault("clean_up_tokenization_spaces", False)
        super().__init__(
            tokenizer_object=build_tokenizer(),
            cls_token=cls_token,
            pad_token=pad_token,
            eos_token=eos_token,
            unk_token=unk_token,
            mask_token=mask_token,
            model_max_length=model_max_length,
            **kwargs,
        )

    def _encode_plus(self, text, text_pair=None, *args, **kwargs):
        _check_text(text, text_pair, **kwargs)
        return super()._encode_plus(text, None, *args, **kwargs)

    def _batch_encode_plus(self, batch_text_or_text_pairs, *args, **kwargs):  # transformers 4.x
        _check_text(batch_text_or_text_pairs, **kwargs)
        return super()._batch_encode_plus(batch_text_or_text_pairs, *args, **kwargs)

    def _eventual_warn_about_too_long_sequence(self, ids, max_length, verbose):
        """Warn once. The text of transformers says that such a sequence ends in an error."""
        too_long = max_length is None and verbose and len(ids) > self.model_max_length
        if too_long and not self.deprecation_warnings.get(_TOO_LONG):
            self.deprecation_warnings[_TOO_LONG] = True
            logger.warning(
                f"a sequence has {len(ids)} tokens, and the model was trained on at most "
                f"{self.model_max_length}: it computes all of them; truncation=True cuts them off"
            )

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None):
        """Write `vocab.json`, the ids by token, in their order; return its path in a tuple."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        path = os.path.join(save_directory, prefix + VOCAB_FILES_NAMES["vocab_file"])
        # tokenizers gives them in another order each time.
        ids = dict(sorted(self.get_vocab().items(), key=lambda item: item[1]))
        with open(path, "w", encoding="utf-8") as file:
            json.dump(ids, file, indent=1)
        return (path,)


def _check_text(text, text_pair=None, is_split_into_words=False, **kwargs) -> None:
    """Raise ValueError for an empty list, or a pair of sequences, also as an item of a list."""
    items = (text,) if isinstance(text, str) else text
    if not len(items) and not is_split_into_words:
        raise ValueError("there is no sequence to tokenize: the list is empty")
    if text_pair is not None:
        items = [(text, text_pair)]
    elif is_split_into_words:  # A list is then a sequence, and a pair has two of them.
        items = [item for item in items if any(isinstance(word, (tuple, list)) for word in item)]
    pair = next((item for item in items if isinstance(item, (tuple, list))), None)
    if pair is not None:
        raise ValueError(
            f"ERNIE-RNA reads one sequence at a time, not the pair {tuple(pair)!r}: "
            "tokenize a list of strings instead"
        )


ErnieRnaTokenizer.register_for_auto_class()
