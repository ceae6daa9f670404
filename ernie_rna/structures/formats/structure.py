"""A structure in memory, and the error of a file that should hold one."""

from dataclasses import dataclass
from os import PathLike

from ernie_rna.structures.formats.dot_bracket import BasePair, sorted_pairs, to_dot_bracket

FilePath = str | PathLike[str]


class StructureFormatError(ValueError):
    """A structure file cannot be understood; the message begins with ``path:line:``."""

    def __init__(self, path: FilePath, line: int, problem: str) -> None:
        super().__init__(f"{path}:{line}: {problem}")


@dataclass(frozen=True)
class Structure:
    """A sequence and its base pairs.

    Args:
        id: name of the sequence.
        sequence: its bases, kept as they are.
        pairs: pairs of positions counted from 0, in any order; stored sorted, with i < j.

    Raises:
        ValueError: the pairs are not a structure of this sequence, see
            :func:`~ernie_rna.structures.formats.dot_bracket.sorted_pairs`; or the id has a line
            break.

    >>> hairpin = Structure("hairpin", "GGGAAAACCC", [(2, 7), (1, 8), (9, 0)])
    >>> hairpin.pairs
    [(0, 9), (1, 8), (2, 7)]
    >>> hairpin.dot_bracket
    '(((....)))'
    """

    id: str
    sequence: str
    pairs: list[BasePair]

    def __post_init__(self) -> None:
        if len(self.id.splitlines()) > 1:
            raise ValueError(f"an id is on one line, not {self.id!r}")
        object.__setattr__(self, "pairs", sorted_pairs(self.pairs, len(self.sequence)))

    @property
    def dot_bracket(self) -> str:
        return to_dot_bracket(self.pairs, len(self.sequence))

    @property
    def partners(self) -> list[int]:
        """The partner of each base, counted from 1, and 0 for an unpaired base."""
        partners = [0] * len(self.sequence)
        for i, j in self.pairs:
            partners[i], partners[j] = j + 1, i + 1
        return partners
