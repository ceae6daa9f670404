"""A structure in memory, and what the readers and writers of its files share."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from os import PathLike

from ernie_rna.structures.dot_bracket import BasePair, sorted_pairs, to_dot_bracket

FilePath = str | PathLike[str]

# What mfold, UNAfold and RNAstructure write before the name in the header of a .ct or .dbn file.
ENERGY_BEFORE_NAME = re.compile(r"^(ENERGY|dG)\s*=\s*\S+(\s+\[initially[^]]*\])?\s*", re.IGNORECASE)
_NAME = re.compile(r"^#?\s*(?:Name:\s*(\S.*)|Filename:\s*(\S.*?)(?:\.bpseq)?)$", re.IGNORECASE)


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
            :func:`~ernie_rna.structures.dot_bracket.sorted_pairs`; or the id has a line break.

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


def numbered_lines(path: FilePath, comments: bool = False) -> Iterator[tuple[int, str]]:
    """Number and text of the lines that are not blank, and not comments (#) unless asked for."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line, text in enumerate(file, 1):
            text = text.strip()
            if text and (comments or not text.startswith("#")):
                yield line, text


def name_in_comment(text: str) -> str | None:
    """The name in a line ``#Name: name`` (bpRNA) or ``Filename: name.bpseq`` (CRW); None in others.

    >>> name_in_comment("Filename: d.5.b.E.coli.bpseq")
    'd.5.b.E.coli'
    """
    match = _NAME.match(text)
    return (match[1] or match[2]) if match else None


def write_texts(
    path: FilePath,
    structures: Structure | Iterable[Structure],
    format_one: Callable[[Structure], str],
) -> None:
    """Write the texts of one structure or several to a file, with the same line ends everywhere."""
    if isinstance(structures, Structure):
        structures = [structures]
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(map(format_one, structures))
