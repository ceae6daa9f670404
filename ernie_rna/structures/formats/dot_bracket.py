"""Reads dot-bracket text as base pairs, pseudoknots included; `to_dot_bracket` is the inverse.

In memory a structure is a sorted list of pairs ``(i, j)`` with ``i < j``, counted from 0. The
functions that write the text are part of the model's code, `model.structures_ernie_rna`. Text from
other programs, in which lower-case letters open and capitals close, is read too.
"""

from ernie_rna.model.structures_ernie_rna import (
    CLOSING_BRACKETS,
    OPENING_BRACKETS,
    BasePair,
    nested_pages,
    sorted_pairs,
    to_dot_bracket,
)

__all__ = ["BasePair", "from_dot_bracket", "nested_pages", "sorted_pairs", "to_dot_bracket"]

UNPAIRED = ".-_,:~"
# Maps each bracket to its kind, which is named by the opening one.
_KINDS = dict(zip(OPENING_BRACKETS + CLOSING_BRACKETS, 2 * OPENING_BRACKETS, strict=True))


def from_dot_bracket(text: str) -> list[BasePair]:
    """Read the pairs of a dot-bracket text; the inverse of :func:`to_dot_bracket`.

    Any of ``.-_,:~`` is an unpaired base: Rfam's WUSS notation has one for each kind of loop.

    Args:
        text: one character for each base, without white space.

    Returns:
        Sorted pairs ``(i, j)``, ``i < j``, counted from 0.

    Raises:
        ValueError: a character is unknown or a bracket has no counterpart; the message gives the
            index, counted from 0.

    >>> from_dot_bracket("[.((.]..))")
    [(0, 5), (2, 9), (3, 8)]
    >>> from_dot_bracket("((..)")
    Traceback (most recent call last):
    ValueError: '(' at index 0 (counted from 0) is never closed
    """
    opens = {kind: kind for kind in "([{<"}  # for letters, the case that occurs first
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
            bracket = f"{opens[kind]!r} at index {indices[-1]} (counted from 0)"
            raise ValueError(f"{bracket} is never closed")
    return sorted(pairs)
