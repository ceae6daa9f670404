"""Base pairs as dot-bracket text and back, pseudoknots included.

In memory a structure is a sorted list of pairs ``(i, j)`` with ``i < j``, counted from 0. In the
text a pair is a bracket at ``i`` and its counterpart at ``j``; pairs that cross take another kind
of bracket, first ``()``, then ``[]``, ``{}``, ``<>``, ``Aa`` to ``Zz``, 30 kinds in all. Other
programs have lower-case letters open and capitals close, which is read as well.
"""

from collections.abc import Iterable
from string import ascii_lowercase, ascii_uppercase

import numpy as np

BasePair = tuple[int, int]

OPENING_BRACKETS = "([{<" + ascii_uppercase
CLOSING_BRACKETS = ")]}>" + ascii_lowercase
# Rfam's WUSS notation writes unpaired bases by the kind of loop they stand in.
UNPAIRED = ".-_,:~"

# Of each bracket its kind, which is called by the one that opens.
_KINDS = dict(zip(OPENING_BRACKETS + CLOSING_BRACKETS, 2 * OPENING_BRACKETS, strict=True))


def sorted_pairs(pairs: Iterable[Iterable[int]], length: int) -> list[BasePair]:
    """Bring pairs to the form used everywhere in this package, or say what is wrong with them.

    Args:
        pairs: pairs of positions counted from 0, in any order; also an array of shape (pairs, 2).
        length: number of bases of the sequence.

    Returns:
        The pairs as ``(i, j)`` with ``i < j``, sorted.

    Raises:
        ValueError: a position is outside the sequence, or a base pairs with itself or with two.

    >>> sorted_pairs([(7, 1), (0, 8)], length=9)
    [(0, 8), (1, 7)]
    >>> sorted_pairs([(0, 8), (8, 2)], length=9)
    Traceback (most recent call last):
    ValueError: base 8 has two partners, 2 and 0 (counted from 0)
    """
    partner: dict[int, int] = {}
    result = []
    for i, j in pairs:
        i, j = sorted((int(i), int(j)))
        if i < 0 or j >= length:
            raise ValueError(
                f"pair ({i}, {j}) is outside a sequence of {length} bases (counted from 0)"
            )
        if i == j:
            raise ValueError(f"base {i} is paired with itself (counted from 0)")
        for base, other in ((i, j), (j, i)):
            if partner.setdefault(base, other) != other:
                raise ValueError(
                    f"base {base} has two partners, {other} and {partner[base]} (counted from 0)"
                )
        result.append((i, j))
    return sorted(set(result))


def to_dot_bracket(pairs: Iterable[Iterable[int]], length: int) -> str:
    """Write pairs as dot-bracket text; the inverse of :func:`from_dot_bracket`.

    The largest set of pairs that do not cross is written with ``()``, the largest of the rest with
    ``[]`` and so on. Of two sets of equal size, the one whose pairs close first goes first.

    Args:
        pairs: pairs of positions counted from 0.
        length: number of bases, and so of characters returned.

    Raises:
        ValueError: see :func:`sorted_pairs`; or more than 30 kinds of bracket would be needed.

    >>> to_dot_bracket([(0, 9), (1, 8), (2, 7)], length=10)
    '(((....)))'
    >>> to_dot_bracket([(0, 5), (2, 9), (3, 8)], length=10)
    '[.((.]..))'
    """
    text = ["."] * length
    pages = nested_pages(sorted_pairs(pairs, length))
    if len(pages) > len(OPENING_BRACKETS):
        raise ValueError(
            f"these pairs need {len(pages)} kinds of bracket and dot-bracket has "
            f"{len(OPENING_BRACKETS)}; write .ct or .bpseq instead"
        )
    for page, opening, closing in zip(pages, OPENING_BRACKETS, CLOSING_BRACKETS, strict=False):
        for i, j in page:
            text[i], text[j] = opening, closing
    return "".join(text)


