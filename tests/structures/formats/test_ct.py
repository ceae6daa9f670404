"""Rows of bases, as this package and other programs write them, and errors with their line."""

import doctest

import pytest

from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.formats import ct
from ernie_rna.structures.formats.ct import read_bpseq, read_ct
from ernie_rna.structures.formats.structure import Structure


def test_doctests():
    assert doctest.testmod(ct).failed == 0


CT_ROWS = "1 G 0 2 4 1\n2 A 1 3 0 2\n3 A 2 4 0 3\n4 C 3 0 1 4\n"


@pytest.mark.parametrize(
    ("text", "header"),
    [
        (f"4\ttiny\n{CT_ROWS}", "tiny"),
        (f"    4  ENERGY = -12.3  tiny of rna\n{CT_ROWS}", "tiny of rna"),
        (f"4\t\ttiny\t\tSPOT-RNA output\n{CT_ROWS}", "tiny SPOT-RNA output"),
        (f"    4 ENERGY =    -4.1    1\n{CT_ROWS}", "file"),
        (f"4\t1\n{CT_ROWS}", "1"),
        (f"Length:  4 Energy:   -4.10 ..\n{CT_ROWS}", "file"),
        (f"4 dG = -12.3 kcal/mol tiny\n{CT_ROWS}", "tiny"),
        (f"4\tENERGY = -12.3\ttiny\n{CT_ROWS}", "tiny"),
        (f"4 dG = -0.4 [initially -0.1] tiny\n{CT_ROWS}", "tiny"),
        (f"4 Energy = 0\n{CT_ROWS}", "file"),
        (f"4\n{CT_ROWS}", "file"),
        (f"# made by hand\n\n4 tiny\n# rows\n{CT_ROWS}\n", "tiny"),
        (f"Filename: d.5.b.E.coli.nopct\nOrganism: Escherichia coli\n4 tiny\n{CT_ROWS}", "tiny"),
        ("4 tiny\n" + CT_ROWS.replace("\n", " 0 0\n"), "tiny"),
        ("4 tiny\n" + CT_ROWS.replace(" ", "\t   "), "tiny"),
        (("4 tiny\n" + CT_ROWS).replace("\n", "\r\n"), "tiny"),
        (f"4 tiny\n{CT_ROWS}".rstrip(), "tiny"),
    ],
)
def test_ct_as_other_programs_write_it(tmp_path, text, header):
    path = tmp_path / "file.ct"
    path.write_bytes(text.encode())
    id, _, description = header.partition(" ")
    assert read_ct(path) == [Structure(id, "GAAC", [(0, 3)], description)]


def test_suboptimal_structures_in_one_ct_file(tmp_path):
    path = tmp_path / "file.ct"
    second = "\n".join(f"{n} {base} {n - 1} {n + 1} 0 {n}" for n, base in enumerate("GAAC", 1))
    path.write_text(f"4 dG = -1 rna\n{CT_ROWS}4 dG = -0.5 rna\n{second}\n")
    assert [structure.pairs for structure in read_ct(path)] == [[(0, 3)], []]
    path.write_text(f"4 ENERGY = -1 1\n{CT_ROWS}4 ENERGY = -0.5 2\n{second}\n")
    assert [structure.id for structure in read_ct(path)] == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n\n", "line 1: no structure in this file"),
        (CT_ROWS, "line 1: expected a header with the number of bases"),
        (f"tiny\n{CT_ROWS}", "line 2: expected a header"),
        (
            f"5 tiny\n{CT_ROWS}",
            "line 5: the header says 5 bases; the rows end here, after 4",
        ),
        (f"3 tiny\n{CT_ROWS}", "line 5: the header says 3 bases; .* after 4"),
        ("4 tiny\n", "line 1: the header says 4 bases; .* after 0"),
        (
            "4 t\n" + CT_ROWS.replace("3 A 2 4 0", "3 A 2 4 x"),
            "line 3: the header says 4 bases",
        ),
        ("4 t\n" + CT_ROWS.replace("3 A", "7 A"), "line 4: base 7 where 3 was expected"),
        (
            "4 t\n" + CT_ROWS.replace("0 2 4", "0 2 9"),
            "line 2: base 1 of 4 cannot pair with 9",
        ),
        (
            "4 t\n" + CT_ROWS.replace("0 2 4", "0 2 1"),
            "line 2: base 1 of 4 cannot pair with 1",
        ),
        (
            "4 t\n" + CT_ROWS.replace("0 2 4", "0 2 0"),
            "line 5: base 4 pairs with 1, which .* 0",
        ),
        (
            "4 t\n" + CT_ROWS.replace("2 A", "2 AA"),
            "line 3: a base is one letter, not 'AA'",
        ),
    ],
)
def test_ct_errors_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "file.ct"
    path.write_text(text)
    with pytest.raises(InputError, match=f"{path.name}: {message}"):
        read_ct(path)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("", "file"),
        ("# a comment\n#Name: bpRNA_1\n", "bpRNA_1"),
        ("#Name: bpRNA_1 of a kind\n", "bpRNA_1"),
        ("Filename: d.5.b.E.coli.bpseq\nOrganism: Escherichia coli\n\n", "d.5.b.E.coli"),
    ],
)
def test_bpseq_as_others_write_it(tmp_path, header, name):
    path = tmp_path / "file.bpseq"
    path.write_text(f"{header}1 G 4\n2 A\t0\n 3 A 0\n4 C 1\n# the end\n")
    description = "of a kind" if "of a kind" in header else ""
    assert read_bpseq(path) == [Structure(name, "GAAC", [(0, 3)], description)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no row"),
        ("# nothing\n\n# here\n", "line 3: no row"),
        ("1 G 4\n2 A zero\n", "line 2: expected 'number base partner', got '2 A zero'"),
        ("1 G 0\n3 A 0\n", "line 2: base 3 where 2 was expected"),
        ("1 G 3\n2 A 0\n3 C 2\n", "line 1: base 1 pairs with 3, which pairs with 2"),
    ],
)
def test_bpseq_errors_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "file.bpseq"
    path.write_text(text)
    with pytest.raises(InputError, match=f"{path.name}: {message}"):
        read_bpseq(path)
