"""Constraints on structures, written on a line below the sequence as for RNAfold -C.

    >hairpin
    GGGGAAAACCCCA
    ((..xxxx..))<

    .      no constraint
    x      the base is unpaired
    |      the base is paired
    < >    the base is paired with a later base, or with an earlier one
    ( )    these two bases pair

Pairs that contradict a constraint are excluded from the map. Two bases in brackets always pair. If
a base must be paired, its best score is raised so that this pair is chosen, unless the partner has
a better one: then the base stays unpaired, as can happen with RNAfold.
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
    is_remark,
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
# A score that exceeds the threshold by `_SURE` becomes a pair unless a competing pair wins; a score
# of `_NEVER` never does.
_SURE, _NEVER = 5.0, -100.0


class Constraints:
    """The constraints on a set of RNAs.

    Args:
        texts: maps an id to its constraint, one character for each base.
        min_loop: fewest bases between partners.
    """

    def __init__(self, texts: Mapping[str, str], min_loop: int):
        if not isinstance(texts, Mapping) or not all(isinstance(t, str) for t in texts.values()):
            raise InputError(f"constraints must map ids to texts; got {texts!r:.80}")
        self.texts, self._min_loop = texts, min_loop

    @property
    def digest(self) -> str:
        """sha256 of the constraints and their ids."""
        return hashlib.sha256(repr(sorted(self.texts.items())).encode()).hexdigest()

    def check(self, records: Iterable[FastaRecord]) -> Iterator[FastaRecord]:
        """Yield the records; raise InputError if a constraint cannot be met or has no record."""
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
        unknown = [symbol for symbol in text if symbol not in _SYMBOLS]
        if unknown:
            return f"{unknown[0]!r} is not one of {' '.join(sorted(_SYMBOLS))}"
        if len(text) != len(sequence):
            return f"it has {len(text)} characters, but the sequence has {len(sequence)} nt"
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
        """The pairs in brackets, which the record must have."""
        return from_dot_bracket(self.texts.get(record.id, "").translate(_BESIDE_BRACKETS))

    def apply(self, record: FastaRecord, scores: Tensor, allowed: Tensor, threshold: float) -> None:
        """Change the scores of a record, (length, length), in place, as the module describes.

        Args:
            allowed: (length, length), which bases may pair.
            threshold: the score that a pair must exceed.
        """
        import torch

        text = np.array(list(self.texts.get(record.id, "")))
        if not text.size:
            return
        index = np.arange(len(text))
        is_later = index > index[:, None]  # [i, j]: j comes after i
        is_free = np.isin(text, list(".|<>"))
        may_pair = is_free[:, None] & is_free
        for symbol, side in (("<", is_later), (">", is_later.T)):
            may_pair &= side | (text != symbol)[:, None]
        may_pair &= may_pair.T
        for i, j in self.pairs(record):
            may_pair[i, j] = may_pair[j, i] = True
        scores.masked_fill_(~torch.from_numpy(may_pair).to(scores.device), _NEVER)
        for base in np.flatnonzero(np.isin(text, list("|<>()"))).tolist():
            best, partner = scores[base].masked_fill(~allowed[base], _NEVER).max(dim=0)
            if best > _NEVER:
                scores[base, partner] = scores[partner, base] = best.clamp(min=threshold + _SURE)


def read_constrained(path: FilePath, unknown: str) -> tuple[list[FastaRecord], dict[str, str]]:
    """Read the records of a FASTA file, and the constraints below some of them by id.

    Args:
        path, unknown: as for `fasta.read_fasta`.

    Raises:
        InputError: as `read_fasta`; or it is ambiguous whether a line is a constraint, or more
            of a sequence or structure follows one after a blank.
    """
    name = input_name(path)
    records: list[FastaRecord] = []
    texts: dict[str, str] = {}
    for header, lines in read_bodies(path):
        if SIGNS & set(header) and set(header) <= _SYMBOLS:
            problem = f"{header[:20]!r} after > is not a header; if it is part of a constraint,"
            raise InputError(f"{name}: {problem} write that constraint on one line")
        id, description = split_header(header)
        words = [line.split()[0] for line in lines]
        count = count_above(words)
        for word, line in zip(words[count:], lines[count:], strict=True):
            if not is_remark(line.removeprefix(word)):  # RNAfold writes an energy there.
                problem = f"a blank after position {len(word)} of {line[:40]!r}; remove it"
                raise InputError(f"{name}: {id}: {problem} from the constraint")
        records.append(FastaRecord(id, "".join(lines[:count]), description))
        if words[count:]:
            texts[id] = "".join(words[count:])
            if set(texts[id]) <= {"x"}:
                problem = "its x may be bases or a constraint; write bases as N, or a . in the"
                raise InputError(f"{name}: {id}: {problem} constraint")
    return list(check_records(records, name, unknown)), texts
