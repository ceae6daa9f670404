"""The commands fold, closeness and evaluate, as they are typed."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ernie_rna.cli import main as cli
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForCloseness, ErnieRnaModel
from ernie_rna.structures.formats.by_extension import (
    TSV_HEADER,
    format_tsv,
    read_structures,
    write_structures,
)
from ernie_rna.structures.formats.structure import Structure
from tests.conftest import ROOT, lively

needs_mini = pytest.mark.skipif(
    not (ROOT / "ernie_rna" / "mini" / "model.safetensors").is_file(),
    reason="this checkout has no mini",
)
needs_vienna = pytest.mark.skipif(
    importlib.util.find_spec("RNA") is None, reason="needs ViennaRNA (extra vienna)"
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def folder(here, config):
    """The working directory, with a model, one with a head for closeness, and a FASTA file."""
    torch.set_num_threads(1)
    config.weights_origin = "random"
    lively(ErnieRnaModel(config, add_pooling_layer=False)).save_pretrained("model")
    config.pair_blocks = 1
    ErnieRnaForCloseness(config).save_pretrained("close")
    hairpins = {"one": "GGGGGAAAACCCCCAU", "two": "GCGCGAUUUUCGCGCA"}
    records = [f">{id} an RNA, partial\n{text}\n" for id, text in hairpins.items()]
    Path("in.fasta").write_text("".join(records))
    return here


def run(capsys, *arguments, code=0):
    """The standard output and standard error of a command."""
    assert cli.main([*arguments]) == code
    return capsys.readouterr()


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "ernie_rna", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


# ---------------------------------------------------------------------------------------------
# fold and closeness


def test_fold_then_evaluate(folder, capsys):
    """The ids of a FASTA file are those of its structures."""
    output, errors = run(capsys, "fold", "in.fasta", "-m", "model", "-o", "out.dbn")
    assert output == ""
    assert "structures without training, by the attention scores of layer 3, head 5" in errors
    assert "out.dbn: 2 sequences, 32 nt; " in errors
    assert [one.description for one in read_structures("out.dbn")] == ["an RNA, partial"] * 2
    for name in ("out.tsv", "out.ct"):
        run(capsys, "fold", "in.fasta", "-m", "model", "-o", name, "--quiet")
        assert read_structures(name) == read_structures("out.dbn")
        assert "means over 2 sequences" in run(capsys, "evaluate", name, "out.dbn")[0]


def test_fold_streams_without_an_output(folder, capsys):
    run(capsys, "fold", "in.fasta", "-m", "model", "-o", "out.dbn", "--quiet")
    output, errors = run(capsys, "fold", "in.fasta", "-m", "model", "--quiet")
    assert output == Path("out.dbn").read_text()
    assert all(line.startswith("ernie-rna: warning: ") for line in errors.splitlines())
    output, _ = run(capsys, "fold", "in.fasta", "-m", "model", "--bases", "-", "--quiet")
    assert output.startswith("id\tposition\tbase\tpartner\treliability\none\t1\tG\t")


def test_fold_of_standard_input_to_several_outputs(folder, monkeypatch, capsys):
    outputs = ["-o", "out.ct/", "-o", "out.npz", "--pairs", "pairs.tsv", "--matrix", "scores"]
    run(capsys, "fold", "in.fasta", "-m", "model", *outputs)
    whole = Path("pairs.tsv").read_text()
    with open("in.fasta") as file:
        monkeypatch.setattr(sys, "stdin", file)
        run(capsys, "fold", "-", "-m", "model", *outputs, "--force")
    assert Path("pairs.tsv").read_text() == whole
    assert [one.id for one in read_structures("out.ct")] == ["one", "two"]
    with np.load("out.npz") as matrices:
        assert {name: matrices[name].shape for name in matrices} == {
            "one": (16, 16),
            "two": (16, 16),
        }


def test_what_cannot_be_written_is_named_at_the_end(folder, capsys):
    Path("in.fasta").write_text(f">one\nACGU\n>{'x' * 300}\nACGU\n")
    _, errors = run(capsys, "fold", "in.fasta", "-m", "model", "-o", "out.ct/", code=1)
    assert f"ernie-rna: {'x' * 300} is not in out.ct/: the id is too long" in errors
    assert os.listdir("out.ct") == ["one.ct"]


def test_random_weights_and_no_pairs_are_told_in_a_line_each(folder, capsys):
    Path("in.fasta").write_text(">one\nAAAA\n")
    _, errors = run(capsys, "fold", "in.fasta", "-m", "model", "-o", "out.dbn", "--quiet")
    assert errors.splitlines() == [
        "ernie-rna: warning: model has random weights, which were never trained: what follows "
        "means nothing",
        "ernie-rna: warning: no structure has any pair",
    ]


@needs_mini
def test_mini_finds_few_pairs_as_the_authors_run_theirs(folder, capsys):
    warning = "this model was trained with pairing scores; without them"
    for option in ("--as-authors", "--pairing-scores=zero"):
        _, errors = run(capsys, "fold", "in.fasta", "-m", "mini", option)
        assert warning in errors
    assert warning not in run(capsys, "fold", "in.fasta", "-m", "mini")[1]
    assert warning not in run(capsys, "fold", "in.fasta", "-m", "model", "--as-authors")[1]


@needs_mini
def test_constraints_below_the_sequences(folder, monkeypatch, capsys):
    Path("c.fasta").write_text(">one\nGGGGGAAAACCCCCAU\n.((......))xxxxx\n>two\nGCGCGAUUUUCGCGCA\n")
    output, _ = run(capsys, "fold", "c.fasta", "-m", "mini", "-C", "--quiet")
    one, two = output.split(">")[1:]
    assert one.splitlines()[2] == ".((......))....."
    plain, _ = run(capsys, "fold", "in.fasta", "-m", "mini", "--quiet")
    assert two.splitlines()[2] == plain.splitlines()[5] != "." * 16
    with open("c.fasta") as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert run(capsys, "fold", "-", "-m", "mini", "-C", "--quiet")[0] == output
    _, errors = run(capsys, "fold", "c.fasta", "-m", "mini")
    assert "structures below 1 of the sequences are ignored, first below one" in errors


@needs_vienna
@needs_mini
def test_fold_with_a_prior(folder, capsys):
    _, errors = run(capsys, "fold", "in.fasta", "-m", "mini", "--prior", "vienna", "-o", "o.dbn")
    assert "secondary-structure head, and ViennaRNA 2." in errors
    arguments = ["fold", "in.fasta", "-m", "model", "--prior", "vienna"]
    assert "a structure head, but these are" in run(capsys, *arguments, code=1)[1]
    with pytest.raises(SystemExit, match="2"):
        cli.main(["fold", "in.fasta", "-m", "mini", "--pseudoknots", "never"])
    assert "must be yes or no; got 'never'" in capsys.readouterr().err


def test_closeness(folder, capsys):
    _, errors = run(capsys, "closeness", "in.fasta", "-m", "close", "-o", "maps.npz")
    assert "maps.npz: 2 sequences, 32 nt" in errors
    with np.load("maps.npz") as maps:
        assert maps["two"].shape == (16, 16)
    _, errors = run(capsys, "closeness", "in.fasta", "-m", "model", "-o", "other.npz", code=1)
    assert "model has no closeness head: it is ErnieRnaModel" in errors


@pytest.mark.parametrize("command", ["fold", "closeness"])
def test_a_killed_run_is_resumed_by_the_same_command(folder, capsys, command):
    Path("in.fasta").write_text("".join(f">{i}\n{'GCAU' * 6}\n" for i in range(200)))
    model = {"fold": "model", "closeness": "close"}[command]
    arguments = [command, "in.fasta", "-m", model, "--batch-tokens", "64", "-o"]
    process = start(*arguments, "out.npz")
    deadline = time.monotonic() + 120
    while len(list(Path().glob("out.npz.partial/part-*"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path("out.npz").exists()
    _, errors = run(capsys, *arguments, "out.npz")
    assert "of which a part was there already" in errors
    run(capsys, *arguments, "whole.npz")
    assert Path("out.npz").read_bytes() == Path("whole.npz").read_bytes()
    assert not list(Path().glob("*.partial"))


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from ernie_rna.cli.main import main
for line in open("commands.txt"):
    try:
        code = main(line.split())
    except SystemExit as leaving:
        code = leaving.code
    print("exit code", code, file=sys.stderr)
"""


