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

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from os import fspath
from typing import Any

import numpy as np

from ernie_rna.options import MutateOptions, takes
from ernie_rna.run.outputs import check_output_files
from ernie_rna.run.runner import RunSummary, Task, iterate, run, text_output
from ernie_rna.sequences.chunks import Piece, Plan, resolve_batch_tokens, whole
from ernie_rna.sequences.fasta import FastaRecord, FilePath, to_rna
from ernie_rna.sequences.sources import Sequences
from ernie_rna.sequences.tables import TABLES, format_row

# The order of the letters in everything that has a value for each of them.
NUCLEOTIDES = "ACGU"
_LOGS = "log_p_A log_p_C log_p_G log_p_U"


@dataclass(frozen=True)
class LetterScores:
    """What the model expects at each position of a sequence.

    Attributes:
        id: of the sequence.
        sequence: upper case, U for T, unless letters are kept.
        log_probabilities: (length, 4), of A, C, G and U; NaN in rows without scores.
    """

    id: str
    sequence: str
    log_probabilities: np.ndarray

    @cached_property
    def rna(self) -> str:
        """The sequence in upper case, U for T."""
        return to_rna(self.sequence)

    @cached_property
    def scored(self) -> np.ndarray:
        """(length,), False at N and the IUPAC codes."""
        return np.array([letter in NUCLEOTIDES for letter in self.rna], dtype=bool)

    @cached_property
    def log_likelihoods(self) -> np.ndarray:
        """(length,), of the letters that are there; NaN where there are no scores."""
        columns = [max(NUCLEOTIDES.find(letter), 0) for letter in self.rna]
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

    def _repr_svg_(self) -> str | None:  # a notebook shows the effects
        from ernie_rna.plots.drawings import as_svg, plot_effects

        return as_svg(plot_effects, self)


@takes(MutateOptions)
def mutate(
    sequences: Sequences,
    model: Any,
    output: FilePath | None = None,
    positions: FilePath | None = None,
    summary: FilePath | None = None,
    *,
    options: MutateOptions,
) -> Iterator[LetterScores] | RunSummary:
    """Score every letter, and every other in its place, of each sequence, in input order.

    Resuming and sharing are those of `embed.embed`, in the middle of a sequence as well.

    Args:
        sequences: as for `embed.embed`.
        model: folder, Hub id, "mini" or an `ErnieRnaForMaskedLM`.
        output, positions, summary: .tsv or .csv files, or "-" for standard output, with the
            effects of all substitutions, the log-probabilities at each position and a line for
            each sequence; without any of them the scores are yielded.

    Raises:
        ValueError: also for a model without a language-model head.
        And as `embed.embed`.
    """
    task = MutateTask(options)
    tables = (
        (output, "id position wildtype mutant effect", _effect_lines),
        (positions, f"id position wildtype {_LOGS} log_likelihood", _position_lines),
        (summary, "id length scored pseudo_log_likelihood pseudo_perplexity", _summary_line),
    )
    outputs = [
        text_output(fspath(path), format_row(*columns.split()), lines)
        for path, columns, lines in tables
        if path is not None
    ]
    if not outputs:
        return iterate(task, sequences, model)
    # Whether files may be replaced is for `run` to see, which knows of unfinished runs.
    check_output_files([one.path for one in outputs], force=True, extensions=tuple(TABLES))
    return run(task, sequences, model, outputs)


