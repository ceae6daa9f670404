"""Dot-bracket files and tables, as this package and other programs write them."""

import doctest

import pytest

from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.formats import dbn
from ernie_rna.structures.formats.dbn import read_dbn, read_tsv
from ernie_rna.structures.formats.structure import Structure


def test_doctests():
    assert doctest.testmod(dbn).failed == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (">a\nGAAC\n(..) (-1.20)\n", [("a", [(0, 3)])]),
        (">a of a kind\nGAAC\n(..) [ -1.20 d=2.3]\n", [("a", [(0, 3)])]),
        (">ENERGY = -1.2  a b\nGAAC\n(..)\n", [("a", [(0, 3)])]),
        (">\nGAAC\naA..\n", [("file", [(0, 1)])]),
        ("GAAC\n(..)\n", [("file", [(0, 3)])]),
        ("#Name: x\n#Length: 4\n#PageNumber: 1\nGAAC\n(..)\n", [("x", [(0, 3)])]),
        (">a\nGA\nAC\n(.\n.)\n\n>b\nGC\n..\n", [("a", [(0, 3)]), ("b", [])]),
    ],
)
def test_dbn_as_others_write_it(tmp_path, text, expected):
    path = tmp_path / "file.dbn"
    path.write_text(text)
    structures = read_dbn(path)
    assert [(structure.id, structure.pairs) for structure in structures] == expected
    if " b" in text or "kind" in text:
        assert structures[0].description in ("b", "of a kind")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", "line 1: no sequence and structure"),
        ("\nGAAC\n", "line 2: expected one sequence and one structure .* for 'file'"),
        (">a\nGAAC\n>b\nGC\n..\n", "line 1: expected one sequence .* for 'a'"),
        (">a\n>b\nGC\n..\n", "line 1: expected one sequence .* for 'a'"),
        (">a\nGAAC\n(..)\n>b\nGC\n...\n", "line 4: expected one sequence .* for 'b'"),
        (">a\nGAAC\n(..)\n....\n....\n", "line 1: expected one sequence .* for 'a'"),
        (">a\nGAAAC\n(.. .)\n", "line 3: a blank behind position 3"),
        (">a\nGAA AC\n(...)\n", "line 2: a blank behind position 3"),
        (">a\nGAAC\n(..(\n", r"line 1: structure of 'a': '\(' at index 3"),
    ],
)
def test_dbn_errors_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "file.dbn"
    path.write_text(text)
    with pytest.raises(InputError, match=f"{path.name}: {message}"):
        read_dbn(path)


def test_a_table_with_other_columns(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("family\tid\tmfe\nx\ta\t(..)\n")
    assert read_tsv(path, "mfe") == [Structure("a", "NNNN", [(0, 3)])]
    path.write_text("id,dot_bracket,description\na b,(..),c\n")
    assert read_tsv(path) == [Structure("a", "NNNN", [(0, 3)], "c")]
    path.write_text("id,dot_bracket\na b,(..)\n")
    assert read_tsv(path) == [Structure("a", "NNNN", [(0, 3)], "b")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("id\tsequence\n", "line 1: no column dot_bracket; it has id, sequence"),
        (
            "id\tsequence\tdot_bracket\na\tGA\t..\nb\tGA\t...\n",
            "line 3: .* of 'b' differ",
        ),
        ("id\tsequence\tdot_bracket\na\tGA\n", "line 2: 2 cells, and the header has 3"),
        (
            "id\tsequence\tdot_bracket\na\tGA\t.)\n",
            r"line 2: structure of 'a': '\)' at index",
        ),
    ],
)
def test_table_errors_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "table.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=f"{path.name}: {message}"):
        read_tsv(path)