def test_what_is_plain_is_refused_without_torch(here):
    Path("model").mkdir()
    Path("model/config.json").write_text("{}")
    Path("in.fasta").write_text(">a\nACGU\n")
    Path("in.dbn").write_text(">a\nACGU\n(..)\n")
    Path("words.rdat").write_text("NAME words\n")
    Path("words.shape").write_text("1 high\n")
    for id in "ab":
        Path(f"{id}.shape").write_text("1 0.5\n2 -999\n")
    Path("there.tsv").write_text("")
    Path("there.npz").write_text("")
    fold, closeness = "fold in.fasta -m model", "closeness in.fasta -m model"
    commands = {
        "fold in.fasta -m ./NOSUCH": "no folder ./NOSUCH",
        f"{fold} -o out.xyz": "extension",
        f"{fold} -o there.tsv": "--force",
        f"{fold} -o out.dbn --pairs there.tsv": "there.tsv exists already; --force",
        f"{fold} -o out.dbn --pairs model --force": "model: the extension must be .tsv",
        f"{fold} -o out.dbn --bases out.xlsx": "out.xlsx: the extension must be .tsv",
        f"{fold} -o out.dbn -o out.dbn": "out.dbn is named for two outputs",
        f"{fold} -o out.dbn --matrix scores": "--matrix: scores is for an .npz output",
        "fold no.fasta -m model": "no.fasta: no such file",
        f"{fold} --as-authors --min-loop 3": "--as-authors: sets min_loop to 0; got min_loop 3",
        f"{fold} --min-stem 0": "--min-stem: must be a whole number of at least 1; got 0",
        f"{fold} --reactivity no.tsv": "no.tsv: no such file",
        f"{fold} --prior no.bpp": "no.bpp: no such file",
        f"{fold} --prior in.dbn": "in.dbn: --prior must be vienna, or a file",
        f"{fold} --pseudoknots maybe": "must be yes or no; got 'maybe'",
        "fold in.dbn -m model -C --min-loop 3": "the constraint of a: bases 1 and 4 have 2 bases",
        f"{fold} -C --degap": "--degap: does not go with -C: take the gaps",
        "fold GGGGAAAACCCC -m model -C": "there is no such file; -C reads constraints from one",
        f"{fold} --reactivity words.shape": "words.shape: line 1: 'high' is not a number",
        f"{fold} --reactivity words.rdat": "words.rdat: line 1: no line SEQUENCE",
        f"{fold} --reactivity b.shape": "no reactivities of 1 sequences: a",
        "evaluate in.dbn": "name REF",
        "evaluate in.dbn --reactivity a.shape": "a has 4 nt and 2 reactivities",
        "evaluate in.dbn --reactivity b.shape": "no reactivities of 1 sequences: a",
        "evaluate in.dbn --reactivity b.shape --with-mfe": "--with-mfe scores against known",
        "evaluate in.dbn in.dbn -o out.csv": "out.csv: the extension must be .tsv",
        "evaluate no.dbn model": "no.dbn: no such file",
        f"{closeness} -o out.npy": "out.npy: the extension must be .npz",
        f"{closeness} -o there.npz": "there.npz exists already; --force",
        f"{closeness} -o no/out.npz": "there is no folder no",
    }
    Path("commands.txt").write_text("\n".join(commands))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *said, last = done.stderr.split("exit code ")
    assert len(said) == len(commands)
    codes = [*(text[0] for text in said[1:]), last[0]]
    for text, code, (command, message) in zip(said, codes, commands.items(), strict=True):
        assert message in " ".join(text.split()), command
        assert code == ("2" if "usage:" in text else "1"), command
    assert not list(Path().glob("out*"))


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


