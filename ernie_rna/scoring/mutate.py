"""How likely each nucleotide of an RNA is, and the effects of all substitutions.

>>> for scores in mutate(["GGGGAAAACCCC"], "folder-or-hub-id"):  # doctest: +SKIP
...     print(scores.id, scores.pseudo_perplexity, scores.effects[0])

Each position p is masked in turn, and the model predicts the probability P of every letter there
given the rest of the sequence, x without p:

log-likelihood of position p          log P(x_p | x without p)
pseudo-log-likelihood                 the sum of these
pseudo-perplexity                     exp(-their mean); 1 at best, 4 for a uniform guess
effect of the mutant m at p           log P(m | x without p) - log P(x_p | x without p)

Logarithms are natural. P is a softmax over A, C, G and U or, with `vocabulary="all"`, over all
tokens, as in pretraining; the effects are the same. `masked=False` instead scores all positions in
a single pass over the unmasked sequence, the "wild-type marginals" of Meier et al., "Language
models enable zero-shot prediction of the effects of mutations on protein function", NeurIPS 2021:
far cheaper, but the model sees the letter that it predicts.

T is read as U. Positions with other letters (N, the IUPAC codes) are context for the others but
have no scores: they are NaN in the arrays, and left out of sum and mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np

from ernie_rna.options import MutateOptions, takes
from ernie_rna.run.outputs import check_output_files, output_path
from ernie_rna.run.runner import RunSummary, Task, iterate, run, text_output
from ernie_rna.sequences.chunks import Piece, Plan, resolve_batch_tokens, whole
from ernie_rna.sequences.fasta import FastaRecord, FilePath, to_rna
from ernie_rna.sequences.sources import Sequences
from ernie_rna.sequences.tables import TABLES, format_row

# The order of the letters in arrays and tables with a value for each.
NUCLEOTIDES = "ACGU"
_LOGS = "log_p_A log_p_C log_p_G log_p_U"
_TOTALS = "pseudo_log_likelihood pseudo_perplexity"


@dataclass(frozen=True)
class LetterScores:
    """The log-probability of each letter at each position of a sequence.

    Attributes:
        id: id of the sequence.
        sequence: in upper case with U for T, unless `keep_letters` is set.
        log_probabilities: (length, 4), of A, C, G and U; NaN in rows without scores.
    """

    id: str
    sequence: str
    log_probabilities: np.ndarray

    @cached_property
    def rna(self) -> str:
        """The sequence in upper case with U for T."""
        return to_rna(self.sequence)

    @cached_property
    def scored(self) -> np.ndarray:
        """Whether each position has scores, (length,): False at N and the IUPAC codes."""
        return np.array([letter in NUCLEOTIDES for letter in self.rna], dtype=bool)

    @cached_property
    def log_likelihoods(self) -> np.ndarray:
        """Log-probabilities of the letters of the sequence, (length,); NaN without scores."""
        columns = [max(NUCLEOTIDES.find(letter), 0) for letter in self.rna]
        values: np.ndarray = self.log_probabilities[np.arange(len(columns)), columns]
        return values

    @cached_property
    def effects(self) -> np.ndarray:
        """Effects of the substitutions by each letter, (length, 4); 0 for the original letter."""
        return self.log_probabilities - self.log_likelihoods[:, None]

    @property
    def pseudo_log_likelihood(self) -> float:
        """Sum over the positions with scores; 0 if there are none."""
        return float(self.log_likelihoods[self.scored].sum(dtype=np.float64))

    @property
    def pseudo_perplexity(self) -> float:
        """Pseudo-perplexity over the positions with scores; NaN if there are none."""
        count = int(self.scored.sum())
        return math.exp(-self.pseudo_log_likelihood / count) if count else math.nan

    def _repr_svg_(self) -> str | None:
        """A picture of the effects, which notebooks show."""
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
    """Score every letter and every substitution of each sequence, in input order.

    Runs are resumed and shared as by `embed.embed`, even in the middle of a sequence.

    Args:
        sequences: as for `embed.embed`.
        model: folder, Hub id, "mini" or an `ErnieRnaForMaskedLM`.
        output, positions, summary: .tsv or .csv files, or "-" for standard output, with the
            effects of all substitutions, the log-probabilities at each position and a line for
            each sequence; if all are None, the scores are yielded.

    Raises:
        ValueError: the model has no language-model head.
        And as `embed.embed`.
    """
    task = MutateTask(options)
    tables = (
        ("output", output, "id position wildtype mutant effect", _effect_lines),
        ("positions", positions, f"id position wildtype {_LOGS} log_likelihood", _position_lines),
        ("summary", summary, f"id length scored {_TOTALS}", _summary_line),
    )
    outputs = [
        text_output(output_path(path, name), format_row(*columns.split()), lines)
        for name, path, columns, lines in tables
        if path is not None
    ]
    if not outputs:
        return iterate(task, sequences, model)
    # `run` checks whether files may be replaced, since it knows of unfinished runs.
    check_output_files([out.path for out in outputs], force=True, extensions=tuple(TABLES))
    return run(task, sequences, model, outputs)


class MutateTask(Task[LetterScores]):
    """Letter scores of sequences, by one pass for each position or by one for all.

    A chunk may have only some of the passes of a sequence; its scores are then NaN elsewhere.
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
        """Yield the log-probabilities at the positions that each pass owns, (owned, 4)."""
        import torch

        from ernie_rna.run.loading import not_finite, tokenize
        from ernie_rna.scoring.masking import mask_tokens, nucleotide_log_probabilities

        sequences = {piece.record: r.sequence for r, piece in zip(records, pieces, strict=True)}
        batch = tokenize([*sequences.values()], self.model.device)  # each sequence once
        order = [*sequences]
        rows = [order.index(piece.record) for piece in pieces]
        input_ids, attention_mask = (tensor[rows] for tensor in batch)  # (passes, seq)
        owned = torch.zeros(input_ids.shape, dtype=torch.bool)
        for row, piece in zip(owned, pieces, strict=True):
            row[1 + piece.own_start : 1 + piece.own_stop] = True
        owned, pairing_scores = owned.to(self.model.device), None
        config, options = self.model.config, self.options
        if options.masked:
            input_ids, pairing_scores = mask_tokens(input_ids, owned, config, options.mask_pairing)
        values = nucleotide_log_probabilities(
            self.model, input_ids, attention_mask, owned, pairing_scores, options.vocabulary
        )
        by_pass = values.cpu().split([piece.owned for piece in pieces])
        for record, log_probabilities in zip(records, by_pass, strict=True):
            if not log_probabilities.isfinite().all():
                raise not_finite(f"{record.id}: a log-probability", self.model)
            yield log_probabilities.numpy()

    def merge(
        self, record: FastaRecord, pieces: list[Piece], values: list[np.ndarray]
    ) -> LetterScores:
        """The scores of a record from those of its passes; NaN where there are none."""
        array = np.full((len(record.sequence), 4), np.nan, np.float32)
        for piece, log_probabilities in zip(pieces, values, strict=True):
            array[piece.own_start : piece.own_stop] = log_probabilities
        scores = LetterScores(record.id, record.sequence, array)
        array[~scores.scored] = np.nan
        return scores

    def join(self, results: Iterable[LetterScores]) -> Iterator[LetterScores]:
        """Combine the scores of a sequence whose passes are in several chunks."""
        for _, of_sequence in groupby(results, attrgetter("id")):
            scores, *later = of_sequence
            for other in later:
                known = ~np.isnan(other.log_probabilities)
                scores.log_probabilities[known] = other.log_probabilities[known]
            yield scores


