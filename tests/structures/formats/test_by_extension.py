"""Structure files: round trips, what other programs write, and errors with file and line."""

import doctest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_rna.structures.formats import by_extension, ct, dbn, lines, output
from ernie_rna.structures.formats import structure as structure_file
from ernie_rna.structures.formats.by_extension import read_structures, write_structures
from ernie_rna.structures.formats.ct import read_bpseq, read_ct
from ernie_rna.structures.formats.dbn import read_dbn, read_tsv
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from ernie_rna.structures.formats.output import MatrixWriter
from ernie_rna.structures.formats.structure import Structure, StructureFormatError

DATA = Path(__file__).parents[3] / "shared" / "data" / "structure"
HAIRPIN = Structure("hairpin", "GGGAAAACCC", [(0, 9), (1, 8), (2, 7)])
KNOT = Structure("H-type knot", "GgCTNAAGCC", [(0, 5), (1, 4), (2, 9), (3, 8)])
ALONE = Structure("one", "A", [])
SINGLE_FORMATS = [(".bpseq", read_bpseq)]
FORMATS = [(".ct", read_ct), (".dbn", read_dbn), (".tsv", read_tsv)]


@pytest.mark.parametrize("module", [by_extension, ct, dbn, lines, output, structure_file])
def test_doctests(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(("extension", "read"), FORMATS)
def test_round_trip_of_several(tmp_path, extension, read):
    path = tmp_path / f"structures{extension}"
    write_structures(path, [HAIRPIN, KNOT, ALONE])
    assert read(path) == [HAIRPIN, KNOT, ALONE]
    assert read_structures(path) == [HAIRPIN, KNOT, ALONE]


@pytest.mark.parametrize(("extension", "read"), SINGLE_FORMATS + FORMATS[:2])
@pytest.mark.parametrize("structure", [HAIRPIN, KNOT, ALONE], ids=lambda s: s.id)
def test_round_trip_of_one(tmp_path, extension, read, structure):
    path = tmp_path / f"structure{extension}"
    write_structures(path, [structure])
    assert read(path) == [structure]
    assert read_structures(path) == [structure]
    assert b"\r" not in path.read_bytes()


@settings(deadline=None)
@given(st.data())
def test_round_trip_of_any_structure(tmp_path_factory, data):
    sequence = data.draw(st.text("ACGUTNRYacgu", min_size=1, max_size=30))
    bases = data.draw(st.permutations(range(len(sequence))))
    count = data.draw(st.integers(0, len(sequence) // 2))
    pairs = [(bases[2 * n], bases[2 * n + 1]) for n in range(count)]
    # A name is any text on one line that the formats can hold: no leading or trailing space.
    name = data.draw(st.from_regex(r"[!-~]([ -~]*[!-~])?", fullmatch=True))
    structure = Structure(name, sequence, pairs)
    folder = tmp_path_factory.mktemp("any")
    for extension, read in [*FORMATS, *SINGLE_FORMATS]:
        write_structures(folder / f"any{extension}", [structure])
        assert read(folder / f"any{extension}") == [structure]


CT_ROWS = "1 G 0 2 4 1\n2 A 1 3 0 2\n3 A 2 4 0 3\n4 C 3 0 1 4\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"4\ttiny\n{CT_ROWS}", "tiny"),
        (f"    4  ENERGY = -12.3  tiny rna\n{CT_ROWS}", "tiny rna"),
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
def test_ct_as_other_programs_write_it(tmp_path, text, name):
    path = tmp_path / "file.ct"
    path.write_bytes(text.encode())
    assert read_ct(path) == [Structure(name, "GAAC", [(0, 3)])]


def test_suboptimal_structures_in_one_ct_file(tmp_path):
    path = tmp_path / "file.ct"
    second = "\n".join(f"{n} {base} {n - 1} {n + 1} 0 {n}" for n, base in enumerate("GAAC", 1))
    path.write_text(f"4 dG = -1 rna\n{CT_ROWS}4 dG = -0.5 rna\n{second}\n")
    assert [structure.pairs for structure in read_ct(path)] == [[(0, 3)], []]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n\n", "file.ct:1: no structure in this file"),
        (CT_ROWS, "file.ct:1: expected a header with the number of bases"),
        (f"tiny\n{CT_ROWS}", "file.ct:2: expected a header"),
        (f"5 tiny\n{CT_ROWS}", "file.ct:5: the header says 5 bases; the rows end here, after 4"),
        (f"3 tiny\n{CT_ROWS}", "file.ct:5: the header says 3 bases; .* after 4"),
        ("4 tiny\n", "file.ct:1: the header says 4 bases; .* after 0"),
        ("4 t\n" + CT_ROWS.replace("3 A 2 4 0", "3 A 2 4 x"), "file.ct:3: the header says 4 bases"),
        ("4 t\n" + CT_ROWS.replace("3 A", "7 A"), "file.ct:4: base 7 where 3 was expected"),
        ("4 t\n" + CT_ROWS.replace("0 2 4", "0 2 9"), "file.ct:2: base 1 of 4 cannot pair with 9"),
        ("4 t\n" + CT_ROWS.replace("0 2 4", "0 2 1"), "file.ct:2: base 1 of 4 cannot pair with 1"),
        ("4 t\n" + CT_ROWS.replace("0 2 4", "0 2 0"), "file.ct:5: base 4 pairs with 1, which .* 0"),
        ("4 t\n" + CT_ROWS.replace("2 A", "2 AA"), "file.ct:3: a base is one letter, not 'AA'"),
    ],
)
def test_ct_errors_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "file.ct"
    path.write_text(text)
    with pytest.raises(StructureFormatError, match=message):
        read_ct(path)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("", "file"),
        ("# a comment\n#Name: bpRNA_1\n", "bpRNA_1"),
        ("Filename: d.5.b.E.coli.bpseq\nOrganism: Escherichia coli\n\n", "d.5.b.E.coli"),
    ],
)
def test_bpseq_as_others_write_it(tmp_path, header, name):
    path = tmp_path / "file.bpseq"
    path.write_text(f"{header}1 G 4\n2 A\t0\n 3 A 0\n4 C 1\n# the end\n")
    assert read_bpseq(path) == [Structure(name, "GAAC", [(0, 3)])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file.bpseq:1: no row"),
        ("# nothing\n\n# here\n", "file.bpseq:3: no row"),
        ("1 G 4\n2 A zero\n", "file.bpseq:2: expected 'number base partner', got '2 A zero'"),
        ("1 G 0\n3 A 0\n", "file.bpseq:2: base 3 where 2 was expected"),
        ("1 G 3\n2 A 0\n3 C 2\n", "file.bpseq:1: base 1 pairs with 3, which pairs with 2"),
    ],
)
def test_bpseq_errors_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "file.bpseq"
    path.write_text(text)
    with pytest.raises(StructureFormatError, match=message):
        read_bpseq(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (">a\nGAAC\n(..) (-1.20)\n", [("a", [(0, 3)])]),
        (">ENERGY = -1.2  a b\nGAAC\n(..)\n", [("a b", [(0, 3)])]),
        ("GAAC\n(..)\n", [("file", [(0, 3)])]),
        ("#Name: x\n#Length: 4\n#PageNumber: 1\nGAAC\n(..)\n", [("x", [(0, 3)])]),
        (">a\nGA\nAC\n(.\n.)\n\n>b\nGC\n..\n", [("a", [(0, 3)]), ("b", [])]),
    ],
)
def test_dbn_as_others_write_it(tmp_path, text, expected):
    path = tmp_path / "file.dbn"
    path.write_text(text)
    assert [(structure.id, structure.pairs) for structure in read_dbn(path)] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", "file.dbn:1: no sequence and structure"),
        ("\nGAAC\n", "file.dbn:2: expected one sequence and one structure .* for 'file'"),
        (">a\nGAAC\n>b\nGC\n..\n", "file.dbn:1: expected one sequence .* for 'a'"),
        (">a\n>b\nGC\n..\n", "file.dbn:1: expected one sequence .* for 'a'"),
        (">a\nGAAC\n(..)\n>b\nGC\n...\n", "file.dbn:4: expected one sequence .* for 'b'"),
        (">a\nGAAC\n(..)\n....\n....\n", "file.dbn:1: expected one sequence .* for 'a'"),
        (">a\nGAAC\n(..(\n", r"file.dbn:1: structure of 'a': '\(' at index 3"),
    ],
)
def test_dbn_errors_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "file.dbn"
    path.write_text(text)
    with pytest.raises(StructureFormatError, match=message):
        read_dbn(path)