def test_evaluate_prints_means_and_writes_each_score(structures, capsys):
    output, errors = run(capsys, "evaluate", "all.dbn", "known", "-o", "scores.tsv")
    assert "means over 2 sequences" in output
    assert output.splitlines()[-1].split() == ["predicted", *["0.7500"] * 3, *["1.0000"] * 3]
    assert errors == ""
    header, a, b = Path("scores.tsv").read_text().splitlines()
    assert header.split("\t")[0] == "id"
    assert a == "a\t0.500000\t0.500000\t0.500000\t1.000000\t1.000000\t1.000000"
    assert b == "b" + "\t1.000000" * 6


def test_evaluate_with_the_table_on_standard_output(structures, capsys):
    output, errors = run(capsys, "evaluate", "all.dbn", "known", "-o", "-")
    assert [line.split("\t")[0] for line in output.splitlines()] == ["id", "a", "b"]
    assert "means over 2 sequences" in errors


def test_missing_predictions_are_refused_or_count_as_unpaired(structures, capsys):
    _, errors = run(capsys, "evaluate", "predicted.dbn", "known", code=1)
    assert "b" in errors
    arguments = ["predicted.dbn", "known", "--missing", "unpaired"]
    output, errors = run(capsys, "evaluate", *arguments)
    assert "warning: 1 of 2 sequences have no prediction" in errors
    assert output.splitlines()[-1].split()[1:4] == ["0.2500"] * 3


def test_missing_predictions_are_left_out_on_request(structures, capsys):
    _, errors = run(capsys, "evaluate", "predicted.dbn", "known", code=1)
    assert "--missing skip" in errors
    output, errors = run(capsys, "evaluate", "predicted.dbn", "known", "--missing", "skip")
    assert "warning: 1 of 2 sequences have no prediction and are left out: b" in errors
    assert "means over 1 sequence" in output
    assert output.splitlines()[-1].split()[1:4] == ["0.5000"] * 3


