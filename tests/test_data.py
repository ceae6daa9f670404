"""What comes with the package: the example RNAs and the model `mini`."""

import csv
import gzip
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import ernie_rna
from ernie_rna import data
from ernie_rna.cli import main as cli
from ernie_rna.convert.folder import code_files
from ernie_rna.sequences.fasta import read_fasta
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from tests.conftest import ROOT
from tests.golden_folder import write_golden_folder

RFAM = ROOT.parent / "shared" / "data" / "pretraining" / "rfam_seed.tsv.gz"
HAS_MINI = (ROOT / "ernie_rna" / "mini" / "model.safetensors").is_file()
needs_mini = pytest.mark.skipif(not HAS_MINI, reason="this checkout has no mini")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A small random model in the place of `mini`, and an empty working directory."""
    package, here = tmp_path / "package", tmp_path / "here"
    for folder in (package, here):
        folder.mkdir()
    (package / "mini").mkdir()
    monkeypatch.setattr(data, "_HERE", package)
    monkeypatch.chdir(here)
    Path("rna.fasta").write_text(">hairpin\nGGGGAAAACCCC\n")
    return write_golden_folder(package / "mini")


def test_the_examples_have_structures_of_their_length():
    folder = ernie_rna.examples()
    records = list(read_fasta(folder / "rna.fasta"))
    known = read_structures(folder / "rna.dbn")
    assert len(known) == 14
    assert [(one.id, one.sequence) for one in known] == [(r.id, r.sequence) for r in records]
    assert all(len(one.pairs) >= 12 and set(one.sequence) <= set("ACGU") for one in known)
    assert sum("[" in one.dot_bracket for one in known) == 4


@pytest.mark.skipif(not RFAM.is_file(), reason="needs the Rfam seed alignments")
def test_the_examples_are_rfams_and_of_no_family_that_is_held_out():
    headers = [text for text in _lines("rna.fasta") if text.startswith(">")]
    ids = {header.split()[1]: header[1:].split()[0] for header in headers}
    known = {one.id: one for one in read_structures(ernie_rna.examples() / "rna.dbn")}
    with gzip.open(RFAM, "rt", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["id"] in ids]
    assert len(rows) == len(ids) == len(known)
    for row in rows:
        mine = known[ids[row["id"]]]
        assert row["sequence"] == mine.sequence
        assert from_dot_bracket(row["dot_bracket"]) == mine.pairs
        assert row["split"] != "held_out"


def test_the_readme_of_the_examples_tells_what_is_in_them():
    rows = [line.split("|")[1:-1] for line in _lines("README.md") if line.startswith("| ")]
    cells = {row[0].strip(): [cell.strip() for cell in row] for row in rows}
    for one in read_structures(ernie_rna.examples() / "rna.dbn"):
        text = one.dot_bracket
        pairs = f"{text.count('(')}" + (f" + {text.count('[')}" if "[" in text else "")
        assert cells[one.id][3:5] == [str(len(one.sequence)), pairs]


def _lines(name: str) -> list[str]:
    return (ernie_rna.examples() / name).read_text(encoding="utf-8").splitlines()


def test_the_examples_are_copied_once(stand_in, monkeypatch, capsys):
    monkeypatch.setattr(data, "_HERE", ROOT / "ernie_rna")
    assert cli.main(["examples"]) == 0
    assert capsys.readouterr().out.split()[0] == str(Path("examples", "rna.fasta"))
    assert Path("examples/rna.dbn").read_text() == (ROOT / "examples" / "rna.dbn").read_text()
    assert cli.main(["examples"]) == 1
    assert "--force replaces it" in capsys.readouterr().err
    assert cli.main(["examples", "--force"]) == 0


def test_mini_is_named_in_every_command(stand_in, capsys):
    assert ernie_rna.mini() == stand_in
    assert cli.main(["fold", "rna.fasta", "-m", "mini", "-o", "out.dbn"]) == 0
    assert cli.main(["embed", "rna.fasta", "-m", "mini", "-o", "out.npz"]) == 0
    assert cli.main(["info", "-m", "mini"]) == 0
    output, errors = capsys.readouterr()
    assert str(stand_in) in output
    assert "./mini" not in errors  # only the stand-in's random weights are warned of


def test_mini_loads_from_its_folder(stand_in):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ernie_rna.mini())
    model = AutoModelForMaskedLM.from_pretrained(ernie_rna.mini())
    assert type(model) is ernie_rna.ErnieRnaForMaskedLM
    assert model(**tokenizer("AUGC", return_tensors="pt")).logits.shape == (1, 6, 25)


def test_an_installation_without_mini_says_so(stand_in, capsys):
    (stand_in / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="'mini' is not in this installation"):
        ernie_rna.mini()
    assert cli.main(["fold", "rna.fasta", "-m", "mini"]) == 1
    assert "name another model" in capsys.readouterr().err


def test_a_folder_called_mini_is_not_taken_for_it(stand_in):
    from ernie_rna.run.find_model import find_model

    write_golden_folder(Path("mini"))
    with pytest.warns(UserWarning, match="write ./mini"):
        assert find_model("mini") == str(stand_in)
    assert find_model("./mini") == "./mini"


@needs_mini
def test_the_structure_in_the_readme_is_minis():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    header, sequence, dot_bracket = text.split("```text\n>")[1].split("```")[0].splitlines()
    id = header.split()[0]
    (folded,) = ernie_rna.fold({id: sequence}, ernie_rna.mini())
    assert folded.structure.dot_bracket == dot_bracket


@pytest.mark.slow
def test_the_wheel_holds_the_examples(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-q", "-w", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {str(file.relative_to(ROOT)) for file in (ROOT / "ernie_rna").rglob("*.py")} <= names
    assert {f"ernie_rna/examples/{name}" for name in data.EXAMPLE_FILES} <= names
    assert {f"ernie_rna/model/{path.name}" for path in code_files()} <= names
    assert "ernie_rna/mini/model.safetensors" in names
    assert {name.split("/")[0] for name in names} == {"ernie_rna", "ernie_rna-0.1.0.dist-info"}


@needs_mini
def test_mini_has_all_that_the_encoder_is_made_of():
    model, info = ernie_rna.ErnieRnaModel.from_pretrained(
        ernie_rna.mini(), output_loading_info=True
    )
    assert not info["missing_keys"]
    batch = ernie_rna.ErnieRnaTokenizer()(["GGGAAACCC"], return_tensors="pt")
    assert model(**batch).pooler_output is None
