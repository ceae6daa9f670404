"""RNAs from files: what is read, and what is refused."""

import gzip
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ernie_rna.sequences.fasta import InputError
from recipes.pretraining import rnas as module
from tests.recipes.conftest import HEADER, PAIRS


def test_split_and_pairs(table):
    rnas = list(module.read_table(table, "train", leave_out={"rna1", "rna2"}))
    assert len(rnas) == 30
    assert rnas[0].id == "rna3"
    assert rnas[0].pairs[0] == (0, len(rnas[0].sequence) - 1)
    assert pickle.loads(pickle.dumps(rnas[0])) == rnas[0]
    # Rows come as they are read.
    with table.open("a") as file:
        file.write("odd row\n")
    assert next(module.read_table(table, "train")).id == "rna1"


def test_what_is_missing_is_named(table):
    with pytest.raises(InputError, match="split 'test': no sequences"):
        list(module.read_table(table, "test"))
    table.write_text("id\tsequence\nx\tACGU\n")
    with pytest.raises(InputError, match="no column dot_bracket, family, split"):
        list(module.read_table(table, "train"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x\tACGU\t(((.))\tf\ttrain", "x: 4 nucleotides and a structure of 6"),
        ("x\tACGU\t(((.\tf\ttrain", "x: .*never closed"),
        ("x\t\t\tf\ttrain", r"\(x\): it is empty"),
        ("x\tMKLV EFPQ\t\tf\ttrain", r"\(x\): it looks like a protein"),
        ("x\tACGE\t\tf\ttrain", "'E' at position 4 is no nucleotide code"),
        ("rna1\tACGU\t\tf\ttrain", "the id 'rna1' .* already"),
    ],
)
def test_rows_at_fault_are_named(table, row, message):
    with table.open("a") as file:
        file.write(row + "\n")
    with pytest.raises(InputError, match=message):
        list(module.read_table(table, "train"))


def test_tables_are_utf_8_whatever_the_locale(tmp_path, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    path = tmp_path / "rnas.tsv.gz"
    path.write_bytes(gzip.compress(f"{HEADER}\nx\tACGU\t\tµ\ttrain\n".encode()))
    assert [rna.family for rna in module.read_table(path, "train")] == ["µ"]


def test_parquet_is_tsv(table, tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    lines = [line.split("\t") for line in table.read_text().splitlines()]
    columns = dict(zip(lines[0], map(list, zip(*lines[1:], strict=True)), strict=True))
    columns["notes"] = [None] * (len(lines) - 1)
    path = tmp_path / "rnas.parquet"
    parquet.write_table(pa.table(columns), path)
    assert list(module.read_table(path, "train")) == list(module.read_table(table, "train"))
    assert next(module.table_rows(path, ["notes"])) == {"notes": ""}
    with pytest.raises(InputError, match="no column label; it has id, sequence"):
        list(module.table_rows(path, ["label"]))


def test_tables_by_their_names():
    names = ("a.tsv", "a.TSV.gz", "a.parquet", "a.fasta", "tsv.fa.gz", "a.tsv.fasta")
    assert [module.is_table(Path(name)) for name in names] == [True] * 3 + [False] * 3


def test_fasta_has_no_structures(fasta, rnas, table, tmp_path):
    (tmp_path / "ids.txt").write_text("rna1 b\nc\n")
    assert module.read_ids(None) == frozenset()
    left_out = module.read_ids(tmp_path / "ids.txt")
    assert left_out == {"rna1", "b", "c"}
    found = list(module.read_rnas(fasta, "train", left_out))
    assert [(one.id, one.sequence) for one in found] == [(o.id, o.sequence) for o in rnas[1:]]
    assert not any(rna.pairs for rna in found)
    assert list(module.read_rnas(table, "train", {"rna1"})) == rnas[1:]


def test_pairs_of_a_length(rnas):
    unpaired = module.Rna("u", "GGGAAAGGG")
    short = list(module.with_pairs([unpaired, *rnas], "these", 25))
    assert all(rna.pairs and len(rna.sequence) <= 25 for rna in short)
    with pytest.raises(InputError, match="these: no sequence has pairs and at most 3 nucleotides"):
        list(module.with_pairs(rnas, "these", 3))


def test_permuted_structure_and_composition_stay(rnas):
    generator = np.random.default_rng(0)
    changed = 0
    for rna in rnas:
        new = module.permute(rna, 1.0, generator)
        assert new.pairs == rna.pairs
        assert Counter(new.sequence) == Counter(rna.sequence)
        assert all(new.sequence[i] + new.sequence[j] in PAIRS for i, j in new.pairs)
        changed += new.sequence != rna.sequence
    assert changed > len(rnas) / 2
    assert module.permute(rnas[0], 0.0, generator) == rnas[0]