def test_sequences_without_a_pair_on_either_side_are_counted(structures, capsys):
    write_structures(Path("empty.dbn"), [Structure("c", "GAAAC", [])])
    output, _ = run(capsys, "evaluate", "predicted.dbn", "empty.dbn")
    assert "no pair on either side, which scores 1: 1 (predicted)" in output
    assert "either side" not in run(capsys, "evaluate", "all.dbn", "known")[0]


def test_evaluate_by_length_and_family(structures, capsys):
    known = [*map(format_tsv, KNOWN)]
    lines = [
        line.rstrip("\n") + f"\t{name}" for line, name in zip(known, ("tRNA", "5S"), strict=True)
    ]
    Path("known.tsv").write_text(TSV_HEADER.strip() + "\tfamily\n" + "\n".join(lines) + "\n")
    output, _ = run(capsys, "evaluate", "all.dbn", "known.tsv", "--groups", "means.tsv")
    rows = [line.split() for line in output.splitlines()]
    assert ["length", "1-50", "predicted", "2", *["0.7500"] * 3] in rows
    assert ["family", "tRNA", "predicted", "1", *["0.5000"] * 3] in rows
    header, first, *others = Path("means.tsv").read_text().splitlines()
    assert header == "by\tgroup\tevaluation\tsequences\tprecision\trecall\tf1"
    assert first == "length\t1-50\tpredicted\t2" + "\t0.750000" * 3
    assert len(others) == 2
    output, _ = run(capsys, "evaluate", "all.dbn", "known.tsv", "--by", "sequence")
    ways = [line.split()[0] for line in output.splitlines()[1:4]]
    assert ways == ["length", "sequence", "sequence"]
    _, errors = run(capsys, "evaluate", "all.dbn", "known.tsv", "--by", "clan", code=1)
    assert "known.tsv is not a table with a column 'clan'" in errors


@needs_vienna
@needs_mini
def test_evaluate_with_a_prior(structures, capsys):
    command = ["evaluate", "all.dbn", "known", "--with-prior", "mini", "-o", "scores.tsv"]
    output, _ = run(capsys, *command)
    assert output.splitlines()[-1].startswith("prior ")
    assert "prior_f1" in Path("scores.tsv").read_text().splitlines()[0].split("\t")


@needs_vienna
def test_evaluate_with_minimum_free_energy(structures, capsys):
    output, _ = run(capsys, "evaluate", "all.dbn", "known", "--with-mfe", "-o", "scores.tsv")
    assert output.splitlines()[-1].startswith("mfe ")
    assert "mfe_f1" in Path("scores.tsv").read_text().splitlines()[0].split("\t")


def test_evaluate_with_reactivities(here, capsys):
    Path("known.dbn").write_text(">a\nGAAAC\n(...)\n>b\nGAAAC\n(...)\n")
    Path("found.dbn").write_text(">a\nGAAAC\n.....\n>b\nGAAAC\n(...)\n")
    rows = [f"{id}\t{place}\t{2 * place % 5}\n" for id in "ab" for place in range(1, 6)]
    Path("r.tsv").write_text("id\tposition\treactivity\n" + "".join(rows))
    command = ["evaluate", "found.dbn", "known.dbn", "--reactivity", "r.tsv", "-o", "out.tsv"]
    assert cli.main(command) == 0
    assert "predicted 0.8333 (1 of 2 sequences), known 0.8333 (2 of 2" in capsys.readouterr().out
    header, first, second = Path("out.tsv").read_text().splitlines()
    assert header.endswith("f1_shifted\tpredicted_reactivity_auc\tknown_reactivity_auc")
    assert first.endswith("\tnan\t0.833333")
    assert second.endswith("\t0.833333\t0.833333")
    assert cli.main(["evaluate", "found.dbn", "--reactivity", "r.tsv", "-o", "-"]) == 0
    assert capsys.readouterr().out == "id\tpredicted_reactivity_auc\na\tnan\nb\t0.833333\n"


@needs_mini
def test_constraints_do_not_depend_on_letters(here, capsys):
    Path("t.fasta").write_text(">one\nGGGGGaaaaCCCCCAT\n.((......))xxxxx\n")
    arguments = ["fold", "t.fasta", "-m", "mini", "-C", "--quiet"]
    for more, sequence in (([], "GGGGGAAAACCCCCAU"), (["--keep-letters"], "GGGGGaaaaCCCCCAT")):
        lines = run(capsys, *arguments, *more)[0].splitlines()
        assert lines[1:] == [sequence, ".((......))....."]
