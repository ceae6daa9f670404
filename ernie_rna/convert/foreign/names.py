"""The names that our weights have elsewhere: in fairseq (the authors' code) and MultiMolecule.

`TABLE` is all there is to the mapping; `conversion` applies it, strict both ways. A `Naming` says
what else is found beside the weights of one family of files, and why it is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A weight: our name, fairseq's and MultiMolecule's behind their prefixes, its shape.

    `{layer}` counts the layers from 0. Dimensions are fields of the configuration, or numbers.
    """

    ours: str
    fairseq: str
    multimolecule: str
    shape: tuple[str, ...]


_L = "ernie_rna.layers.{layer}"
_FL = "sentence_encoder.layers.{layer}"
_ML = "encoder.layer.{layer}"
_H, _F, _P = "hidden_size", "intermediate_size", "pairing_hidden_size"
_HEADS, _VOCAB = "num_attention_heads", "vocab_size"

# Modules with a weight of the given shape and a bias of its first dimension.
_MODULES = (
    ("ernie_rna.emb_layer_norm", "sentence_encoder.emb_layer_norm", "embeddings.layer_norm", _H),
    ("ernie_rna.twod_proj.linear1", "twod_proj.linear1", "pairwise_bias_proj.dense1", _P, "1"),
    ("ernie_rna.twod_proj.linear2", "twod_proj.linear2", "pairwise_bias_proj.dense2", _HEADS, _P),
    (f"{_L}.self_attn.q_proj", f"{_FL}.self_attn.q_proj", f"{_ML}.attention.self.query", _H, _H),
    (f"{_L}.self_attn.k_proj", f"{_FL}.self_attn.k_proj", f"{_ML}.attention.self.key", _H, _H),
    (f"{_L}.self_attn.v_proj", f"{_FL}.self_attn.v_proj", f"{_ML}.attention.self.value", _H, _H),
    (
        *(f"{_L}.self_attn.out_proj", f"{_FL}.self_attn.out_proj"),
        *(f"{_ML}.attention.output.dense", _H, _H),
    ),
    (
        *(f"{_L}.self_attn_layer_norm", f"{_FL}.self_attn_layer_norm"),
        *(f"{_ML}.attention.output.layer_norm", _H),
    ),
    (f"{_L}.fc1", f"{_FL}.fc1", f"{_ML}.intermediate.dense", _F, _H),
    (f"{_L}.fc2", f"{_FL}.fc2", f"{_ML}.output.dense", _H, _F),
    (f"{_L}.final_layer_norm", f"{_FL}.final_layer_norm", f"{_ML}.output.layer_norm", _H),
    ("ernie_rna.pooler.dense", "masked_lm_pooler", "pooler.dense", _H, _H),
    ("lm_head.dense", "lm_head_transform_weight", "lm_head.transform.dense", _H, _H),
    ("lm_head.layer_norm", "layer_norm", "lm_head.transform.layer_norm", _H),
)
EMBEDDING = Row(
    "ernie_rna.embed_tokens.weight",
    "sentence_encoder.embed_tokens.weight",
    "embeddings.word_embeddings.weight",
    (_VOCAB, _H),
)
LM_BIAS = Row("lm_head.decoder.bias", "lm_output_learned_bias", "lm_head.bias", (_VOCAB,))
TABLE: tuple[Row, ...] = (
    EMBEDDING,
    *(
        Row(f"{ours}.{part}", f"{fairseq}.{part}", f"{theirs}.{part}", dimensions)
        for ours, fairseq, theirs, *shape in _MODULES
        for part, dimensions in (("weight", tuple(shape)), ("bias", tuple(shape[:1])))
    ),
    LM_BIAS,
)

# Which dimension of which weight gives a size; all other shapes must agree with these.
SIZES = {
    "vocab_size": (EMBEDDING.ours, 0),
    "hidden_size": (EMBEDDING.ours, 1),
    "intermediate_size": ("ernie_rna.layers.0.fc1.weight", 0),
    "pairing_hidden_size": ("ernie_rna.twod_proj.linear1.weight", 0),
    "num_attention_heads": ("ernie_rna.twod_proj.linear2.weight", 0),
}

_LAYER = re.compile(r"(?<=\.layer)(s?)\.([0-9]{1,6})\.")