def _passes(record: int, sequence: str) -> list[Piece]:
    """For each position with scores, a piece that has the whole sequence and owns the position."""
    return [
        Piece(record, 0, len(sequence), position, position + 1)
        for position, letter in enumerate(to_rna(sequence))
        if letter in NUCLEOTIDES
    ]


# ---------------------------------------------------------------------------------------------
# Tables


def _effect_lines(scores: LetterScores) -> Iterator[str]:
    """A line for each substitution, at the positions with scores; positions count from 1."""
    rows = zip(scores.sequence, scores.rna, scores.effects.tolist(), strict=True)
    for position, (wildtype, letter, effects) in enumerate(rows, 1):
        for mutant, effect in zip(NUCLEOTIDES, effects, strict=True):
            if letter in NUCLEOTIDES and mutant != letter:
                yield format_row(scores.id, position, wildtype, mutant, f"{effect:.6f}")


def _position_lines(scores: LetterScores) -> Iterator[str]:
    """A line for each position, counted from 1."""
    values = np.column_stack([scores.log_probabilities, scores.log_likelihoods]).tolist()
    for position, (wildtype, row) in enumerate(zip(scores.sequence, values, strict=True), 1):
        yield format_row(scores.id, position, wildtype, *map(_number, row))


def _summary_line(scores: LetterScores) -> str:
    count = int(scores.scored.sum())
    numbers = [scores.pseudo_log_likelihood, scores.pseudo_perplexity] if count else [math.nan] * 2
    return format_row(scores.id, len(scores.sequence), count, *map(_number, numbers))


def _number(value: float) -> str:
    return "NA" if math.isnan(value) else f"{value:.6f}"
