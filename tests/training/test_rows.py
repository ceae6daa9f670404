"""Rows from tables, FASTA and files of structures, and their splits."""

import time

import pytest

from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.formats.by_extension import write_structures
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.training.options import FinetuneOptions
from ernie_rna.training.rows import read_file, read_splits

HAIRPIN = Structure("hairpin", "GGGAAACCC", [(0, 8), (1, 7), (2, 6)])


def test_structures_from_tables_and_folders(tmp_path):
    (tmp_path / "known.tsv").write_text("id\tsequence\tdot_bracket\nh\tGGGAAACCC\t(((...)))\n")
    (tmp_path / "ct").mkdir()
    write_structures(tmp_path / "ct" / "hairpin.ct", [HAIRPIN])
    write_structures(tmp_path / "known.dbn", [HAIRPIN])
    for name in ("known.tsv", "ct", "ct/hairpin.ct", "known.dbn"):
        rows = read_file(tmp_path / name, "sequence")
        assert rows.sequences == [HAIRPIN.sequence]
        assert rows.column("dot_bracket", "--label-column") == [HAIRPIN.dot_bracket]


@pytest.mark.parametrize(("end", "comma"), [("\r\n", True), ("\n", False)])
def test_spreadsheets_of_any_country(tmp_path, end, comma):
    lines = ["Sequence;MRL;Split", "GGCG;4,00;test" if comma else "GGCG;4.00;test"]
    (tmp_path / "excel.csv").write_bytes(("\ufeff" + end.join(lines) + end).encode())
    with pytest.warns(UserWarning, match="semicolons separate its columns"):
        rows = read_file(tmp_path / "excel.csv", "Sequence")
    assert rows.decimal_comma == comma
    assert (rows.lines, rows.cells[0]["Split"]) == ((2,), "test")


def test_a_table_without_a_header(tmp_path):
    (tmp_path / "x.csv").write_text("r1,GGGGAAAACCCC,4.2\nr2,GGGGAAAACCCA,4.3\n")
    with pytest.raises(InputError, match=r"no column 'sequence'; .* first line must be a header"):
        read_file(tmp_path / "x.csv", "sequence")


def test_fasta_has_no_labels(tmp_path):
    (tmp_path / "x.fasta").write_text(">a\nACGU\n")
    rows = read_file(tmp_path / "x.fasta", "sequence")
    assert rows.sequences == ["ACGU"]
    with pytest.raises(InputError, match="FASTA has no labels: give a table"):
        rows.column("label", "--label-column")


def test_splits(tmp_path):
    (tmp_path / "x.tsv").write_text("sequence\tpart\nAC\ttrain\nGU\ttest\nGG\ttrain\n")
    options = FinetuneOptions(task="masked-lm", split_column="part", eval_split="test")
    splits = read_splits(tmp_path / "x.tsv", options)
    assert {name: rows.sequences for name, rows in splits.items()} == {
        "train": ["AC", "GG"],
        "test": ["GU"],
    }
    assert splits["train"].lines == (2, 4)


def test_two_splits_of_one_name(tmp_path):
    (tmp_path / "train.tsv").write_text("sequence\nAC\n")
    options = FinetuneOptions(task="masked-lm", eval_file=tmp_path / "train.tsv")
    with pytest.raises(InputError, match="another split is called 'train': rename the file"):
        read_splits(tmp_path / "train.tsv", options)


def test_a_header_of_many_columns_is_read_in_no_time(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("\t".join(map(str, [*range(100_000), 7])) + "\nA\n")
    start = time.process_time()
    with pytest.raises(InputError, match="two columns are called '7'"):
        read_file(path, "sequence")
    assert time.process_time() - start < 5  # 0.1 s; hours where each was compared with all


def test_gaps_are_taken_out_on_request(tmp_path):
    (tmp_path / "in.tsv").write_text("sequence\tlabel\nAC-GU\tx\n")
    with pytest.raises(InputError, match=r"in.tsv: record 1 \(line 2\): '-' at position 3"):
        read_file(tmp_path / "in.tsv", "sequence")
    rows = read_file(tmp_path / "in.tsv", "sequence", degap=True)
    assert rows.cells == ({"sequence": "ACGU", "label": "x"},)
