"""A structure in memory."""

from dataclasses import dataclass

from ernie_rna.sequences.fasta import to_rna
from ernie_rna.structures.formats.dot_bracket import BasePair, sorted_pairs, to_dot_bracket


@dataclass(frozen=True)
class Structure:
    """A sequence and its base pairs.

    Args:
        id: name of the sequence, one word.
        sequence: its bases, stored unchanged.
        pairs: pairs of positions counted from 0, in any order; stored sorted, with i < j.
        description: the text after the id in the header of a file.

    Raises:
        ValueError: the pairs are not a structure of this sequence, see
            :func:`~ernie_rna.structures.formats.dot_bracket.sorted_pairs`; the id has a blank; or
            the description has a line break.

    >>> hairpin = Structure("hairpin", "GGGAAAACCC", [(2, 7), (1, 8), (9, 0)])
    >>> hairpin.pairs
    [(0, 9), (1, 8), (2, 7)]
    >>> hairpin.dot_bracket
    '(((....)))'
    """

    id: str
    sequence: str
    pairs: list[BasePair]
    description: str = ""

    def __post_init__(self) -> None:
        if self.id.split() not in ([], [self.id]) or set("\r\n") & set(self.description):
            header = f"{self.id!r}, {self.description!r}"
            raise ValueError(f"an id must be one word and a description one line; got {header}")
        object.__setattr__(self, "pairs", sorted_pairs(self.pairs, len(self.sequence)))

    @property
    def header(self) -> str:
        """Id and description, as files have them."""
        return f"{self.id} {self.description}".rstrip()

    @property
    def dot_bracket(self) -> str:
        return to_dot_bracket(self.pairs, len(self.sequence))

    @property
    def partners(self) -> list[int]:
        """The partner of each base, counted from 1; 0 for an unpaired base."""
        partners = [0] * len(self.sequence)
        for i, j in self.pairs:
            partners[i], partners[j] = j + 1, i + 1
        return partners


def differing_base(first: str, second: str) -> int | None:
    """Index, from 0, of the first difference of two sequences up to the end of the shorter.

    T is U, case does not matter, and N stands for any base. None if there is no difference.

    >>> differing_base("gATN", "GAUCC"), differing_base("GA", "GC")
    (None, 1)
    """
    for index, (a, b) in enumerate(zip(to_rna(first), to_rna(second), strict=False)):
        if a != b and "N" not in (a, b):
            return index
    return None
