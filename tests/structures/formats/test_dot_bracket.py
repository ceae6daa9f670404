"""Dot-bracket text: pages of brackets, the parser, and errors."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ernie_rna.structures.formats.dot_bracket import (
    from_dot_bracket,
    nested_pages,
    sorted_pairs,
    to_dot_bracket,
)


@st.composite
def structures(draw, max_pairs=7):
    """Any pairs in which a base has at most one partner, and the length of the sequence."""
    length = draw(st.integers(0, 2 * max_pairs + 4))
    bases = draw(st.permutations(range(length)))
    count = draw(st.integers(0, min(max_pairs, length // 2)))
    pairs = [tuple(sorted(bases[2 * n : 2 * n + 2])) for n in range(count)]
    return sorted(pairs), length


def crosses(a, b):
    return a[0] < b[0] < a[1] < b[1] or b[0] < a[0] < b[1] < a[1]


@settings(deadline=None)
@given(structures())
@example(([], 0))
@example(([], 4))
def test_round_trip_and_a_first_page_that_is_a_largest_nested_set(structure):
    pairs, length = structure
    text, pages = to_dot_bracket(pairs, length), nested_pages(pairs)
    assert len(text) == length
    assert from_dot_bracket(text) == pairs
    assert sorted(pair for page in pages for pair in page) == pairs
    assert not any(crosses(a, b) for page in pages for a, b in combinations(page, 2))
    largest = next(
        (
            size
            for size in range(len(pairs), 0, -1)
            for chosen in combinations(pairs, size)
            if not any(crosses(a, b) for a, b in combinations(chosen, 2))
        ),
        0,
    )
    assert len(pages[0]) == largest if pairs else pages == []


def test_round_trip_of_thirty_pages_and_an_error_for_more():
    pairs = [(n, n + 31) for n in range(31)]
    assert from_dot_bracket(to_dot_bracket(pairs[:30], 61)) == pairs[:30]
    with pytest.raises(ValueError, match=r"31 kinds of bracket .* write \.ct or \.bpseq"):
        to_dot_bracket(pairs, 62)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("(aa[A)]A", [(0, 5), (1, 7), (2, 4), (3, 6)]),
        ("(AA[a)]a", [(0, 5), (1, 7), (2, 4), (3, 6)]),
        ("::((<__>,,[[-]]))~", [(2, 16), (3, 15), (4, 7), (10, 14), (11, 13)]),
    ],
)
def test_letters_open_in_either_case_and_wuss_notation_is_read(text, pairs):
    assert from_dot_bracket(text) == pairs


def test_the_first_stem_has_round_brackets_and_letters_follow_the_four_kinds():
    assert to_dot_bracket([(0, 5), (1, 4), (2, 9), (3, 8)], 10) == "(([[))..]]"
    assert to_dot_bracket([(n, n + 6) for n in range(6)], 12) == "([{<AB)]}>ab"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("((..)", r"'\(' at index 0 .* is never closed"),
        ("..)", r"'\)' at index 2 .* closes a bracket that is not open"),
        ("(]", r"'\]' at index 1 .* not open"),
        ("(.A)", r"'A' at index 2 .* is never closed"),
        ("(.a)", r"'a' at index 2 .* is never closed"),
        ("aAA", r"'A' at index 2 .* not open"),
        ("(. )", r"unknown character ' ' at index 2"),
        ("(*)", r"unknown character '\*' at index 1"),
    ],
)
def test_errors_name_the_index(text, message):
    with pytest.raises(ValueError, match=message):
        from_dot_bracket(text)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(0, 4)], r"\(0, 4\) is outside a sequence of 4 bases"),
        ([(-1, 2)], "outside"),
        ([(2, 2)], "base 2 is paired with itself"),
        ([(0, 2), (2, 3)], "base 2 has two partners, 3 and 0"),
    ],
)
def test_pairs_that_no_structure_can_have(pairs, message):
    with pytest.raises(ValueError, match=message):
        sorted_pairs(pairs, 4)


def test_pairs_may_be_an_array_in_any_order_with_repeats():
    pairs = sorted_pairs(np.array([[3, 0], [0, 3], [1, 2]]), 4)
    assert pairs == [(0, 3), (1, 2)]
    assert all(type(base) is int for pair in pairs for base in pair)
