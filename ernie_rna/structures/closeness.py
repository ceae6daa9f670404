"""Predicts which bases are close to one another in space, with a model that has a closeness head.

>>> for close in closeness(["GGGGAAAACCCC"], "folder-or-hub-id"):  # doctest: +SKIP
...     print(close.id, close.probabilities.shape)
0 (12, 12)

The authors trained such a head on RNAs of known three-dimensional structure (Yin et al., Nature
Communications 16:8407, 2025, "RNA 3D closeness prediction").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import fspath
from typing import Any, overload

import numpy as np

from ernie_rna.options import HeadOptions, takes
from ernie_rna.run.matrices import MATRICES, matrix_output
from ernie_rna.run.outputs import check_output_files
from ernie_rna.run.runner import RunSummary, Task, iterate, run
from ernie_rna.sequences import chunks
from ernie_rna.sequences.chunks import Piece
from ernie_rna.sequences.fasta import FastaRecord, FilePath
from ernie_rna.sequences.sources import Sequences, Survey


@dataclass(frozen=True)
class Closeness:
    """The closeness map of one sequence.

    Attributes:
        probabilities: (length, length) in float32, symmetric; the probability that two bases are
            close to one another.
    """

    id: str
    probabilities: np.ndarray

    def _repr_svg_(self) -> str | None:  # a notebook shows the map
        from ernie_rna.plots.drawings import as_svg, plot_pairing_map

        return as_svg(plot_pairing_map, self.probabilities, " " * len(self.probabilities))


@overload
def closeness(
    sequences: Sequences, model: Any, output: None = None, **options: Any
) -> Iterator[Closeness]: ...


@overload
def closeness(sequences: Sequences, model: Any, output: FilePath, **options: Any) -> RunSummary: ...


@takes(HeadOptions)
def closeness(
    sequences: Sequences, model: Any, output: FilePath | None = None, *, options: HeadOptions
) -> Iterator[Closeness] | RunSummary:
    """Compute closeness maps and yield them, or write them to a file.

    Order, resuming and sharing work as in `embeddings.embed.embed`. A sequence gets the same map
    alone and in any batch.

    Args:
        sequences: as for `embeddings.embed.embed`.
        model: folder, Hub id or an `ErnieRnaForCloseness`.
        output: .npz file for the map of each sequence, under its id; None yields the maps.

    Raises:
        ValueError: also if the model has no closeness head.
        Other errors are those of `embeddings.embed.embed`.
    """
    task = ClosenessTask(options)
    if output is None:
        return iterate(task, sequences, model)
    path = fspath(output)
    check_output_files([path], force=True, extensions=[MATRICES], streams=False)
    to_file = matrix_output(path, lambda result: (result.id, result.probabilities))
    return run(task, sequences, model, [to_file])


class ClosenessTask(Task[Closeness]):
    """Computes a closeness map for each sequence."""

    name, result = "closeness", Closeness
    options: HeadOptions

    def load(self, source: Any) -> None:
        from ernie_rna.model.modeling_ernie_rna import ErnieRnaForCloseness
        from ernie_rna.run.loading import has_head, load, name_and_kind, read_config

        options, head = self.options, ErnieRnaForCloseness.__name__
        config: Any = read_config(source, options.revision)
        if not has_head(source, config, head):
            name, kind = name_and_kind(source, config)
            raise ValueError(
                f"{name} has no closeness head: it is {kind}, not {head}; `ernie-rna convert` "
                "makes such a model from the authors' fine-tuned checkpoint"
            )
        self.model = load(ErnieRnaForCloseness, source, config=config, **options.loading)
        cost = chunks.pair_head_cost(self.model.config)
        tokens = chunks.resolve_batch_tokens(options.batch_tokens, self.model.device)
        most = chunks.TOKENS_OF_MAPS
        self.plan = chunks.Plan(tokens, cost, chunk_tokens=most, squared_from=chunks.MAPS_FROM)

    def compute(self, records: list[FastaRecord], pieces: list[Piece]) -> Iterator[Closeness]:
        from ernie_rna.run.attention_scores import run_head
        from ernie_rna.run.loading import not_finite, tokenize

        batch = tokenize([record.sequence for record in records], self.model.device)
        logits = run_head(self.model, *batch, self.options.pairing_scores).logits
        maps = logits.float().sigmoid().cpu().numpy()  # (batch, length, length)
        for record, padded_map in zip(records, maps, strict=True):
            bases = slice(len(record.sequence))
            if not np.isfinite(padded_map[bases, bases]).all():
                raise not_finite(f"{record.id}: its closeness", self.model)
            yield Closeness(record.id, padded_map[bases, bases].copy())

    def nbytes(self, survey: Survey) -> int:
        return sum(4 * length**2 * count for length, count in survey.lengths.items())

    def describe_settings(self) -> dict[str, Any]:
        return {"pairing_scores": self.options.pairing_scores or self.model.config.pairing_scores}
