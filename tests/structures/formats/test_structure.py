"""A structure in memory, and what cannot be one."""

import doctest

import pytest

from ernie_rna.structures.formats import structure as module
from ernie_rna.structures.formats.structure import Structure


def test_doctests():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("id", "description"), [("a b", ""), ("a\n>b", ""), ("a", "b\n>c"), ("a", "b\rc")]
)
def test_an_id_that_would_break_a_file(id, description):
    with pytest.raises(ValueError, match="an id is one word and a description on one line; got 'a"):
        Structure(id, "GC", [], description)


def test_a_structure_checks_its_pairs():
    with pytest.raises(ValueError, match="outside a sequence of 2 bases"):
        Structure("a", "GC", [(0, 2)])


def test_partners_count_from_one():
    assert Structure("a", "GAAC", [(3, 0)]).partners == [4, 0, 0, 1]