def expand(layers: int) -> list[Row]:
    """`TABLE` with the rows of a layer repeated for each of `layers` layers."""
    return [
        row._replace(
            ours=row.ours.format(layer=layer),
            fairseq=row.fairseq.format(layer=layer),
            multimolecule=row.multimolecule.format(layer=layer),
        )
        for row in TABLE
        for layer in (range(layers) if "{layer}" in row.ours else (0,))
    ]


def count_layers(names: Iterable[str]) -> int:
    """One more than the highest layer in the names; at least 1."""
    found = (_LAYER.search(name) for name in names)
    return 1 + max((int(match[2]) for match in found if match), default=0)


class Naming(NamedTuple):
    """One family of names, and what its files hold besides the weights of `TABLE`.

    Attributes:
        column: the column of `TABLE` with its names.
        prefixes: what may stand before a name.
        outside: starts of the names that stand without the prefix.
        aliases: another spelling of a name -> the name; a file may hold both if they are equal.
        dropped: name -> why it has no place in the model.
        heads: start of a key beside the encoder -> why it is dropped, for heads other than those
            of `head_names`.
        heads_beside: the prefixes beside which such heads are found.
        sizes: their setting -> ours, which the weights give; a disagreement is an error.
        values: their setting -> ours, taken as it is.
        fixed: their setting -> the only value that this model computes.
        optional: starts of our names that a file may lack altogether.
    """

    column: str
    prefixes: tuple[str, ...]
    outside: tuple[str, ...]
    aliases: Mapping[str, str]
    dropped: Mapping[str, str]
    heads: Mapping[str, str]
    heads_beside: tuple[str, ...]
    sizes: Mapping[str, str]
    values: Mapping[str, str]
    fixed: Mapping[str, Any]
    optional: tuple[str, ...]

    def ours(self, name: str) -> str | None:
        """Our name for one of theirs (without its prefix), or None."""
        name = self.aliases.get(name, name)
        match = _LAYER.search(name)
        layer = match[2] if match else ""
        template = _LAYER.sub(r"\1.{layer}.", name, count=1)
        rows = (row for row in TABLE if getattr(row, self.column) == template)
        return next((row.ours.replace("{layer}", layer) for row in rows), None)


_DOWNSTREAM = "head of a downstream task; the encoder and its LM head are converted"
_COMPUTED = "stray buffer; positions are computed"
_SAME_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")

FAIRSEQ = Naming(
    column="fairseq",
    prefixes=(
        *("encoder.", "sentence_encoder.", ""),  # pretrained, fine-tuned, the encoder alone
        *("module.encoder.", "module.sentence_encoder.", "module."),  # saved in DataParallel
    ),
    outside=(),
    aliases={},
    dropped={
        "sentence_encoder.segment_embeddings.weight": "never used by the model",
        "sentence_encoder.embed_positions._float_tensor": _COMPUTED,
        "sentence_projection_layer.weight": "sentence-pair head, which the model does not use",
    },
    heads={},
    heads_beside=("sentence_encoder.", "module.sentence_encoder."),
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
        "encoder_normalize_before": True,  # in fairseq: a LayerNorm behind the embeddings
        "encoder_learned_pos": False,
        "no_token_positional_embeddings": False,
        "share_encoder_input_output_embed": True,
    },
    optional=(),
)

MULTIMOLECULE = Naming(
    column="multimolecule",
    prefixes=("model.", "ernierna.", ""),  # of today, of earlier releases, a base model alone
    outside=("lm_head.",),
    aliases={
        "lm_head.decoder.weight": EMBEDDING.multimolecule,
        "lm_head.decoder.bias": LM_BIAS.multimolecule,
        **{
            f"pairwise_bias_proj.{number}.{part}": f"pairwise_bias_proj.{name}.{part}"
            for number, name in (("0", "dense1"), ("2", "dense2"))
            for part in ("weight", "bias")
        },
    },
    dropped={
        "embeddings.token_type_embeddings.weight": "never used by the model",
        "embeddings.position_ids": _COMPUTED,
    },
    heads=dict.fromkeys(("sequence_head.", "token_head.", "contact_head."), _DOWNSTREAM),
    heads_beside=("model.", "ernierna."),
    sizes={name: name for name in _SAME_SIZES},
    values={
        "hidden_dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "layer_norm_eps": "layer_norm_eps",
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
