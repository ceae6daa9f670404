"""Structure files: round trips, what other programs write, and errors with file and line."""

import doctest
import lzma
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_rna.sequences.fasta import InputError, read_fasta
from ernie_rna.structures.formats import by_extension, lines
from ernie_rna.structures.formats.by_extension import read_structures, write_structures
from ernie_rna.structures.formats.ct import read_bpseq, read_ct
from ernie_rna.structures.formats.dbn import read_dbn, read_tsv
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from ernie_rna.structures.formats.structure import Structure

DATA = Path(__file__).parents[4] / "shared" / "data" / "structure"
HAIRPIN = Structure("hairpin", "GGGAAAACCC", [(0, 9), (1, 8), (2, 7)])
KNOT = Structure("knot", "GgCTNAAGCC", [(0, 5), (1, 4), (2, 9), (3, 8)], 'of the "H" type')
ALONE = Structure("one", "A", [])
SINGLE_FORMATS = [(".bpseq", read_bpseq)]
FORMATS = [(".ct", read_ct), (".dbn", read_dbn), (".tsv", read_tsv)]


@pytest.mark.parametrize("module", [by_extension, lines])
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
    id = data.draw(st.from_regex(r"[!-~]+", fullmatch=True))
    # Any text on one line, without blanks around it.
    description = data.draw(st.from_regex(r"([!-~]([ -~]*[!-~])?)?", fullmatch=True))
    structure = Structure(id, sequence, pairs, description)
    folder = tmp_path_factory.mktemp("any")
    for extension, read in [*FORMATS, *SINGLE_FORMATS]:
        write_structures(folder / f"any{extension}", [structure])
        assert read(folder / f"any{extension}") == [structure]


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


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared structure data")
@pytest.mark.parametrize("name", ["ernie_published_ct.tsv"])
def test_published_zero_shot_structures_are_read_and_written_without_loss(name):
    for column in ("zeroshot_dot_bracket", "finetune_dot_bracket"):
        for structure in read_tsv(DATA / name, column):
            assert from_dot_bracket(structure.dot_bracket) == structure.pairs
