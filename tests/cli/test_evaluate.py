"""The command `evaluate`: its tables, its files, and what it does about missing structures."""

import errno
import os
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from ernie_rna.structures.formats.by_extension import TSV_HEADER, format_tsv, write_structures
from ernie_rna.structures.formats.structure import Structure
from tests.structures.conftest import needs_vienna

KNOWN = [Structure("a", "GGAAACC", [(0, 6), (1, 5)]), Structure("b", "GAAAC", [(0, 4)])]
PREDICTED = [Structure("a", "GGAAACC", [(0, 6), (1, 4)]), Structure("c", "GAAAC", [])]


@pytest.fixture
def structures(here):
    """Files of known and predicted structures in the working directory."""
    Path("known").mkdir()
    for structure in KNOWN:
        write_structures(Path(f"known/{structure.id}.ct"), [structure])
    write_structures(Path("predicted.dbn"), PREDICTED)
    write_structures(Path("all.dbn"), [*PREDICTED, KNOWN[1]])


def test_evaluate_prints_means_and_writes_each_score(structures, run):
    output, errors = run("evaluate all.dbn known -o scores.tsv")
    assert "means over 2 sequences" in output
    assert output.splitlines()[-1].split() == ["predicted", *["0.7500"] * 3, *["1.0000"] * 3]
    assert "either side" not in output
    assert errors == ""
    header, a, b = Path("scores.tsv").read_text().splitlines()
    assert header.split("\t")[0] == "id"
    assert a == "a\t0.500000\t0.500000\t0.500000\t1.000000\t1.000000\t1.000000"
    assert b == "b" + "\t1.000000" * 6
    streamed = run("evaluate all.dbn known -o -")
    assert streamed == (Path("scores.tsv").read_text(), output)
    write_structures(Path("empty.dbn"), [Structure("c", "GAAAC", [])])
    note = "no pair on either side, which scores 1: 1 (predicted)"
    assert note in run("evaluate predicted.dbn empty.dbn").out


def test_missing_predictions_are_an_error_or_unpaired_or_left_out(structures, run):
    errors = run("evaluate predicted.dbn known", code=1).err
    assert "b" in errors
    assert "--missing skip" in errors
    for choice, warning, count, mean in (
        ("unpaired", "no prediction", "2 sequences", "0.2500"),
        ("skip", "no prediction and are left out: b", "1 sequence", "0.5000"),
    ):
        output, errors = run(f"evaluate predicted.dbn known --missing {choice}")
        assert f"warning: 1 of 2 sequences have {warning}" in errors
        assert f"means over {count}" in output
        assert output.splitlines()[-1].split()[1:4] == [mean] * 3


def test_evaluate_by_length_and_family(structures, run):
    lines = [TSV_HEADER, *map(format_tsv, KNOWN)]
    cells = ("family", "tRNA", "5S")
    table = "".join(f"{line[:-1]}\t{cell}\n" for line, cell in zip(lines, cells, strict=True))
    Path("known.tsv").write_text(table)
    output = run("evaluate all.dbn known.tsv --groups means.tsv").out
    rows = [line.split() for line in output.splitlines()]
    assert ["length", "1-50", "predicted", "2", *["0.7500"] * 3] in rows
    assert ["family", "tRNA", "predicted", "1", *["0.5000"] * 3] in rows
    header, first, *rest = Path("means.tsv").read_text().splitlines()
    assert header == "by\tgroup\tevaluation\tsequences\tprecision\trecall\tf1"
    assert first == "length\t1-50\tpredicted\t2" + "\t0.750000" * 3
    assert len(rest) == 2
    output = run("evaluate all.dbn known.tsv --by sequence").out
    groupings = [line.split()[0] for line in output.splitlines()[1:4]]
    assert groupings == ["length", "sequence", "sequence"]
    errors = run("evaluate all.dbn known.tsv --by clan", code=1).err
    assert "known.tsv is not a table with a column 'clan'" in errors


@needs_vienna
@pytest.mark.parametrize(
    ("option", "name"), [("--with-prior mini", "prior"), ("--with-mfe", "mfe")]
)
def test_evaluate_compares_with_a_prior_or_an_mfe_structure(structures, run, option, name):
    output, _ = run(f"evaluate all.dbn known {option} -o scores.tsv")
    assert output.splitlines()[-1].startswith(f"{name} ")
    assert f"{name}_f1" in Path("scores.tsv").read_text().splitlines()[0].split("\t")


def test_evaluate_with_reactivities(here, run):
    Path("known.dbn").write_text(">a\nGAAAC\n(...)\n>b\nGAAAC\n(...)\n")
    Path("found.dbn").write_text(">a\nGAAAC\n.....\n>b\nGAAAC\n(...)\n")
    rows = [f"{id}\t{place}\t{2 * place % 5}\n" for id in "ab" for place in range(1, 6)]
    Path("r.tsv").write_text("id\tposition\treactivity\n" + "".join(rows))
    output, _ = run("evaluate found.dbn known.dbn --reactivity r.tsv -o out.tsv")
    assert "predicted 0.8333 (1 of 2 sequences), known 0.8333 (2 of 2" in output
    header, first, second = Path("out.tsv").read_text().splitlines()
    assert header.endswith("f1_shifted\tpredicted_reactivity_auc\tknown_reactivity_auc")
    assert first.endswith("\tnan\t0.833333")
    assert second.endswith("\t0.833333\t0.833333")
    output, _ = run("evaluate found.dbn --reactivity r.tsv -o -")
    assert output == "id\tpredicted_reactivity_auc\na\tnan\nb\t0.833333\n"


def test_evaluate_names_an_output_that_cannot_be_written(structures, run, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left")))
        errors = run("evaluate all.dbn known -o scores.tsv", code=1).err
        assert "no room to write scores.tsv" in errors
    monkeypatch.setattr(sys, "stdout", None)
    assert "standard output: it is closed" in run("evaluate all.dbn known", code=1).err
