"""A progress bar that counts work, because a long sequence takes longer than a short one."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

from ernie_rna.sequences.chunks import Chunk, Piece, Plan
from ernie_rna.sequences.sources import Survey

_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left"
_FORMAT_WITHOUT_TOTAL = "{desc}, {elapsed} gone"
LOADING = "loading torch and the model"


def is_hidden(show: bool | None) -> bool:
    """Whether no bar is drawn. `show` decides, where None draws it on a terminal only; a closed
    standard error shows none."""
    return sys.stderr is None or not (sys.stderr.isatty() if show is None else show)


@contextlib.contextmanager
def show_loading(show: bool | None, doing: str = LOADING) -> Iterator[None]:
    """Show the text `doing` without a bar while the block runs; `show` is as for `Progress`."""
    disable = is_hidden(show)
    with tqdm(desc=doing, bar_format="{desc}", leave=False, disable=disable, dynamic_ncols=True):
        yield


class Progress:
    """Counts the sequences computed so far, and shows them and their rate.

    Args:
        show: whether to draw the bar; None draws it on a terminal only.
        plan: how the input is cut.
        input_survey: of the whole input; None if it can be read only once.

    Attributes:
        done: sequences computed by this process in this run.
        tokens, padding: how many of both it computed in this run, padding among the tokens.
        threads: the most that were used.
    """

    def __init__(self, show: bool | None, plan: Plan, input_survey: Survey | None):
        self._plan = plan
        self._records = None if input_survey is None else input_survey.records
        self._start = time.monotonic()
        self._seen = 0.0
        self.done = 0.0
        self.threads = 1
        self.tokens = self.padding = 0
        self._bar = tqdm(
            total=None if input_survey is None else total_work(plan, input_survey),
            bar_format=_FORMAT if input_survey else _FORMAT_WITHOUT_TOTAL,
            # The mean rate since the start, so that the estimate does not jump with every batch.
            smoothing=0,
            disable=is_hidden(show),
            dynamic_ncols=True,
        )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def advance(self, chunk: Chunk, pieces: list[Piece], threads: int) -> None:
        """Count a batch of a chunk as computed by this process."""
        longest = pieces[0].tokens
        self.tokens += longest * len(pieces)
        self.padding += sum(longest - piece.tokens for piece in pieces)
        self.done += chunk.share(pieces)
        self.threads = max(self.threads, threads)
        self._draw(chunk, pieces)

    def skip(self, chunk: Chunk) -> None:
        """Count a chunk that was computed before, or that another process computes."""
        if not self._bar.disable:  # A disabled bar has no field `initial`.
            self._bar.initial += self._plan.work(chunk.pieces)
        self._draw(chunk, chunk.pieces)

    def _draw(self, chunk: Chunk, pieces: list[Piece]) -> None:
        self._seen += chunk.share(pieces)
        of = "" if self._records is None else f" of {self._records}"
        rate = self.done / max(self.seconds, 1e-9)
        self._bar.set_description_str(
            f"{self._seen:.0f}{of} sequences, {rate:.1f} a second", refresh=False
        )
        amount = self._plan.work(pieces)
        if self._bar.total is not None:  # Rounding errors must not take the bar past its total.
            amount = min(amount, self._bar.total - self._bar.n)
        self._bar.update(amount)

    @contextlib.contextmanager
    def cleared(self) -> Iterator[None]:
        """Clear the line of the bar while the block prints."""
        self._bar.clear()
        yield
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


def total_work(plan: Plan, input_survey: Survey) -> float:
    """The cost of a whole input in units of `work`, with letters that a task gives no score."""
    lengths = input_survey.lengths.items()
    return sum(count * plan.work(plan.split(0, "A" * length)) for length, count in lengths)
