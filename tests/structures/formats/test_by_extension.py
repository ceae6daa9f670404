"""Structure files: round trips, what other programs write, and errors with file and line."""

import doctest
import lzma
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_rna.sequences.fasta import InputError, read_fasta
from ernie_rna.structures.formats import by_extension
from ernie_rna.structures.formats import structure as structure_module
from ernie_rna.structures.formats.by_extension import (
    read_bpseq,
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
FORMATS = {".ct": read_ct, ".dbn": read_dbn, ".tsv": read_tsv}


@pytest.mark.parametrize("module", [by_extension, structure_module])
def test_doctests(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("extension", FORMATS)
def test_round_trip_of_several(tmp_path, extension):
    path = tmp_path / f"structures{extension}"
    write_structures(path, [HAIRPIN, KNOT, ALONE])
    assert FORMATS[extension](path) == [HAIRPIN, KNOT, ALONE]
    assert read_structures(path) == [HAIRPIN, KNOT, ALONE]
    assert b"\r" not in path.read_bytes()


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
    folder = tmp_path_factory.mktemp("any")
    for extension in (*FORMATS, ".bpseq"):
        write_structures(folder / f"any{extension}", [structure])
        assert read_structures(folder / f"any{extension}") == [structure]


# What damaged files brought to light, see tests/fuzz.


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("x.bpseq", b"1 G " + b"9" * 5000, "line 1: no row", id="bpseq, digits"),
        pytest.param("x.ct", b"9" * 5000 + b" a", "line 1: expected a header", id="ct, digits"),
        pytest.param("x.tsv", b"id\xff\n", "line 1: text that is not", id="tsv, not UTF-8"),
        pytest.param("x.dbn", b">a\n\xff\n", "line 2: text that is not", id="dbn, not UTF-8"),
        pytest.param(
            "x.tsv",
            b"id\tdot_bracket\na\t" + b"." * 200_000,
            r"line 2: .*field larger",
            id="tsv, large cell",
        ),
    ],
)
def test_odd_files_are_refused_by_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: {message}"):
        read_structures(tmp_path / name)


def test_a_line_feed_of_unicode_divides_id_and_description(tmp_path):
    (tmp_path / "x.ct").write_bytes(b"1 a\xc2\x85b\n1 G 0 0 0 1")
    (tmp_path / "x.bpseq").write_bytes(b"#Name: a\xc2\x85b\n1 G 0")
    for name in ("x.ct", "x.bpseq"):
        assert read_structures(tmp_path / name) == [Structure("a", "G", [], "b")]


@pytest.mark.parametrize("name", ["x.ct", "x.bpseq", "x.dbn", "x.tsv", "x.csv"])
def test_compressed_files(tmp_path, name):
    suffix = name.replace(".csv", ".tsv")
    write_structures(tmp_path / suffix, [HAIRPIN])
    (tmp_path / f"{name}.xz").write_bytes(lzma.compress((tmp_path / suffix).read_bytes()))
    assert read_structures(tmp_path / f"{name}.xz") == [HAIRPIN]


def test_ids_are_first_words_in_every_format(tmp_path):
    """What RNAfold, or `fold`, makes of a FASTA file has the ids of the file."""
    header = "rna7 Bacillus subtilis, partial"
    (tmp_path / "in.fasta").write_text(f">{header}\nGAAC\n")
    (tmp_path / "in.dbn").write_text(f">{header}\nGAAC\n(..) ( -4.10)\n")
    (record,) = read_fasta(tmp_path / "in.fasta")
    (structure,) = read_structures(tmp_path / "in.dbn")
    assert (structure.id, structure.description) == (record.id, record.description)
    assert structure.header == header
    for suffix in (".ct", ".bpseq", ".dbn", ".tsv"):
        write_structures(tmp_path / f"out{suffix}", [structure])
        assert read_structures(tmp_path / f"out{suffix}") == [structure]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    write_structures(tmp_path / "b.ct", [HAIRPIN])
    write_structures(tmp_path / "a.bpseq", [KNOT])
    write_structures(tmp_path / "c.tsv", [ALONE])
    (tmp_path / "README.md").write_text("not a structure")
    assert read_structures(tmp_path) == [KNOT, HAIRPIN, ALONE]


def test_folders_and_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"no structure file in this folder"):
        read_structures(tmp_path)
    message = r"x\.fasta: unknown extension of structures; expected one of \.tsv, \.csv, \.ct"
    with pytest.raises(ValueError, match=message):
        read_structures(tmp_path / "x.fasta")
    with pytest.raises(FileNotFoundError):
        read_structures(tmp_path / "x.ct")


