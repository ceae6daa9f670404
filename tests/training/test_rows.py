"""Rows from tables, FASTA and structure files, and their splits."""

import time

import pytest

from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.formats.by_extension import write_structures
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.training.options import FinetuneOptions
from ernie_rna.training.rows import read_file, read_splits

HAIRPIN = Structure("hairpin", "GGGAAACCC", [(0, 8), (1, 7), (2, 6)])


@pytest.fixture
def read(tmp_path):
    """A function that writes text to a file and reads its rows."""

    def read(content, name="x.tsv", column="sequence", **options):
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
        return read_file(tmp_path / name, column, **options)

    return read


def test_structures_are_read_from_tables_folders_and_structure_files(tmp_path):
    (tmp_path / "known.tsv").write_text("id\tsequence\tdot_bracket\nh\tGGGAAACCC\t(((...)))\n")
    (tmp_path / "ct").mkdir()
    write_structures(tmp_path / "ct" / "hairpin.ct", [HAIRPIN])
    write_structures(tmp_path / "known.dbn", [HAIRPIN])
    for name in ("known.tsv", "ct", "ct/hairpin.ct", "known.dbn"):
        rows = read_file(tmp_path / name, "sequence")
        assert rows.sequences == [HAIRPIN.sequence]
        assert rows.column("dot_bracket", "--label-column") == [HAIRPIN.dot_bracket]


def test_a_spreadsheet_with_decimal_commas(read):
    with pytest.warns(UserWarning, match="semicolons separate its columns"):
        rows = read("\ufeffSequence;MRL;Split\r\nGGCG;4,00;test\r\n", "excel.csv", "Sequence")
    assert rows.decimal_comma
    assert (rows.lines, rows.cells[0]["Split"]) == ((2,), "test")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("r1,GGGGAAAACCCC,4.2\nr2,A,4\n", "x.tsv", "'sequence'; .* first line must be a header"),
        (">a\nACGU\n", "x.fasta", "'label'; it has sequence: --label-column needs a table"),
        ("sequence\tx\nA\t1\n", "x.tsv", "'label'; it has sequence, x: --label-column names the"),
    ],
)
def test_a_missing_column(read, content, name, message):
    with pytest.raises(InputError, match=f"{name}: no column {message}"):
        read(content, name).column("label", "--label-column")


def test_sequences_alone_have_no_column_to_split_by_and_no_path_is_no_folder(read):
    with pytest.raises(InputError, match=r"no column 'id'; .*; --split random or similar needs no"):
        read(">a\nACGU\n", "x.fasta").column("id", "--split")
    with pytest.raises(InputError, match="the name of the file to read is empty"):
        read_file("", "sequence")


@pytest.mark.parametrize("name", ["folds: mean", "test: guess", "x: k-mers of y"])
def test_a_split_does_not_have_the_name_of_metrics(tmp_path, name):
    (tmp_path / f"{name}.tsv").write_text("sequence\nAC\n")
    options = FinetuneOptions(task="masked-lm", eval_file=tmp_path / f"{name}.tsv")
    with pytest.raises(InputError, match="the name of a split cannot have ': "):
        read_splits(tmp_path / f"{name}.tsv", options)


def test_splits(tmp_path):
    (tmp_path / "x.tsv").write_text("sequence\tpart\nAC\ttrain\nGU\ttest\nGG\ttrain\n")
    options = FinetuneOptions(task="masked-lm", split_column="part", eval_split="test")
    splits = read_splits(tmp_path / "x.tsv", options)
    contents = {name: (rows.sequences, rows.lines) for name, rows in splits.items()}
    assert contents == {"train": (["AC", "GG"], (2, 4)), "test": (["GU"], (3,))}
    (tmp_path / "train.tsv").write_text("sequence\nAC\n")
    options = FinetuneOptions(task="masked-lm", eval_file=tmp_path / "train.tsv")
    with pytest.raises(InputError, match=r"train.tsv: another split is called 'train': rename"):
        read_splits(tmp_path / "x.tsv", options)


def test_the_time_to_read_a_header_is_linear_in_its_columns(read):
    start = time.process_time()
    with pytest.raises(InputError, match="two columns are called '7'"):
        read("\t".join(map(str, [*range(100_000), 7])) + "\nA\n")
    assert time.process_time() - start < 5  # Measured: 0.1 s; comparing all pairs takes hours.


def test_degap_removes_gaps_and_a_table_without_rows_is_an_error(read):
    table = "sequence\tlabel\nAC-GU\tx\n"
    with pytest.raises(InputError, match=r"x.tsv: record 1 \(line 2\): '-' at position 3"):
        read(table)
    assert read(table, degap=True).cells == ({"sequence": "ACGU", "label": "x"},)
    with pytest.raises(InputError, match=r"x.tsv: no row after the header"):
        read("sequence\tlabel\n")
