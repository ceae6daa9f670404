"""Constraints on structures, a line below the sequence as RNAfold -C takes it.

    >hairpin
    GGGGAAAACCCCA
    ((..xxxx..))<

    .      no constraint
    x      the base is unpaired
    |      the base is paired
    < >    the base is paired with one behind it, or before it
    ( )    these two bases pair

What contradicts a constraint is left out of the map. Two bases in brackets always pair. Of a base
that is to be paired the best score is raised until that partner is taken, unless it is better off
with another: then the base stays unpaired, as it may with RNAfold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ernie_rna.sequences.fasta import (
    FastaRecord,
    FilePath,
    InputError,
    check_records,
    input_name,
    read_bodies,
    split_header,
    to_rna,
)
from ernie_rna.structures.formats.by_extension import SIGNS, count_above
from ernie_rna.structures.formats.dot_bracket import BasePair, from_dot_bracket

if TYPE_CHECKING:
    from torch import Tensor

_SYMBOLS = frozenset(".x|<>()")
_BESIDE_BRACKETS = str.maketrans("x|<>", "....")
# A score so far above the threshold becomes a pair, if nothing stands against it; and so far below
# it no pair ever does.
_SURE, _NEVER = 5.0, -100.0


class Constraints:
    """The constraints on some RNAs.

    Args:
        texts: by id, a character for each base.
        min_loop: fewest bases between partners.
    """

    def __init__(self, texts: Mapping[str, str], min_loop: int):
        if not isinstance(texts, Mapping) or not all(isinstance(t, str) for t in texts.values()):
            raise InputError(f"constraints must be texts by id; got {texts!r:.80}")
        self.texts, self._min_loop = texts, min_loop

    @property
    def digest(self) -> str:
        """The sha256 of all that the results depend on."""
        return hashlib.sha256(repr(sorted(self.texts.items())).encode()).hexdigest()

    def check(self, records: Iterable[FastaRecord]) -> Iterator[FastaRecord]:
        """Pass records on; InputError for one that cannot have a structure by its constraint, and
        for a constraint of no record."""
        unseen = set(self.texts)
        for record in records:
            unseen.discard(record.id)
            text = self.texts.get(record.id, "." * len(record.sequence))
            problem = self._problem(to_rna(record.sequence), text)
            if problem is not None:
                raise InputError(f"the constraint of {record.id}: {problem}")
            yield record
        if unseen:
            raise InputError(f"there is a constraint for {min(unseen)}, but no such sequence")

    def _problem(self, sequence: str, text: str) -> str | None:
        odd = [symbol for symbol in text if symbol not in _SYMBOLS]
        if odd:
            return f"{odd[0]!r} is none of {' '.join(sorted(_SYMBOLS))}"
        if len(text) != len(sequence):
            return f"it has {len(text)} characters, and the sequence {len(sequence)} nt"
        try:
            pairs = from_dot_bracket(text.translate(_BESIDE_BRACKETS))
        except ValueError as error:
            return str(error)
        for i, j in pairs:
            bases = sequence[i] + sequence[j]
            if bases not in ("AU", "UA", "CG", "GC", "GU", "UG"):
                return f"bases {i + 1} and {j + 1} are {bases}; only A-U, G-C and G-U pair"
            if j - i <= self._min_loop:
                return (
                    f"bases {i + 1} and {j + 1} have {j - i - 1} bases between them; --min-loop "
                    f"is {self._min_loop}"
                )
        return None

    def pairs(self, record: FastaRecord) -> list[BasePair]:
        """The pairs that a record must have."""
        return from_dot_bracket(self.texts.get(record.id, "").translate(_BESIDE_BRACKETS))

    def apply(self, record: FastaRecord, scores: Tensor, allowed: Tensor, threshold: float) -> None:
        """Change the scores of a record, (length, length), in place; see the module.

        Args:
            allowed: (length, length), which bases may pair.
            threshold: the score that a pair must have.
        """
        import torch

        text = np.array(list(self.texts.get(record.id, "")))
        if not text.size:
            return
        index = np.arange(len(text))
        behind = index > index[:, None]  # [i, j]: j is behind i
        free = np.isin(text, list(".|<>"))
        may_be = free[:, None] & free
        for symbol, side in (("<", behind), (">", behind.T)):
            may_be &= side | (text != symbol)[:, None]
        pairs = self.pairs(record)
        may_be &= may_be.T
        for i, j in pairs:
            may_be[i, j] = may_be[j, i] = True
        scores.masked_fill_(~torch.from_numpy(may_be).to(scores.device), _NEVER)
        for base in np.flatnonzero(np.isin(text, list("|<>()"))).tolist():
            best, partner = scores[base].masked_fill(~allowed[base], _NEVER).max(dim=0)
            if best > _NEVER:
                raised = best.clamp(min=threshold + _SURE)
                scores[base, partner] = scores[partner, base] = raised


def read_constrained(path: FilePath, unknown: str) -> tuple[list[FastaRecord], dict[str, str]]:
    """The records of a FASTA file with constraints below some sequences, and these by id.

    Args:
        path, unknown: as for `fasta.read_fasta`.

    Raises:
        InputError: as `read_fasta`.
    """
    name = input_name(path)
    records: list[FastaRecord] = []
    texts: dict[str, str] = {}
    for header, lines in read_bodies(path):
        if SIGNS & set(header) and set(header) <= _SYMBOLS:
            problem = f"{header[:20]!r} behind > is no header: write a constraint that has such a"
            raise InputError(f"{name}: {problem} line on one")
        id, description = split_header(header)
        # Behind a structure of RNAfold stands its energy.
        words = [line.split()[0] for line in lines]
        count = count_above(words)
        records.append(FastaRecord(id, "".join(lines[:count]), description))
        if words[count:]:
            texts[id] = "".join(words[count:])
            if set(texts[id]) <= {"x"}:
                raise InputError(f"{name}: {id}: its x may be bases or a constraint: write N or .")
    return list(check_records(records, name, unknown)), texts