def from_dot_bracket(text: str) -> list[BasePair]:
    """Read the pairs of a dot-bracket text; the inverse of :func:`to_dot_bracket`.

    Any of ``.-_,:~`` is an unpaired base, so that Rfam's WUSS notation can be read as well.

    Args:
        text: one character a base, with no white space.

    Returns:
        Sorted pairs ``(i, j)``, ``i < j``, counted from 0.

    Raises:
        ValueError: a character is unknown or a bracket has no counterpart; the message has the
            index, counted from 0.

    >>> from_dot_bracket("[.((.]..))")
    [(0, 5), (2, 9), (3, 8)]
    >>> from_dot_bracket("((..)")
    Traceback (most recent call last):
    ValueError: '(' at index 0 (counted from 0) is never closed
    """
    opens = dict(zip("([{<", "([{<", strict=True))  # of letters, the case that occurs first
    open_at: dict[str, list[int]] = {kind: [] for kind in OPENING_BRACKETS}
    pairs = []
    for index, character in enumerate(text):
        if character in UNPAIRED:
            continue
        if character not in _KINDS:
            raise ValueError(f"unknown character {character!r} at index {index} (counted from 0)")
        kind = _KINDS[character]
        if opens.setdefault(kind, character) == character:
            open_at[kind].append(index)
        elif open_at[kind]:
            pairs.append((open_at[kind].pop(), index))
        else:
            raise ValueError(
                f"{character!r} at index {index} (counted from 0) closes a bracket that is not open"
            )
    for kind, indices in open_at.items():
        if indices:
            where = f"{opens[kind]!r} at index {indices[-1]} (counted from 0)"
            raise ValueError(f"{where} is never closed")
    return sorted(pairs)


def nested_pages(pairs: list[BasePair]) -> list[list[BasePair]]:
    """Split pairs into sets without crossings: the largest, the largest of the rest, and so on.

    Args:
        pairs: as :func:`sorted_pairs` returns them.

    >>> nested_pages([(0, 5), (2, 9), (3, 8)])
    [[(2, 9), (3, 8)], [(0, 5)]]
    """
    pages = []
    while pairs:
        page = _largest_nested(pairs) if _any_cross(pairs) else pairs
        pages.append(page)
        pairs = sorted(set(pairs) - set(page))
    return pages


def _any_cross(pairs: list[BasePair]) -> bool:
    """Whether any two of the sorted pairs cross."""
    closings: list[int] = []
    for i, j in pairs:
        while closings and closings[-1] < i:
            closings.pop()
        if closings and closings[-1] < j:
            return True
        closings.append(j)
    return False


def _largest_nested(pairs: list[BasePair]) -> list[BasePair]:
    """The largest subset without crossings: the maximum independent set of a circle graph.

    The recursion over intervals is Supowit's (IEEE Transactions on Computer-Aided Design 6:93-94,
    1987); here all intervals with the same end are one NumPy operation, so 500 pairs take
    milliseconds.
    """
    ends = {base: rank for rank, base in enumerate(sorted(base for pair in pairs for base in pair))}
    partner = np.empty(len(ends), dtype=np.int64)
    for i, j in pairs:
        partner[ends[i]], partner[ends[j]] = ends[j], ends[i]

    # size[stop, start]: pairs in the largest nested set that lies within start <= end < stop.
    size = np.zeros((len(ends) + 1, len(ends) + 1), dtype=np.int32)
    for stop in range(1, len(ends) + 1):
        size[stop] = size[stop - 1]
        opening = partner[stop - 1]
        if opening < stop - 1:
            around = slice(0, opening + 1)
            with_pair = size[opening, around] + 1 + size[stop - 1, opening + 1]
            size[stop, around] = np.maximum(size[stop, around], with_pair)
    return _trace_back(size, partner, sorted(ends))


def _trace_back(size: np.ndarray, partner: np.ndarray, bases: list[int]) -> list[BasePair]:
    """The pairs behind ``size[-1, 0]`` of :func:`_largest_nested`, as sorted pairs of bases."""
    chosen = []
    intervals = [(0, len(bases))]
    while intervals:
        start, stop = intervals.pop()
        while stop > start and size[stop, start] == size[stop - 1, start]:
            stop -= 1
        if stop > start:
            opening = int(partner[stop - 1])
            chosen.append((bases[opening], bases[stop - 1]))
            intervals += [(start, opening), (opening + 1, stop - 1)]
    return sorted(chosen)