def test_a_table_with_other_columns(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("family\tid\tmfe\nx\ta\t(..)\n")
    assert read_tsv(path, "mfe") == [Structure("a", "NNNN", [(0, 3)])]
    assert read_structures(path, "mfe") == read_tsv(path, "mfe")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"table.tsv:1: no column id, dot_bracket among \[\]"),
        ("id\tsequence\n", r"table.tsv:1: no column dot_bracket among \['id', 'sequence'\]"),
        ("id\tsequence\tdot_bracket\na\tGA\t..\nb\tGA\t...\n", "table.tsv:3: .* of 'b' differ"),
        ("id\tsequence\tdot_bracket\na\tGA\n", "table.tsv:2: this line has fewer cells"),
        ("id\tsequence\tdot_bracket\na\tGA\t.)\n", r"table.tsv:2: structure of 'a': '\)' at index"),
    ],
)
def test_table_errors_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "table.tsv"
    path.write_text(text)
    with pytest.raises(StructureFormatError, match=message):
        read_tsv(path)


# What damaged files brought to light, see tests/fuzz.


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("x.bpseq", b"1 G " + b"9" * 5000, "x.bpseq:1: no row", id="bpseq, digits"),
        pytest.param("x.ct", b"9" * 5000 + b" a", "x.ct:1: expected a header", id="ct, digits"),
        pytest.param("x.ct", b"1 a\xc2\x85b\n1 G 0 0 0 1", "x.ct:2: an id is on", id="ct, id"),
        pytest.param("x.bpseq", b"#Name: a\xc2\x85b\n1 G 0", "x.bpseq:2: an id is", id="bpseq, id"),
        pytest.param("x.tsv", b"id\xff\n", "x.tsv:1: no column id", id="tsv, not UTF-8"),
        pytest.param(
            "x.tsv",
            b"id\tdot_bracket\na\t" + b"." * 200_000,
            "x.tsv:2: field larger",
            id="tsv, large cell",
        ),
    ],
)
def test_odd_files_are_refused_by_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StructureFormatError, match=message):
        read_structures(tmp_path / name)


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    write_structures(tmp_path / "b.ct", [HAIRPIN])
    write_structures(tmp_path / "a.bpseq", [KNOT])
    write_structures(tmp_path / "c.tsv", [ALONE])
    (tmp_path / "README.md").write_text("not a structure")
    assert read_structures(tmp_path) == [KNOT, HAIRPIN, ALONE]


