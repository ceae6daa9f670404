"""Structure files: round trips, files of other programs, and errors that name file and line."""

import lzma
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.formats.by_extension import (
    read_ct,
    read_dbn,
    read_structures,
    read_tsv,
    write_structures,
)
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from ernie_rna.structures.formats.structure import Structure

DATA = Path(__file__).parents[4] / "shared" / "data" / "structure"
HAIRPIN = Structure("hairpin", "GGGAAAACCC", [(0, 9), (1, 8), (2, 7)])
KNOT = Structure("knot", "GgCTNAAGCC", [(0, 5), (1, 4), (2, 9), (3, 8)], 'of the "H" type')
ALONE = Structure("one", "A", [])


@settings(deadline=None)
@given(st.data())
def test_round_trip_of_any_structure(tmp_path_factory, data):
    sequence = data.draw(st.text("ACGUTNRYacgu", min_size=1, max_size=30))
    bases = data.draw(st.permutations(range(len(sequence))))
    count = data.draw(st.integers(0, len(sequence) // 2))
    pairs = [(bases[2 * n], bases[2 * n + 1]) for n in range(count)]
    id = data.draw(st.from_regex(r"[!-~]+", fullmatch=True))
    # Any text on one line, without blanks around it.
    description = data.draw(st.from_regex(r"([!-~]([ -~]*[!-~])?)?", fullmatch=True))
    structure = Structure(id, sequence, pairs, description)
    check_round_trips(tmp_path_factory.mktemp("any"), structure, ALONE)


def check_round_trips(folder, structure, other):
    for extension in (".ct", ".dbn", ".tsv", ".bpseq"):
        path = folder / f"any{extension}"
        structures = [structure] if extension == ".bpseq" else [structure, KNOT, structure, other]
        write_structures(path, structures)
        assert read_structures(path) == structures
        assert b"\r" not in path.read_bytes()


@pytest.mark.parametrize(
    ("id", "description"),
    [
        ("a", "1 76"),
        ("a", "9 76 23 55"),
        ("tRNA", "1 76 23 55"),
        ("structure", ""),
        ("dG=-3", "of a kind"),
        ("ENERGY", "= low"),
    ],
)
def test_round_trip_of_headers_that_look_like_those_of_other_programs(tmp_path, id, description):
    longer = Structure(id, "G" + HAIRPIN.sequence, [], description)
    check_round_trips(tmp_path, replace(HAIRPIN, id=id, description=description), longer)


def test_a_line_separator_of_unicode_divides_id_and_description(tmp_path):
    (tmp_path / "x.ct").write_bytes(b"1 a\xe2\x80\xa8b\n1 G 0 0 0 1")
    (tmp_path / "x.bpseq").write_bytes(b"#Name: a\xe2\x80\xa8b\n1 G 0")
    for name in ("x.ct", "x.bpseq"):
        assert read_structures(tmp_path / name) == [Structure("a", "G", [], "b")]


@pytest.mark.parametrize("name", ["x.ct", "x.bpseq", "x.dbn", "x.tsv", "x.csv"])
def test_compressed_files(tmp_path, name):
    plain = tmp_path / name.replace(".csv", ".tsv")
    write_structures(plain, [HAIRPIN])
    (tmp_path / f"{name}.xz").write_bytes(lzma.compress(plain.read_bytes()))
    assert read_structures(tmp_path / f"{name}.xz") == [HAIRPIN]


def test_the_files_of_a_folder_are_read_in_order_of_their_names(tmp_path):
    write_structures(tmp_path / "b.ct", [HAIRPIN])
    write_structures(tmp_path / "a.bpseq", [KNOT])
    write_structures(tmp_path / "c.csv", [ALONE])
    (tmp_path / "README.md").write_text("not a structure")
    (tmp_path / "d.ct").mkdir()
    assert read_structures(tmp_path) == [KNOT, HAIRPIN, ALONE]


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(ValueError, match=r"expected a structure file .* in this folder"):
        read_structures(tmp_path)
    message = r"x\.fasta: expected a structure file with the extension \.tsv, \.csv, \.ct"
    with pytest.raises(ValueError, match=message):
        read_structures(tmp_path / "x.fasta")
    with pytest.raises(FileNotFoundError):
        read_structures(tmp_path / "x.ct")
    with pytest.raises(ValueError, match=r"x\.fasta: unknown extension; expected one of \.dbn"):
        write_structures(tmp_path / "x.fasta", [HAIRPIN])
    with pytest.raises(ValueError, match=r"x\.bpseq: \.bpseq holds one structure, not 2"):
        write_structures(tmp_path / "x.bpseq", [HAIRPIN, KNOT])
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared structure data")
@pytest.mark.parametrize("column", ["zeroshot_dot_bracket", "finetune_dot_bracket"])
def test_published_structures_are_read_and_written_without_loss(column):
    for structure in read_tsv(DATA / "ernie_published_ct.tsv", column):
        assert from_dot_bracket(structure.dot_bracket) == structure.pairs


# ---------------------------------------------------------------------------------------------
# Rows of bases

CT_ROWS = "1 G 0 2 4 1\n2 A 1 3 0 2\n3 A 2 4 0 3\n4 C 3 0 1 4\n"
BPSEQ_ROWS = "1 G 4\n2 A\t0\n 3 A 0\n4 C 1\n# the end\n"
READ = {
    "file.ct": [
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
        (f"4 tiny\n{CT_ROWS}".rstrip(), "tiny"),
    ],
    "file.bpseq": [
        (BPSEQ_ROWS, "file"),
        (f"# a comment\n#Name: bpRNA_1\n{BPSEQ_ROWS}", "bpRNA_1"),
        (f"#Name: bpRNA_1 of a kind\n{BPSEQ_ROWS}", "bpRNA_1 of a kind"),
        (f"Filename: d.5.E.coli.bpseq\nOrganism: E. coli\n\n{BPSEQ_ROWS}", "d.5.E.coli"),
    ],
}


@pytest.mark.parametrize(
    ("name", "text", "header"), [(name, *row) for name, rows in READ.items() for row in rows]
)
def test_ct_and_bpseq_files_of_other_programs(tmp_path, name, text, header):
    (tmp_path / name).write_bytes(text.encode())
    id, _, description = header.partition(" ")
    assert read_structures(tmp_path / name) == [Structure(id, "GAAC", [(0, 3)], description)]


def test_suboptimal_structures_in_one_ct_file(tmp_path):
    path = tmp_path / "my  file 1.ct"
    second = "\n".join(f"{n} {base} {n - 1} {n + 1} 0 {n}" for n, base in enumerate("GAAC", 1))
    path.write_text(f"4 dG = -1 rna\n{CT_ROWS}4 dG = -0.5 rna\n{second}\n")
    assert [structure.pairs for structure in read_ct(path)] == [[(0, 3)], []]
    path.write_text(f"4 ENERGY = -1 1\n{CT_ROWS}4 ENERGY = -0.5 2\n{second}\n")
    assert [structure.id for structure in read_ct(path)] == ["1", "2"]
    path.write_text(f"4\n{CT_ROWS}")
    assert [structure.id for structure in read_ct(path)] == ["my_file_1"]


# ---------------------------------------------------------------------------------------------
# Dot-bracket text

ENSEMBLE = """>a
GAAC
(..) ( -1.20)
{,.} [ -1.30]
(..) { -1.20 d=0.68}
(..) { -1.20 MEA=3.2}
 free energy of ensemble = -1.30 kcal/mol
 frequency of mfe structure in ensemble 0.7; ensemble diversity 1.2
>b [of a kind]
GC
.. (0.00)
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (">a\nGAAC\n(..) (-1.20)\n", [("a", [(0, 3)])]),
        (">a of a kind\nGAAC\n(..) [ -1.20 d=2.3]\n", [("a of a kind", [(0, 3)])]),
        (">ENERGY = -1.2  a b\nGAAC\n(..)\n", [("a b", [(0, 3)])]),
        (">a\nGAAC -540 100\n(..) (g=6,th=0.14,e=-7.2)\n", [("a", [(0, 3)])]),
        (">a\nGAAC\n(..) ( -5.40 = -3.20 + -2.20) p=1e-3\n", [("a", [(0, 3)])]),
        (">\nGAAC\naA..\n", [("file", [(0, 1)])]),
        ("GAAC\n(..)\n", [("file", [(0, 3)])]),
        (">a\nGAAC\n>structure\n(..)\n", [("a", [(0, 3)])]),
        ("#Name: x\n#Length: 4\n#PageNumber: 1\nGAAC\n(..)\n", [("x", [(0, 3)])]),
        (">a\nGA\nAC\n(.\n.)\n\n>b\nGC\n..\n", [("a", [(0, 3)]), ("b", [])]),
        (">a\nGAAC\n(..)\n>b -1.0 kcal/mol\n....\n", [("a", [(0, 3)]), ("b -1.0 kcal/mol", [])]),
        (">a\nGAACGAAC\n(..)....\n>b\nGAAC\n(..)\n", [("a", [(0, 3)]), ("b", [(0, 3)])]),
        (">a\nGAACGAAC\n(..)....\n>b\n....\n(..)\n", [("a", [(0, 3)]), ("b", [(4, 7)])]),
        (ENSEMBLE, [("a", [(0, 3)]), ("b [of a kind]", [])]),
    ],
)
def test_dbn_files_of_other_programs(tmp_path, text, expected):
    path = tmp_path / "file.dbn"
    path.write_text(text)
    assert [(structure.header, structure.pairs) for structure in read_dbn(path)] == expected


@pytest.mark.parametrize(
    ("text", "columns", "description"),
    [
        ("family\tid\tmfe\nx\ta\t(..)\n", ("mfe",), ""),
        ("id,dot_bracket,description\na b,(..),c\n", (), "c"),
        ("id,dot_bracket\na b,(..)\n", (), "b"),
    ],
)
def test_tables_without_sequences(tmp_path, text, columns, description):
    path = tmp_path / "table.tsv"
    path.write_text(text)
    assert read_tsv(path, *columns) == [Structure("a", "NNNN", [(0, 3)], description)]


# ---------------------------------------------------------------------------------------------
# Errors

HEADER = "id\tsequence\tdot_bracket\n"
REFUSED = {
    "file.ct": [
        ("# nothing\n\n", "line 1: expected a header with the number of bases"),
        ("0 t\n", "line 1: expected a header .*, not '0 t'"),
        (f"4 t\n{CT_ROWS}0 u\n", "line 6: expected a header .*, not '0 u'"),
        (f"4 t\n{CT_ROWS}The end\n", "line 6: expected a header .*, not 'The end'"),
        (f"4 t\n{CT_ROWS}{CT_ROWS}", "line 6: expected a header .*, not base 1"),
        ("9" * 5000 + " a", "line 1: expected a header"),  # Python refuses to convert it.
        (CT_ROWS, "line 1: expected a header .*, not base 1"),
        (f"tiny\n{CT_ROWS}", "line 2: expected a header .*, not base 1"),
        (f"3 tiny\n{CT_ROWS.replace('0 2 4', '0 2 0')}", "line 5: expected a header .*not base 4"),
        (f"5 tiny\n{CT_ROWS}", "line 5: the header says 5 bases; the rows end here, after 4"),
        ("4 tiny\n", "line 1: the header says 4 bases; .* after 0"),
        (f"5 tiny\n{CT_ROWS}4 t\n{CT_ROWS}", "line 6: expected base 5 of the 5 .*, not '4 t'"),
        ("4 t\n" + CT_ROWS.replace("3 A 2 4 0", "3 A 2 4 -1"), "line 4: .* base 3 .* '3 A 2 4 -1"),
        ("4 t\n" + CT_ROWS.replace(" 4 1", " 4", 1), "line 2: expected base 1 .* '1 G 0 2 4'"),
        ("4 t\n" + CT_ROWS.replace("3 A", "7 A"), "line 4: base 7 where 3 was expected"),
        ("4 t\n" + CT_ROWS.replace("0 2 4", "0 2 9"), "line 2: base 1 of 4 cannot pair with 9"),
        ("4 t\n" + CT_ROWS.replace("0 2 4", "0 2 1"), "line 2: base 1 of 4 cannot pair with 1"),
        ("4 t\n" + CT_ROWS.replace("0 2 4", "0 2 0"), "line 5: base 4 pairs with 1, which .* 0"),
        ("4 t\n" + CT_ROWS.replace("2 A", "2 AA"), "line 3: a base is one letter, not 'AA'"),
    ],
    "file.bpseq": [
        ("", "line 1: no row"),
        ("# nothing\n\n# here\n", "line 3: no row"),
        ("1 G 4\n2 A zero\n", "line 2: expected 'number base partner', got '2 A zero'"),
        ("1 G 0\n3 A 0\n", "line 2: base 3 where 2 was expected"),
        ("1 G 3\n2 A 0\n3 C 2\n", "line 1: base 1 pairs with 3, which pairs with 2"),
        ("1 G " + "9" * 5000, "line 1: no row"),
    ],
    "file.dbn": [
        ("# nothing\n", "line 1: no sequence and structure"),
        ("\nGAAC\n", "line 2: expected a sequence and a structure .* for 'file'"),
        (">a\nGAAC\n>b\nGC\n..\n", "line 1: expected a sequence .* for 'a'"),
        (">a\n>b\nGC\n..\n", "line 1: expected a sequence .* for 'a'"),
        ("(..)\n", "line 1: expected a sequence .* for 'file'"),
        (">a\nGAAC\n(..)\n>b\nGC\n...\n", "line 4: expected a sequence .* for 'b'"),
        (">a\nGAAC\n(..)\n....\n....\n", "line 1: .* for 'a'; they have 4 and 12 letters"),
        (">a\nGAAAC\n(.. .)\n", "line 3: a blank after position 3"),
        (">a\nGAA AC\n(...)\n", "line 2: a blank after position 3"),
        (">a\nGAA AC 5\n(.. .) 5\n", "line 2: a blank after position 3, before 'AC 5'"),
        (">a\nGAAAC\n(.. .) 5\n", "line 3: a blank after position 3, before '.\\) 5'"),
        (">a\nGAAAC\n(...)\nGC [1] AU\n", "line 4: a blank after position 2, before"),
        (">a\nGAAC\n(..(\n", r"line 1: structure of 'a': '\(' at index 3"),
        (">a\nGAAC\n>b\n(..)\n>c\n....\n....\n", "line 1: expected a sequence .* for 'a'"),
    ],
    "file.tsv": [
        ("id\tsequence\n", "line 1: no column dot_bracket; it has id, sequence"),
        (f"{HEADER}a\tGA\t..\nb\tGA\t...\n", "line 3: .* for 'b'; they have 2 and 3 letters"),
        (f"{HEADER}a\tGA\t.)\n", r"line 2: structure of 'a': '\)' at index"),
        (f"{HEADER}\tGA\t..\n", "line 2: an id is empty"),
        (f"{HEADER}a\t\t\n", "line 2: .* for 'a'; they have 0 and 0 letters"),
    ],
}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [(name, *row) for name, rows in REFUSED.items() for row in rows],
    ids=lambda value: value[:30],
)
def test_errors_name_file_and_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"{name}: {message}"):
        read_structures(tmp_path / name)


# ---------------------------------------------------------------------------------------------
# A structure in memory


ONE_LINE = "an id must be one word and a description one line; got 'a"


@pytest.mark.parametrize(
    ("id", "description", "pairs", "message"),
    [
        ("a b", "", [], ONE_LINE),
        ("a\n>b", "", [], ONE_LINE),
        ("a", "b\n>c", [], ONE_LINE),
        ("a", "b\rc", [], ONE_LINE),
        ("a", "", [(0, 2)], "outside a sequence of 2 bases"),
    ],
)
def test_invalid_structures(id, description, pairs, message):
    with pytest.raises(ValueError, match=message):
        Structure(id, "GC", pairs, description)
