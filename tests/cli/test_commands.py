"""The commands convert, verify, info, evaluate and plot, as they are typed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel

from ernie_rna.cli import main as cli
from ernie_rna.cli.plot import find_record
from ernie_rna.structures.formats.by_extension import read_structures, write_structures
from ernie_rna.structures.formats.dbn import format_tsv
from ernie_rna.structures.formats.structure import Structure
from tests.conftest import ROOT
from tests.golden_folder import CHECKPOINT

needs_vienna = pytest.mark.skipif(
    importlib.util.find_spec("RNA") is None, reason="needs ViennaRNA (extra vienna)"
)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The folder that `ernie-rna convert` writes."""
    folder = tmp_path_factory.mktemp("converted") / "model"
    assert cli.main(["convert", str(CHECKPOINT), str(folder)]) == 0
    return folder


@pytest.fixture
def folder(converted, tmp_path, monkeypatch, sequences):
    """The working directory, with the model and a FASTA file."""
    monkeypatch.chdir(tmp_path)
    os.symlink(converted, "model")
    records = [f">{name}\n{sequences[name]}\n" for name in ("trna_arg", "readme_1")]
    Path("in.fasta").write_text("".join(records))
    return tmp_path


def run(capsys, *arguments, code=0):
    """The standard output and standard error of a command."""
    assert cli.main([*arguments]) == code
    return capsys.readouterr()


# ---------------------------------------------------------------------------------------------
# evaluate


KNOWN = [Structure("a", "GGAAACC", [(0, 6), (1, 5)]), Structure("b", "GAAAC", [(0, 4)])]
PREDICTED = [Structure("a", "GGAAACC", [(0, 6), (1, 4)]), Structure("c", "GAAAC", [])]


@pytest.fixture
def structures(tmp_path, monkeypatch):
    """The working directory, with known and predicted structures."""
    monkeypatch.chdir(tmp_path)
    Path("known").mkdir()
    for structure in KNOWN:
        write_structures(Path(f"known/{structure.id}.ct"), [structure])
    write_structures(Path("predicted.dbn"), PREDICTED)
    write_structures(Path("all.dbn"), [*PREDICTED, Structure("b", "GAAAC", [(0, 4)])])


@pytest.mark.parametrize(
    "command",
    [
        "fold in.fasta -m model -o out.dbn --quiet",
        "embed in.fasta -m model -o out.npz --quiet",
        "mutate in.fasta -m model --summary out.tsv --quiet --unmasked",
        "plot in.fasta -m model --id readme_1 -o out.svg",
    ],
)
def test_random_weights_are_told_in_one_line(folder, capsys, command):
    _, errors = run(capsys, *command.split())
    line, *others = errors.splitlines()
    assert line == (
        "ernie-rna: warning: model has random weights, which were never trained: what follows "
        "means nothing"
    )
    # Such a model folds this sequence to nothing.
    folds = command.startswith("fold")
    assert others == ["ernie-rna: warning: no structure has any pair"] * folds


def test_a_model_without_the_head_that_is_asked_for(folder, capsys):
    ErnieRnaModel.from_pretrained("model").save_pretrained("encoder")
    _, errors = run(capsys, "mutate", "in.fasta", "-m", "encoder", "-o", "out.tsv", code=1)
    assert errors == (
        "ernie-rna: error: encoder has no language-model head, which this needs: it is "
        "ErnieRnaModel; take the pretrained model, as `ernie-rna convert` makes it of "
        "ERNIE-RNA_pretrain.pt, or save an ErnieRnaForMaskedLM\n"
    )
    assert not Path("out.tsv").exists()


def test_evaluate_prints_means_and_writes_each_score(structures, capsys):
    output, errors = run(capsys, "evaluate", "all.dbn", "known", "-o", "scores.tsv")
    assert "means over 2 sequences" in output
    assert output.splitlines()[-1].split() == ["predicted", *["0.7500"] * 3, *["1.0000"] * 3]
    assert errors == ""
    header, a, b = Path("scores.tsv").read_text().splitlines()
    assert header.split("\t")[0] == "id"
    assert (a.split("\t")[0], b.split("\t")[0]) == ("a", "b")


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
    assert "means over 1 sequences" in output
    assert output.splitlines()[-1].split()[1:4] == ["0.5000"] * 3


def test_sequences_without_a_pair_on_either_side_are_counted(structures, capsys):
    write_structures(Path("empty.dbn"), [Structure("c", "GAAAC", [])])
    output, _ = run(capsys, "evaluate", "predicted.dbn", "empty.dbn")
    assert "without a pair on either side, which scores 1: 1 (predicted)" in output
    assert "either side" not in run(capsys, "evaluate", "all.dbn", "known")[0]


def test_evaluate_by_length_and_family(structures, capsys):
    known = [*map(format_tsv, KNOWN)]
    lines = [
        line.rstrip("\n") + f"\t{name}" for line, name in zip(known, ("tRNA", "5S"), strict=True)
    ]
    Path("known.tsv").write_text("id\tsequence\tdot_bracket\tfamily\n" + "\n".join(lines) + "\n")
    output, _ = run(capsys, "evaluate", "all.dbn", "known.tsv", "--groups", "means.tsv")
    rows = [line.split() for line in output.splitlines()]
    assert ["1-50", "2", *["0.7500"] * 3] in rows
    assert ["tRNA", "1", *["0.5000"] * 3] in rows
    assert len(Path("means.tsv").read_text().splitlines()) == 4
    output, _ = run(capsys, "evaluate", "all.dbn", "known.tsv", "--by", "sequence")
    assert "by sequence" in output
    assert "by family" not in output
    _, errors = run(capsys, "evaluate", "all.dbn", "known.tsv", "--by", "clan", code=1)
    assert "known.tsv is no .tsv with a column 'clan'" in errors


