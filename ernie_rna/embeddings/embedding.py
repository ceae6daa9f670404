"""What an embedding consists of: columns, each a pooling of the hidden states of one layer.

Columns are called `<pooling>_layer<number>` in memory and in every file: `mean_layer12`,
`token_layer0`. Layer 0 is the embedding output, layer n the output of the n-th transformer layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

POOLINGS = ("token", "cls", "mean")


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
        ValueError: there is no such layer or pooling, or none is asked for.

    >>> [column.name for column in resolve_columns([-1, 0, 12], ["mean", "cls"], 12)]
    ['cls_layer0', 'mean_layer0', 'cls_layer12', 'mean_layer12']
    """
    from ernie_rna.run.loading import resolve_layer  # imports torch

    chosen = check_pooling(pooling)
    if layers is None:
        layers = range(num_layers + 1)
    absolute = sorted({resolve_layer(layer, num_layers) for layer in layers})
    if not absolute:
        raise ValueError("no layer given; -1 is the last one")
    return tuple(Column(name, layer) for layer in absolute for name in POOLINGS if name in chosen)


def check_pooling(pooling: Iterable[str]) -> set[str]:
    """The poolings as a set; ValueError for an unknown one or none."""
    chosen = {pooling} if isinstance(pooling, str) else set(pooling)
    wrong = sorted(chosen.difference(POOLINGS))
    if wrong or not chosen:
        given = ", ".join(map(repr, wrong)) or "nothing"
        raise ValueError(f"pooling must be among {', '.join(POOLINGS)}; got {given}")
    return chosen


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


def split_rows(
    ids: Sequence[str], lengths: Sequence[int], arrays: dict[str, np.ndarray]
) -> Iterator[Embedding]:
    """The embedding of each sequence out of columns that hold them one after the other.

    Args:
        arrays: by column name, (sequences, hidden), or (nucleotides, hidden) for token.
    """
    start = 0
    for index, (id, length) in enumerate(zip(ids, lengths, strict=True)):
        tokens = slice(start, start + length)
        rows = {
            # A copy, so that one sequence kept does not keep all of them in memory.
            name: array[tokens if is_per_token(name) else index].copy()
            for name, array in arrays.items()
        }
        yield Embedding(id, length, rows)
        start += length