class MutateTask(Task[LetterScores]):
    """Passes over sequences, one for each position that is asked about.

    A chunk may have some of the passes of a sequence; its scores are then NaN elsewhere.
    """

    name, result = "letter scores", LetterScores
    options: MutateOptions

    def load(self, source: Any) -> None:
        from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM
        from ernie_rna.run.loading import load

        options = self.options
        self.model = load(ErnieRnaForMaskedLM, source, **options.loading)
        tokens = resolve_batch_tokens(options.batch_tokens, self.model.device)
        hidden = self.model.config.hidden_size
        split = _passes if options.masked else whole
        self.plan = Plan(tokens, hidden, split, divides=options.masked)

    def compute(self, records: list[FastaRecord], pieces: list[Piece]) -> Iterator[np.ndarray]:
        """Run some passes; for each, the log-probabilities where it owns, (owned, 4)."""
        import torch

        from ernie_rna.run.loading import not_finite, tokenize
        from ernie_rna.scoring.masking import mask_tokens, nucleotide_log_probabilities

        texts = {piece.record: one.sequence for one, piece in zip(records, pieces, strict=True)}
        chosen = sorted(texts)
        rows = [chosen.index(piece.record) for piece in pieces]
        batch = tokenize([texts[record] for record in chosen], self.model.device)
        input_ids, mask = (one[rows] for one in batch)
        owned = torch.zeros(input_ids.shape, dtype=torch.bool)  # (batch, seq), a row a pass
        for row, piece in zip(owned, pieces, strict=True):
            row[1 + piece.own_start : 1 + piece.own_stop] = True
        owned, scores = owned.to(self.model.device), None
        if self.options.masked:
            how = self.options.mask_pairing
            input_ids, scores = mask_tokens(input_ids, owned, self.model.config, how)
        values = nucleotide_log_probabilities(
            self.model, input_ids, mask, owned, scores, self.options.vocabulary
        )
        parts = values.cpu().split([piece.owned for piece in pieces])
        for record, part in zip(records, parts, strict=True):
            if not part.isfinite().all():
                raise not_finite(f"{record.id}: a log-probability", self.model)
            yield part.numpy()

    def merge(
        self, record: FastaRecord, pieces: list[Piece], values: list[np.ndarray]
    ) -> LetterScores:
        array = np.full((len(record.sequence), 4), np.nan, np.float32)
        for piece, own in zip(pieces, values, strict=True):
            array[piece.own_start : piece.own_stop] = own
        scores = LetterScores(record.id, record.sequence, array)
        array[~scores.scored] = np.nan
        return scores

    def join(self, results: Iterable[LetterScores]) -> Iterator[LetterScores]:
        for _, same in groupby(results, attrgetter("id")):
            first, *others = same
            for other in others:
                there = ~np.isnan(other.log_probabilities)
                first.log_probabilities[there] = other.log_probabilities[there]
            yield first


def _passes(record: int, sequence: str) -> list[Piece]:
    """A piece that sees all of a sequence for each position with scores, which is what it owns."""
    return [
        Piece(record, 0, len(sequence), position, position + 1)
        for position, letter in enumerate(to_rna(sequence))
        if letter in NUCLEOTIDES
    ]


# ---------------------------------------------------------------------------------------------
# Tables


def _effect_lines(scores: LetterScores) -> Iterator[str]:
    """Lines of every other letter at the positions with scores."""
    rows = zip(scores.sequence, scores.rna, scores.effects.tolist(), strict=True)
    for position, (own, letter, effects) in enumerate(rows, 1):
        for mutant, effect in zip(NUCLEOTIDES, effects, strict=True):
            if letter in NUCLEOTIDES and mutant != letter:
                yield format_row(scores.id, position, own, mutant, f"{effect:.6f}")


def _position_lines(scores: LetterScores) -> Iterator[str]:
    rows = zip(
        scores.sequence,
        scores.log_probabilities.tolist(),
        scores.log_likelihoods.tolist(),
        strict=True,
    )
    for position, (letter, values, own) in enumerate(rows, 1):
        yield format_row(scores.id, position, letter, *map(_number, [*values, own]))


def _summary_line(scores: LetterScores) -> str:
    count = int(scores.scored.sum())
    numbers = [scores.pseudo_log_likelihood, scores.pseudo_perplexity] if count else [math.nan] * 2
    return format_row(scores.id, len(scores.sequence), count, *map(_number, numbers))


def _number(value: float) -> str:
    return "NA" if math.isnan(value) else f"{value:.6f}"