@needs_vienna
def test_evaluate_with_minimum_free_energy(structures, capsys):
    output, _ = run(capsys, "evaluate", "all.dbn", "known", "--with-mfe", "-o", "scores.tsv")
    assert output.splitlines()[-1].startswith("mfe ")
    assert "mfe_f1" in Path("scores.tsv").read_text().splitlines()[0].split("\t")


# ---------------------------------------------------------------------------------------------
# plot


@pytest.mark.parametrize(
    "what", ["map", "heads", "arcs", pytest.param("layout", marks=needs_vienna)]
)
def test_plot_draws(folder, capsys, what):
    pytest.importorskip("matplotlib")
    arguments = ["plot", "in.fasta", "-m", "model", "--id", "trna_arg", "--what", what]
    run(capsys, *arguments, "-o", "out.svg")
    assert "trna_arg" in Path("out.svg").read_text()
    _, errors = run(capsys, *arguments, "-o", "out.svg", code=1)
    assert "--force" in errors


def test_plot_marks_the_known_structure(folder, capsys, sequences):
    pytest.importorskip("matplotlib")
    sequence = sequences["trna_arg"]
    write_structures(Path("known.dbn"), [Structure("trna_arg", sequence, [(0, 70)])])
    arguments = ["plot", "in.fasta", "-m", "model", "--id", "trna_arg", "--what", "arcs"]
    run(capsys, *arguments, "-o", "alone.svg")
    run(capsys, *arguments, "-o", "both.svg", "--reference", "known.dbn")
    assert Path("alone.svg").read_text() != Path("both.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out.gif"], "the extension must be one of .png, .svg, .pdf"),
        (["-o", "out.png"], "there are several sequences: name one by --id, such as trna_arg"),
        (["-o", "out.png", "--id", "x"], "no sequence has the id 'x'"),
        (["-o", "out.png", "--id", "trna_arg", "--layer", "9"], "layer 9"),
        (["-o", "out.png", "--id", "trna_arg", "--head", "12"], "head 12"),
        (["-o", "out.png", "--id", "trna_arg", "--reference", "known.dbn"], "75 nt, 5 in known"),
        (["-o", "out.png", "--id", "readme_1", "--reference", "known.dbn"], "'readme_1'"),
        (["-o", "out.png", "--what", "heads", "--reference", "known.dbn"], "shows no known pairs"),
    ],
)
def test_what_plot_refuses(folder, capsys, arguments, message):
    pytest.importorskip("matplotlib")
    write_structures(Path("known.dbn"), [Structure("trna_arg", "GAAAC", [])])
    errors = run(capsys, "plot", "in.fasta", "-m", "model", *arguments, code=1).err
    assert message in errors
    assert not Path("out.png").exists()


TABLES = ("--pairs", "pairs.tsv", "--bases", "bases.tsv")


def test_fold_writes_how_sure_it_is(folder, capsys):
    run(capsys, "fold", "in.fasta", "-m", "model", "-o", "out.dbn", "-o", "out.npz", *TABLES)
    structures = read_structures("out.dbn")
    header, *pairs = [line.split("\t") for line in Path("pairs.tsv").read_text().splitlines()]
    assert header == ["id", "i", "j", "base_i", "base_j", "probability"]
    expected = [(one.id, i + 1, j + 1) for one in structures for i, j in one.pairs]
    assert [(id, int(i), int(j)) for id, i, j, *_ in pairs] == expected
    bases = [line.split("\t") for line in Path("bases.tsv").read_text().splitlines()[1:]]
    assert "".join(base for _, _, base, _, _ in bases) == "".join(s.sequence for s in structures)
    partners = [partner for one in structures for partner in one.partners]
    assert [int(partner) for *_, partner, _ in bases] == partners
    assert all(0 <= float(reliability) <= 1 for *_, reliability in bases)
    with np.load("out.npz") as matrices:
        assert max(matrix.max() for matrix in matrices.values()) <= 1
    more = ["-o", "b.npz", "--matrix", "scores", "--pairs", "p.tsv"]
    _, errors = run(capsys, "fold", "in.fasta", "-m", "model", *more, code=1)
    assert "--matrix scores beside --pairs" in errors


def test_the_only_record_needs_no_name():
    assert find_record(iter(["it"]), None) == "it"


REMOTE_CODE = """
import sys
from transformers import AutoModel

model = AutoModel.from_pretrained("model", trust_remote_code=True)
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
assert not isinstance(model, ErnieRnaModel)
from ernie_rna.embeddings.embed import embed
from ernie_rna.structures.fold import fold
print(next(embed(["GGGGAAAACCCC"], model))["mean"].shape)
print(next(fold(["GGGGAAAACCCC"], model)).structure.dot_bracket)
"""


def test_the_library_takes_models_of_remote_code(folder, tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hub"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", REMOTE_CODE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "(48,)"
    assert len(done.stdout.splitlines()[1]) == 12
