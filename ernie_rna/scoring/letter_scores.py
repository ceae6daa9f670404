"""What the model expects at each position of a sequence, and the tables of that. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from string import ascii_lowercase

import numpy as np

# The order of the letters in everything that has a value for each of them.
NUCLEOTIDES = "ACGU"
_TO_RNA = str.maketrans(ascii_lowercase + "Tt", ascii_lowercase.upper() + "UU")
_NONE = "NA"

EFFECTS_HEADER = "id\tposition\twildtype\tmutant\teffect\n"
POSITIONS_HEADER = "id\tposition\twildtype\tlog_p_A\tlog_p_C\tlog_p_G\tlog_p_U\tlog_likelihood\n"
SUMMARY_HEADER = "id\tlength\tscored\tpseudo_log_likelihood\tpseudo_perplexity\n"


def as_rna(sequence: str) -> str:
    """A sequence in upper case, with U for T."""
    return sequence.translate(_TO_RNA)


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


def effect_lines(scores: LetterScores) -> Iterator[str]:
    """Lines below `EFFECTS_HEADER`, of every other letter at the positions with scores."""
    for position, (letter, effects) in enumerate(
        zip(scores.sequence, scores.effects.tolist(), strict=True), 1
    ):
        for mutant, effect in zip(NUCLEOTIDES, effects, strict=True):
            if letter in NUCLEOTIDES and mutant != letter:
                yield f"{scores.id}\t{position}\t{letter}\t{mutant}\t{effect:.6f}\n"


def position_lines(scores: LetterScores) -> Iterator[str]:
    """Lines below `POSITIONS_HEADER`."""
    rows = zip(
        scores.sequence,
        scores.log_probabilities.tolist(),
        scores.log_likelihoods.tolist(),
        strict=True,
    )
    for position, (letter, values, own) in enumerate(rows, 1):
        numbers = "\t".join(map(_number, [*values, own]))
        yield f"{scores.id}\t{position}\t{letter}\t{numbers}\n"


def summary_line(scores: LetterScores) -> str:
    """The line below `SUMMARY_HEADER`."""
    count = int(scores.scored.sum())
    numbers = [scores.pseudo_log_likelihood, scores.pseudo_perplexity] if count else [math.nan] * 2
    values = "\t".join(map(_number, numbers))
    return f"{scores.id}\t{len(scores.sequence)}\t{count}\t{values}\n"


def _number(value: float) -> str:
    return _NONE if math.isnan(value) else f"{value:.6f}"
