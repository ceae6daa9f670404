"""The names of our modules and settings in fairseq (the authors' code) and MultiMolecule.

The mapping consists of tables alone: `names.txt`, a `Naming` for each family of files, and
MultiMolecule's order of tokens. `weights` applies them; the model itself determines which weights
are required, and their shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ernie_rna.model.configuration_ernie_rna import VOCABULARY

EMBEDDING = "ernie_rna.embed_tokens.weight"
LM_BIAS = "lm_head.decoder.bias"

_TEXT = Path(__file__).with_name("names.txt").read_text(encoding="utf-8")
TABLE = [line.split() for line in _TEXT.splitlines() if not line.startswith("#")]

# Size in the configuration -> the weight, and its dimension, that determine it.
SIZES = {
    "vocab_size": (EMBEDDING, 0),
    "hidden_size": (EMBEDDING, 1),
    "intermediate_size": ("ernie_rna.layers.0.fc1.weight", 0),
    "pairing_hidden_size": ("ernie_rna.twod_proj.linear1.weight", 0),
    "num_attention_heads": ("ernie_rna.twod_proj.linear2.weight", 0),
    "pair_channels": ("pair_head.conv_out.weight", 1),
    "loading_reduced_size": ("loading_head.reduce.weight", 0),
    "loading_channels": ("loading_head.conv_in.weight", 0),
}


class Kind(NamedTuple):
    """A kind of fine-tuned model.

    Attributes:
        task: its task, for display.
        model_class: the name of our class.
        blocks: the field of the configuration with the number of its blocks.
        config: further fields of the configuration, which the authors' code fixes.
    """

    task: str
    model_class: str
    blocks: str
    config: Mapping[str, Any]


# The authors predict structures from the scores of head 5 (counted from 0), closeness from all.
STRUCTURE = Kind(
    "secondary structure", "ErnieRnaForSecondaryStructure", "pair_blocks", {"pair_heads": [5]}
)
CLOSENESS = Kind("closeness", "ErnieRnaForCloseness", "pair_blocks", {"pair_heads": None})
LOADING = Kind("ribosome loading", "ErnieRnaForRibosomeLoading", "loading_blocks", {})


class Naming(NamedTuple):
    """A naming scheme, and what its files hold besides the weights of the table.

    Attributes:
        column: the column of the table with its names.
        prefixes: the prefixes that its names may have.
        outside: starts of the names that never have the prefix, except DataParallel's.
        aliases: another spelling of a module or weight -> our name; a file may hold both spellings
            if the weights are equal.
        dropped: start of a name -> why weights with such names are dropped.
        sizes: their setting -> ours, which the weights determine; a disagreement is an error.
        values: their setting -> ours, whose value is copied.
        fixed: their setting -> the only value that this model supports.
        optional: starts of our names for parts that a file may lack entirely.
    """

    name: str
    column: int
    prefixes: tuple[str, ...]
    outside: tuple[str, ...]
    dropped: Mapping[str, str]
    sizes: Mapping[str, str]
    values: Mapping[str, str]
    fixed: Mapping[str, Any]
    aliases: Mapping[str, str] = {}
    optional: tuple[str, ...] = ()

    def full_name(self, name: str, prefix: str) -> str:
        """A name with the prefix that it has in a file."""
        if not name.startswith(self.outside):
            return prefix + name
        return f"module.{name}" if prefix.startswith("module.") else name

    def rows(self, layers: int, blocks: int) -> Iterator[tuple[str, str]]:
        """Their name and our name of each module of a model."""
        for row in TABLE:
            count = layers if row[0].startswith("ernie_rna.") else blocks
            for n in range(count if "{n}" in row[0] else 1):
                number = {"n": n, "next": n + 1, "last": count + 4}
                yield row[self.column].format(**number), row[0].format(**number)


_COMPUTED = "stray buffer; positions are computed"
_THEIR_HEADS = ("sequence_head.", "token_head.", "contact_head.")

FAIRSEQ = Naming(
    name="fairseq",
    column=1,
    prefixes=(
        *("encoder.", "sentence_encoder.", ""),  # pretrained, fine-tuned, the encoder alone
        *("module.encoder.", "module.sentence_encoder.", "module."),  # saved from DataParallel
    ),
    outside=("conv1", "conv2", "proj.", "head."),
    dropped={
        "sentence_encoder.segment_embeddings.weight": "never used by the model",
        "sentence_encoder.embed_positions._float_tensor": _COMPUTED,
        "sentence_projection_layer.weight": "sentence-pair head, which the model does not use",
    },
    sizes={
        "encoder_layers": "num_hidden_layers",
        "encoder_embed_dim": "hidden_size",
        "encoder_ffn_embed_dim": "intermediate_size",
        "encoder_attention_heads": "num_attention_heads",
    },
    values={
        "max_positions": "max_position_embeddings",
        "dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "act_dropout": "activation_dropout",
    },
    fixed={
        "activation_fn": "gelu",
        "pooler_activation_fn": "tanh",
        "encoder_normalize_before": True,  # in fairseq: a LayerNorm after the embeddings
        "encoder_learned_pos": False,
        "no_token_positional_embeddings": False,
        "share_encoder_input_output_embed": True,
    },
)

MULTIMOLECULE = Naming(
    name="multimolecule",
    column=2,
    prefixes=("model.", "ernierna.", ""),  # current and earlier releases, a base model alone
    outside=("lm_head.", "ss_head.", *_THEIR_HEADS),
    aliases={
        "lm_head.decoder.weight": EMBEDDING,
        "lm_head.decoder.bias": LM_BIAS,
        "pairwise_bias_proj.0": "ernie_rna.twod_proj.linear1",
        "pairwise_bias_proj.2": "ernie_rna.twod_proj.linear2",
    },
    dropped={
        "embeddings.token_type_embeddings.weight": "never used by the model",
        "embeddings.position_ids": _COMPUTED,
        **dict.fromkeys(
            _THEIR_HEADS, "head of a downstream task; the encoder and its LM head are converted"
        ),
    },
    sizes={name: name for name in ("vocab_size", *FAIRSEQ.sizes.values())},
    values={
        "hidden_dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "layer_norm_eps": "layer_norm_eps",
        "max_position_embeddings": "max_position_embeddings",
        "pairwise_alpha": "gu_pairing_score",
    },
    fixed={
        "model_type": "ernierna",
        "hidden_act": "gelu",
        "position_embedding_type": "sinusoidal",
        "is_decoder": False,
    },
    optional=("ernie_rna.pooler.", "lm_head."),
)

NAMINGS = (FAIRSEQ, MULTIMOLECULE)

# Rows of MultiMolecule's sinusoidal table that belong to no token.
THEIR_EXTRA_POSITIONS = 2

# MultiMolecule's RNA models share one vocabulary: by size, that of earlier releases, and today's.
# Its conversion copied the rows of the authors' dictionary unchanged, except that the three fillers
# (madeupword0000 to 0002, which occur in no sequence) share the row of `<null>`, and each overwrote
# the one before. So all rows can be restored except those of the first two fillers.
_SPECIALS = ("<pad>", "<cls>", "<eos>", "<unk>", "<mask>", "<null>")
VOCABULARIES: Mapping[int, tuple[str, ...]] = {
    26: (*_SPECIALS, *"ACGUNRYSWKMBDHV.X*-I"),
    28: (*_SPECIALS, *"ACGUNRYSWKMBDHVIX|.*-?"),
}
_FILLERS = tuple(token for token in VOCABULARY if token.startswith("madeupword"))
# Our token -> the token of theirs whose row it takes.
ORIGIN: Mapping[str, str] = {
    token: "<null>" if token in _FILLERS else token for token in VOCABULARY
}
# Our token whose own row is lost -> the rule by which it is filled.
LOST: Mapping[str, str] = dict.fromkeys(
    _FILLERS[:-1],
    f"lost in MultiMolecule: a copy of {_FILLERS[-1]}; no sequence contains either token",
)
