"""Results of whole sequences, computed batch by batch and given in input order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from ernie_rna.run.loading import memory_explained
from ernie_rna.run.progress import Progress
from ernie_rna.sequences.batches import Window
from ernie_rna.sequences.fasta import FastaRecord

Result = TypeVar("Result")


def compute_windows(
    windows: Iterable[Window],
    compute: Callable[[list[FastaRecord]], Iterable[Result]],
    bar: Progress,
) -> Iterator[list[Result]]:
    """The results of each window, one for each of its records, in their order.

    Args:
        windows: with a piece for each record.
        compute: the results of a batch, in its order.
        bar: is closed at the end.

    Raises:
        EncodingError: memory does not suffice for a batch.
    """
    with contextlib.closing(bar):
        for window in windows:
            yield compute_window(window, compute, partial(bar.advance, window))


def compute_window(
    window: Window,
    compute: Callable[[list[FastaRecord]], Iterable[Result]],
    step: Callable[[int], None],
) -> list[Result]:
    """The results of one window; `step` is told the number of each batch that is done."""
    results: dict[int, Result] = {}
    for number, batch in enumerate(window.batches):
        records = [window.records[window.pieces[index].record] for index in batch]
        with memory_explained(records):
            results.update(zip(batch, compute(records), strict=True))
        step(number)
    return [results[index] for index in range(len(window.records))]
