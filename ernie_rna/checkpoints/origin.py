"""Whether the weights of a checkpoint were ever trained; by the weights, whatever the path."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch

from configuration_ernie_rna import VOCABULARY
from ernie_rna.checkpoints.names import EMBEDDING

RANDOM = "random"
CHECKPOINT = "checkpoint"

# Embeddings of the tokens before the fillers, float32, by their SHA-256: that of this project's
# golden checkpoints, drawn at random for tests, and with LayerNorms other than 1 and 0.
_RANDOM_EMBEDDINGS = frozenset(
    ("eefb026cafb61bca6d9a7fb393ce9b83105bbd766608dddede705b7914db9e31",)
)


def weights_origin(state_dict: Mapping[str, torch.Tensor]) -> str:
    """`RANDOM` for weights that were drawn and never trained, else `CHECKPOINT`.

    Random are the golden checkpoints, and a model whose every LayerNorm is exactly 1 and 0, as a
    new model's is and that of none that took a step.

    Args:
        state_dict: by our names, in float32.
    """
    embedding = state_dict[EMBEDDING.ours][: VOCABULARY.index("madeupword0000")]
    digest = hashlib.sha256(embedding.contiguous().numpy().tobytes()).hexdigest()
    if digest in _RANDOM_EMBEDDINGS:
        return RANDOM
    norms = ((name, weight) for name, weight in state_dict.items() if "layer_norm." in name)
    untouched = all(bool((w == float(name.endswith("weight"))).all()) for name, w in norms)
    return RANDOM if untouched else CHECKPOINT
