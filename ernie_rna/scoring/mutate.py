"""How well each nucleotide fits its RNA, and what any other in its place would do.

>>> for scores in mutate(["GGGGAAAACCCC"], "folder-or-hub-id"):  # doctest: +SKIP
...     print(scores.id, scores.pseudo_perplexity, scores.effects[0])

Each position p is masked in turn, and the model asked for the probability P of every letter there
given the rest of the sequence, x without p:

log-likelihood of position p          log P(x_p | x without p)
pseudo-log-likelihood                 the sum of these
pseudo-perplexity                     exp(-their mean); 1 at best, 4 for a guess among four letters
effect of the mutant m at p           log P(m | x without p) - log P(x_p | x without p)

Logarithms are natural, and P is a softmax over A, C, G and U; with `vocabulary="all"` over all
tokens, as in pretraining. The effects do not depend on what it is taken over. `masked=False` reads
all positions off a single pass over the unmasked sequence instead, the "wild-type marginals" of
Meier et al., "Language models enable zero-shot prediction of the effects of mutations on protein
function", NeurIPS 2021: far cheaper, but the model sees the letter that it is asked about.

T is read as U. Positions with any other letter than A, C, G, U and T (N, the IUPAC codes) are
context for the others and get no scores themselves: NaN in the arrays, and left out of sum and
mean.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from string import ascii_lowercase
from typing import Any

import numpy as np
import torch

from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM
from ernie_rna.run.loading import load_masked_lm, memory_explained, not_finite, tokenize
from ernie_rna.run.progress import Progress
from ernie_rna.scoring.masked_lm import (
    NUCLEOTIDES,
    check_vocabulary,
    mask_tokens,
    nucleotide_log_probabilities,
)
from ernie_rna.scoring.masking import check_mask_pairing
from ernie_rna.sequences.batches import Window, plan_batches, resolve_batch_tokens, work
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.sequences.long import Piece
from ernie_rna.sequences.sources import Intake, Sequences

# A window ends at this many batches' worth of tokens: long enough to fill its batches.
_WINDOW_BATCHES = 64

_TO_RNA = str.maketrans(ascii_lowercase + "Tt", ascii_lowercase.upper() + "UU")


@dataclass(frozen=True)
class LetterScores:
    """What the model expects at each position of a sequence.

    Attributes:
        id: of the sequence.
        sequence: upper case, U for T.
        log_probabilities: (length, 4), of A, C, G and U; NaN in rows without scores.
    """

    id: str
    sequence: str
    log_probabilities: np.ndarray

    @cached_property
    def scored(self) -> np.ndarray:
        """(length,), False at N and the IUPAC codes."""
        return np.array([letter in NUCLEOTIDES for letter in self.sequence], dtype=bool)

    @cached_property
    def log_likelihoods(self) -> np.ndarray:
        """(length,), of the letters that are there; NaN where there are no scores."""
        columns = [max(NUCLEOTIDES.find(letter), 0) for letter in self.sequence]
        values: np.ndarray = self.log_probabilities[np.arange(len(columns)), columns]
        return values

    @cached_property
    def effects(self) -> np.ndarray:
        """(length, 4), of each letter in place of that which is there; 0 for that one itself."""
        return self.log_probabilities - self.log_likelihoods[:, None]

    @property
    def pseudo_log_likelihood(self) -> float:
        """Over the positions with scores; 0 where there is none."""
        return float(self.log_likelihoods[self.scored].sum(dtype=np.float64))

    @property
    def pseudo_perplexity(self) -> float:
        """Over the positions with scores; NaN where there is none."""
        count = int(self.scored.sum())
        return math.exp(-self.pseudo_log_likelihood / count) if count else math.nan


def mutate(
    sequences: Sequences,
    model: str | PathLike[str] | ErnieRnaForMaskedLM,
    *,
    masked: bool = True,
    mask_pairing: str = "inference",
    vocabulary: str = "nucleotides",
    long: str = "error",
    unknown: str = "error",
    batch_tokens: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
    attention: str | None = None,
    revision: str | None = None,
    progress: bool | None = False,
) -> Iterator[LetterScores]:
    """Score every letter, and every other in its place, of each sequence, in input order.

    Args:
        sequences: as for `embed.embed`.
        model: folder, Hub id or an `ErnieRnaForMaskedLM`.
        masked: whether each position is masked when it is asked about, which takes as many passes
            as there are nucleotides; False asks about all positions in one.
        mask_pairing: how `<mask>` pairs, "inference" or "pretraining", see `masked_lm`.
        vocabulary: what probabilities are normalised over: "nucleotides", A, C, G and U, or "all".
        long: what to do with a sequence longer than the model was trained on: "error" or
            "full" (computed whole).

    The other arguments are those of `embed.embed`.

    Raises:
        InputError: a sequence is unfit or too long; before any of it is computed, unless the
            input can be read only once.
        ValueError: an argument is off, or the model has no language-model head.
        EncodingError: memory does not suffice.
    """
    check_mask_pairing(mask_pairing)
    check_vocabulary(vocabulary)
    if not masked and mask_pairing != "inference":
        raise ValueError(f"mask_pairing={mask_pairing!r} with masked=False: there is no mask")
    intake = Intake(sequences, long, unknown)
    loaded = load_masked_lm(
        model, revision=revision, dtype=dtype, device=device, attention=attention
    )
    records = intake.records(loaded.config)
    tokens = resolve_batch_tokens(batch_tokens, loaded.device)
    windows = _windows(records, tokens, masked)
    hidden = loaded.config.hidden_size

    def cost(length: int) -> float:
        return (length if masked else 1) * work(length + 2, hidden)

    bar = Progress(progress, hidden, intake.found, cost)
    how = _How(mask_pairing if masked else None, vocabulary)
    return _scores(loaded, windows, how, bar)


@dataclass(frozen=True)
class _How:
    """How `<mask>` pairs, None where nothing is masked, and what a softmax is over."""

    mask_pairing: str | None
    vocabulary: str


def _scores(
    model: ErnieRnaForMaskedLM, windows: Iterable[Window], how: _How, bar: Progress
) -> Iterator[LetterScores]:
    with contextlib.closing(bar):
        for window in windows:
            results = [_without_scores(record) for record in window.records]
            for number, batch in enumerate(window.batches):
                pieces = [window.pieces[index] for index in batch]
                with memory_explained([window.records[piece.record] for piece in pieces]):
                    for piece, values in _score_batch(model, window.records, pieces, how):
                        array = results[piece.record].log_probabilities
                        array[piece.own_start : piece.own_stop] = values
                bar.advance(window, number)
            for scores in results:
                scores.log_probabilities[~scores.scored] = np.nan
                yield scores


def _without_scores(record: FastaRecord) -> LetterScores:
    sequence = record.sequence.translate(_TO_RNA)
    nothing = np.full((len(sequence), len(NUCLEOTIDES)), np.nan, dtype=np.float32)
    return LetterScores(record.id, sequence, nothing)


def _windows(records: Iterable[FastaRecord], batch_tokens: int, masked: bool) -> Iterator[Window]:
    """Cut records into windows of passes: pieces that see all of a sequence.

    With `masked` there is one for each position with scores, which is what it owns.
    """
    taken: list[FastaRecord] = []
    pieces: list[Piece] = []
    number = tokens = 0
    for record in records:
        cost = (len(record.sequence) + 2) * (len(record.sequence) if masked else 1)
        if taken and tokens + cost > batch_tokens * _WINDOW_BATCHES:
            yield _window(number, taken, pieces, batch_tokens)
            number, tokens, taken, pieces = number + 1, 0, [], []
        pieces += _passes(len(taken), record.sequence, masked)
        taken.append(record)
        tokens += cost
    if taken:
        yield _window(number, taken, pieces, batch_tokens)


def _passes(record: int, sequence: str, masked: bool) -> list[Piece]:
    length = len(sequence)
    if not masked:
        return [Piece(record, 0, length, 0, length)]
    return [
        Piece(record, 0, length, position, position + 1)
        for position, letter in enumerate(sequence.translate(_TO_RNA))
        if letter in NUCLEOTIDES
    ]


def _window(
    number: int, records: list[FastaRecord], pieces: list[Piece], batch_tokens: int
) -> Window:
    batches = plan_batches([piece.tokens for piece in pieces], batch_tokens)
    return Window(number, records, pieces, batches)


def _score_batch(
    model: ErnieRnaForMaskedLM,
    records: list[FastaRecord],
    pieces: list[Piece],
    how: _How,
) -> Iterator[tuple[Piece, np.ndarray]]:
    """Run some passes; yield, for each, the log-probabilities where it owns, (owned, 4)."""
    chosen = sorted({piece.record for piece in pieces})
    row_of = {record: row for row, record in enumerate(chosen)}
    rows = [row_of[piece.record] for piece in pieces]
    input_ids, mask = tokenize([records[record].sequence for record in chosen], model.device)
    input_ids, mask = input_ids[rows], mask[rows]  # (batch, seq), a row a pass
    owned = torch.zeros(input_ids.shape, dtype=torch.bool)
    for row, piece in zip(owned, pieces, strict=True):
        row[1 + piece.own_start : 1 + piece.own_stop] = True
    owned = owned.to(model.device)
    config: Any = model.config
    pairing_scores = None
    if how.mask_pairing is not None:
        input_ids, pairing_scores = mask_tokens(input_ids, owned, config, how.mask_pairing)
    values = nucleotide_log_probabilities(
        model, input_ids, mask, owned, pairing_scores, how.vocabulary
    ).cpu()
    parts = values.split([piece.owned for piece in pieces])
    for piece, part in zip(pieces, parts, strict=True):
        if not part.isfinite().all():
            raise not_finite(f"{records[piece.record].id}: a log-probability", model)
        yield piece, part.numpy()