def test_files_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match=r"x\.fasta: unknown extension; expected one of \.dbn"):
        write_structures(tmp_path / "x.fasta", [HAIRPIN])
    with pytest.raises(ValueError, match=r"x\.bpseq: \.bpseq holds one structure, not 2"):
        write_structures(tmp_path / "x.bpseq", [HAIRPIN, KNOT])
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared structure data")
@pytest.mark.parametrize("name", ["ernie_published_ct.tsv"])
def test_published_zero_shot_structures_are_read_and_written_without_loss(name):
    for column in ("zeroshot_dot_bracket", "finetune_dot_bracket"):
        for structure in read_tsv(DATA / name, column):
            assert from_dot_bracket(structure.dot_bracket) == structure.pairs


# ---------------------------------------------------------------------------------------------
# Rows of bases

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


def test_a_name_of_a_file_becomes_one_word(tmp_path):
    path = tmp_path / "my  rna 1.ct"
    path.write_text(f"4\n{CT_ROWS}")
    assert read_ct(path)[0].id == "my_rna_1"


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
        (f"5 tiny\n{CT_ROWS}", "line 5: the header says 5 bases; the rows end here, after 4"),
        (f"3 tiny\n{CT_ROWS}", "line 5: the header says 3 bases; .* after 4"),
        ("4 tiny\n", "line 1: the header says 4 bases; .* after 0"),
        ("4 t\n" + CT_ROWS.replace("3 A 2 4 0", "3 A 2 4 -1"), "line 3: the header .* '3 A 2 4 -1"),
        ("4 t\n" + CT_ROWS.replace(" 4 1", " 4", 1), "line 5: the header says 4 bases; .* after 3"),
        ("0 t\n", "line 1: the header says 0 bases; the rows end here, after 0"),
        ("4 t\n" + CT_ROWS.replace("3 A", "7 A"), "line 4: base 7 where 3 was expected"),
        ("4 t\n" + CT_ROWS.replace("0 2 4", "0 2 9"), "line 2: base 1 of 4 cannot pair with 9"),
        ("4 t\n" + CT_ROWS.replace("0 2 4", "0 2 1"), "line 2: base 1 of 4 cannot pair with 1"),
        ("4 t\n" + CT_ROWS.replace("0 2 4", "0 2 0"), "line 5: base 4 pairs with 1, which .* 0"),
        ("4 t\n" + CT_ROWS.replace("2 A", "2 AA"), "line 3: a base is one letter, not 'AA'"),
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


# ---------------------------------------------------------------------------------------------
# Dot-bracket text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (">a\nGAAC\n(..) (-1.20)\n", [("a", [(0, 3)])]),
        (">a of a kind\nGAAC\n(..) [ -1.20 d=2.3]\n", [("a", [(0, 3)])]),
        (">ENERGY = -1.2  a b\nGAAC\n(..)\n", [("a", [(0, 3)])]),
        (">\nGAAC\naA..\n", [("file", [(0, 1)])]),
        ("GAAC\n(..)\n", [("file", [(0, 3)])]),
        (">a\nGAAC\n>structure\n(..)\n", [("a", [(0, 3)])]),
        ("#Name: x\n#Length: 4\n#PageNumber: 1\nGAAC\n(..)\n", [("x", [(0, 3)])]),
        (">a\nGA\nAC\n(.\n.)\n\n>b\nGC\n..\n", [("a", [(0, 3)]), ("b", [])]),
        (">a\nGAAC\n(..)\n>b -1.0 kcal/mol\n....\n", [("a", [(0, 3)]), ("b", [])]),
        (">a\nGAACGAAC\n(..)....\n>b\nGAAC\n(..)\n", [("a", [(0, 3)]), ("b", [(0, 3)])]),
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
        (">a\nGAAC\nGAAC\n", "line 1: expected one sequence .* for 'a'"),
        ("(..)\n", "line 1: expected one sequence .* for 'file'"),
        (">a\nGAAC\n(..)\n>b\nGC\n...\n", "line 4: expected one sequence .* for 'b'"),
        (">a\nGAAC\n(..)\n....\n....\n", "line 1: .* for 'a'; its lines have 4, 4, 4, 4 letters"),
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
        ("id\tsequence\tdot_bracket\na\tGA\t..\nb\tGA\t...\n", "line 3: .* of 'b' differ"),
        ("id\tsequence\tdot_bracket\na\tGA\n", "line 2: 2 cells, and the header has 3"),
        ("id\tsequence\tdot_bracket\na\tGA\t.)\n", r"line 2: structure of 'a': '\)' at index"),
    ],
)
def test_table_errors_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "table.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=f"{path.name}: {message}"):
        read_tsv(path)


# ---------------------------------------------------------------------------------------------
# A structure in memory


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