def test_folders_and_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"no structure file in this folder"):
        read_structures(tmp_path)
    with pytest.raises(ValueError, match=r"x\.fasta: unknown extension; expected \.tsv"):
        read_structures(tmp_path / "x.fasta")
    with pytest.raises(FileNotFoundError):
        read_structures(tmp_path / "x.ct")


def test_files_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match=r"x\.fasta: unknown extension; expected one of \.dbn"):
        write_structures(tmp_path / "x.fasta", [HAIRPIN])
    with pytest.raises(ValueError, match=r"x\.bpseq: \.bpseq holds one structure, not 2"):
        write_structures(tmp_path / "x.bpseq", [HAIRPIN, KNOT])
    assert not list(tmp_path.iterdir())


def test_an_id_that_would_break_the_file(tmp_path):
    with pytest.raises(ValueError, match="an id is on one line"):
        Structure("a\n>b", "GC", [])
    with pytest.raises(ValueError, match="has a tab"):
        write_structures(tmp_path / "table.tsv", [Structure("a\tb", "GC", [])])


def test_a_structure_checks_its_pairs():
    with pytest.raises(ValueError, match="outside a sequence of 2 bases"):
        Structure("a", "GC", [(0, 2)])


def test_matrices_keep_their_names_and_bytes(tmp_path):
    matrices = {"a": np.eye(3, dtype=np.float32), "b/../c d": np.zeros((0, 0), dtype=np.float16)}
    for path in (tmp_path / "one.npz", tmp_path / "two.npz"):
        with MatrixWriter(path) as writer:
            for name, matrix in matrices.items():
                writer.write(name, matrix)
    with np.load(tmp_path / "one.npz") as archive:
        assert archive.files == list(matrices)
        for name, matrix in matrices.items():
            assert archive[name].dtype == matrix.dtype
            assert np.array_equal(archive[name], matrix)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_a_matrix_cannot_be_written_twice(tmp_path):
    with MatrixWriter(tmp_path / "twice.npz") as writer:
        writer.write("a", np.eye(2))
        with pytest.raises(ValueError, match="already has a matrix of 'a'"):
            writer.write("a", np.eye(2))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared structure data")
@pytest.mark.parametrize("name", ["ernie_published_ct.tsv"])
def test_published_zero_shot_structures_are_read_and_written_without_loss(name):
    for column in ("zeroshot_dot_bracket", "finetune_dot_bracket"):
        for structure in read_tsv(DATA / name, column):
            assert from_dot_bracket(structure.dot_bracket) == structure.pairs
