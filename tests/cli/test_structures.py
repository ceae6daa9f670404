"""The commands fold, closeness and evaluate, as they are typed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from ernie_rna.structures.formats.by_extension import (
    TSV_HEADER,
    format_tsv,
    read_structures,
    write_structures,
)
from ernie_rna.structures.formats.structure import Structure
from tests.conftest import ROOT

needs_mini = pytest.mark.skipif(
    not (ROOT / "ernie_rna" / "mini" / "model.safetensors").is_file(),
    reason="this checkout has no mini",
)
needs_vienna = pytest.mark.skipif(
    importlib.util.find_spec("RNA") is None, reason="needs ViennaRNA (extra vienna)"
)
FOLD = "fold in.fasta -m model"

# ---------------------------------------------------------------------------------------------
# fold and closeness


def test_fold_then_evaluate(folder, run):
    """The ids of a FASTA file are those of its structures."""
    output, errors = run(f"{FOLD} -o out.dbn")
    assert output == ""
    assert "structures without training, by the attention scores of layer 3, head 5" in errors
    assert "out.dbn: 2 sequences, 32 nt; " in errors
    assert [one.description for one in read_structures("out.dbn")] == ["an RNA, partial"] * 2
    for name in ("out.tsv", "out.ct"):
        run(f"{FOLD} -o {name} --quiet")
        assert read_structures(name) == read_structures("out.dbn")
        assert "means over 2 sequences" in run(f"evaluate {name} out.dbn").out
    output, errors = run("fold in.fasta -m random --quiet")
    assert output == Path("out.dbn").read_text()
    assert all(line.startswith("ernie-rna: warning: ") for line in errors.splitlines())
    alone = "ernie-rna: warning: no structure has any pair\n"
    assert run("fold AAAA -m model -o none.dbn --quiet").err == alone
    output, _ = run(f"{FOLD} --bases - --quiet")
    assert output.startswith("id\tposition\tbase\tpartner\treliability\none\t1\tG\t")


def test_fold_of_standard_input_to_several_outputs(folder, run, stdin):
    outputs = "-m model -o out.ct/ -o out.npz --pairs pairs.tsv --matrix scores"
    run(f"fold in.fasta {outputs}")
    whole = Path("pairs.tsv").read_text()
    stdin("in.fasta")
    run(f"fold - {outputs} --force")
    assert Path("pairs.tsv").read_text() == whole
    assert [one.id for one in read_structures("out.ct")] == ["one", "two"]
    with np.load("out.npz") as matrices:
        shapes = {name: matrices[name].shape for name in matrices}
    assert shapes == {"one": (16, 16), "two": (16, 16)}


@needs_mini
def test_mini_finds_few_pairs_as_the_authors_run_theirs(folder, run):
    warning = "this model was trained with pairing scores; without them"
    for option in ("--as-authors", "--pairing-scores=zero"):
        assert warning in run(f"fold in.fasta -m mini {option}").err
    assert warning not in run("fold in.fasta -m mini").err
    assert warning not in run("fold in.fasta -m random --as-authors").err


@needs_mini
def test_constraints_below_the_sequences(folder, run, stdin):
    Path("c.fasta").write_text(">one\nGGGGGaaaaCCCCCAT\n.((......))xxxxx\n>two\nGCGCGAUUUUCGCGCA\n")
    for more, sequence in (("", "GGGGGAAAACCCCCAU"), ("--keep-letters", "GGGGGaaaaCCCCCAT")):
        output, _ = run(f"fold c.fasta -m mini -C --quiet {more}")
        one, two = output.split(">")[1:]
        assert one.splitlines()[1:] == [sequence, ".((......))....."]
    plain, _ = run("fold in.fasta -m mini --quiet")
    assert two.splitlines()[2] == plain.splitlines()[5] != "." * 16
    stdin("c.fasta")
    assert run("fold - -m mini -C --quiet --keep-letters").out == output
    _, errors = run("fold c.fasta -m mini")
    assert "structures below 1 of the sequences are ignored, first below one" in errors


@needs_vienna
@needs_mini
def test_fold_with_a_prior(folder, run):
    _, errors = run("fold in.fasta -m mini --prior vienna -o o.dbn")
    assert "secondary-structure head, and ViennaRNA 2." in errors
    assert "a structure head, but these are" in run(f"{FOLD} --prior vienna", code=1).err


def test_closeness(folder, run):
    assert "maps.npz: 2 sequences, 32 nt" in run("closeness in.fasta -m close -o maps.npz").err
    assert np.load("maps.npz")["two"].shape == (16, 16)
    errors = run("closeness in.fasta -m model -o other.npz", code=1).err
    assert "model has no closeness head: it is ErnieRnaModel" in errors


# ---------------------------------------------------------------------------------------------
# evaluate


KNOWN = [Structure("a", "GGAAACC", [(0, 6), (1, 5)]), Structure("b", "GAAAC", [(0, 4)])]
PREDICTED = [Structure("a", "GGAAACC", [(0, 6), (1, 4)]), Structure("c", "GAAAC", [])]


@pytest.fixture
def structures(here):
    """The working directory, with known and predicted structures."""
    Path("known").mkdir()
    for structure in KNOWN:
        write_structures(Path(f"known/{structure.id}.ct"), [structure])
    write_structures(Path("predicted.dbn"), PREDICTED)
    write_structures(Path("all.dbn"), [*PREDICTED, Structure("b", "GAAAC", [(0, 4)])])


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
    said = "no pair on either side, which scores 1: 1 (predicted)"
    assert said in run("evaluate predicted.dbn empty.dbn").out


def test_missing_predictions(structures, run):
    """They are refused, or count as unpaired, or are left out."""
    errors = run("evaluate predicted.dbn known", code=1).err
    assert "b" in errors
    assert "--missing skip" in errors
    ways = {"unpaired": ("no prediction", "2 sequences", "0.2500")}
    ways["skip"] = ("no prediction and are left out: b", "1 sequence", "0.5000")
    for way, (warning, count, mean) in ways.items():
        output, errors = run(f"evaluate predicted.dbn known --missing {way}")
        assert f"warning: 1 of 2 sequences have {warning}" in errors
        assert f"means over {count}" in output
        assert output.splitlines()[-1].split()[1:4] == [mean] * 3


def test_evaluate_by_length_and_family(structures, run):
    lines = [TSV_HEADER, *map(format_tsv, KNOWN)]
    cells = zip(lines, ("family", "tRNA", "5S"), strict=True)
    Path("known.tsv").write_text("".join(f"{line[:-1]}\t{name}\n" for line, name in cells))
    output = run("evaluate all.dbn known.tsv --groups means.tsv").out
    rows = [line.split() for line in output.splitlines()]
    assert ["length", "1-50", "predicted", "2", *["0.7500"] * 3] in rows
    assert ["family", "tRNA", "predicted", "1", *["0.5000"] * 3] in rows
    header, first, *others = Path("means.tsv").read_text().splitlines()
    assert header == "by\tgroup\tevaluation\tsequences\tprecision\trecall\tf1"
    assert first == "length\t1-50\tpredicted\t2" + "\t0.750000" * 3
    assert len(others) == 2
    output = run("evaluate all.dbn known.tsv --by sequence").out
    ways = [line.split()[0] for line in output.splitlines()[1:4]]
    assert ways == ["length", "sequence", "sequence"]
    errors = run("evaluate all.dbn known.tsv --by clan", code=1).err
    assert "known.tsv is not a table with a column 'clan'" in errors


@needs_vienna
@needs_mini
@pytest.mark.parametrize(
    ("option", "name"), [("--with-prior mini", "prior"), ("--with-mfe", "mfe")]
)
def test_evaluate_beside_thermodynamics(structures, run, option, name):
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
