"""What an embedding consists of: columns, each a pooling of the hidden states of one layer.

Columns are called `<pooling>_layer<number>` in memory and in every file: `mean_layer12`,
`token_layer0`. Layer 0 is the embedding output, layer n the output of the n-th transformer layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ernie_rna.options import POOLINGS


@dataclass(frozen=True)
class Column:
    """One array of an embedding.

    Attributes:
        pooling: "token", one vector a nucleotide, special tokens left out; "cls", the vector of
            `<cls>`; or "mean", the mean over the nucleotides.
        layer: counted from 0, the embedding output.
    """

    pooling: str
    layer: int

    @property
    def name(self) -> str:
        return f"{self.pooling}_layer{self.layer}"

    @property
    def per_token(self) -> bool:
        return is_per_token(self.name)


def resolve_columns(
    layers: Iterable[int] | None, pooling: Iterable[str], num_layers: int
) -> tuple[Column, ...]:
    """The columns asked for, by layer, then token, cls, mean; each once.

    Args:
        layers: 0 to `num_layers`; negative ones count from the end, -1 is the last. None is
            all of them.
        pooling: any of `POOLINGS`.
        num_layers: transformer layers of the model.

    Raises:
        ValueError: there is no such layer.

    >>> [column.name for column in resolve_columns([-1, 0, 12], ["mean", "cls"], 12)]
    ['cls_layer0', 'mean_layer0', 'cls_layer12', 'mean_layer12']
    """
    from ernie_rna.run.loading import resolve_layer  # imports torch

    chosen = {pooling} if isinstance(pooling, str) else set(pooling)
    if layers is None:
        layers = range(num_layers + 1)
    absolute = sorted({resolve_layer(layer, num_layers) for layer in layers})
    return tuple(Column(name, layer) for layer in absolute for name in POOLINGS if name in chosen)


@dataclass(frozen=True)
class Embedding:
    """The embedding of one sequence.

    Attributes:
        id: its id.
        length: nucleotides in it.
        arrays: by column name, (hidden,) for cls and mean, (length, hidden) for token.

    `embedding["mean_layer12"]` is one of the arrays, and so is `embedding["mean"]` where there
    is but one layer.
    """

    id: str
    length: int
    arrays: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self.arrays:
            return self.arrays[name]
        named = [array for key, array in self.arrays.items() if key.startswith(f"{name}_layer")]
        if len(named) != 1:
            raise KeyError(f"{name!r} is not one of {', '.join(self.arrays)}")
        return named[0]


def is_per_token(name: str) -> bool:
    """Whether a column of this name has a vector for each nucleotide."""
    return name.startswith("token_")
