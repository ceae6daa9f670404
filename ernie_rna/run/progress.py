"""A progress bar that counts work, since a long sequence takes longer than a short one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from tqdm import tqdm

from ernie_rna.sequences.batches import Window, work
from ernie_rna.sequences.long import Piece
from ernie_rna.sequences.survey import Survey

_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left"
_FORMAT_WITHOUT_TOTAL = "{desc}, {elapsed} gone"


class Progress:
    """What is done of the sequences, and how fast it goes.

    Args:
        show: whether to draw the bar; None draws it on a terminal only.
        hidden: width for `batches.work`.
        found: what a first pass over the input has found; None if it can be read only once.
        cost: the work of a sequence of so many nucleotides.
        processes: how many share the work; what they have done is taken to be alike.

    Attributes:
        done: sequences computed by this process in this run.
    """

    def __init__(
        self,
        show: bool | None,
        hidden: float,
        found: Survey | None,
        cost: Callable[[int], float],
        processes: int = 1,
    ):
        self._hidden = hidden
        self._records: int | None = None
        self._total_work: float | None = None
        if found is not None:
            self._records = found.records
            self._total_work = sum(n * cost(size) for size, n in found.lengths.items())
        self._processes = processes
        self._work = 0.0
        self._skipped = 0
        self._start = time.monotonic()
        self.done = 0.0
        self.tokens = self.padding = 0
        self._bar = tqdm(
            total=self._total_work,
            bar_format=_FORMAT if found else _FORMAT_WITHOUT_TOTAL,
            # The mean since the start: the estimate shall not jump with every batch.
            smoothing=0,
            disable=None if show is None else not show,
            dynamic_ncols=True,
        )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def rate(self) -> float:
        """Sequences a second of all processes, without what an earlier run had done."""
        return self._processes * self.done / max(self.seconds, 1e-9)

    def advance(self, window: Window, batch: int) -> None:
        """Count a batch of a window as computed."""
        pieces = [window.pieces[index] for index in window.batches[batch]]
        longest = pieces[0].tokens
        self.tokens += longest * len(pieces)
        self.padding += sum(longest - piece.tokens for piece in pieces)
        self.done += sum(
            piece.owned / len(window.records[piece.record].sequence) for piece in pieces
        )
        self._draw(pieces)

    def skip(self, window: Window) -> None:
        """Count a window as found to be there."""
        self._skipped += len(window.records)
        self._draw(window.pieces, skipped=True)

    def _draw(self, pieces: Iterable[Piece], skipped: bool = False) -> None:
        amount = self._processes * sum(work(piece.tokens, self._hidden) for piece in pieces)
        if self._total_work is not None:
            amount = min(amount, self._total_work - self._work)
        self._work += amount
        if skipped and not self._bar.disable:  # A bar that is not shown has no such field.
            self._bar.initial += amount
        done = self._processes * (self._skipped + self.done)
        of = ""
        if self._records is not None:
            done, of = min(done, self._records), f" of {self._records}"
        self._bar.set_description_str(
            f"{done:.0f}{of} sequences, {self.rate:.1f} a second", refresh=False
        )
        self._bar.update(amount)

    def close(self) -> None:
        self._bar.close()
