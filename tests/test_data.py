"""What comes with the package: the example RNAs and the model `mini`."""

import csv
import gzip
from pathlib import Path

import pytest
import transformers

import ernie_rna
from ernie_rna import data
from ernie_rna.cli import main as cli
from ernie_rna.conversion.folder import why_no_model
from ernie_rna.run.find_model import find_model
from ernie_rna.sequences.fasta import read_fasta
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from tests.conftest import ROOT, run_elsewhere

RFAM = ROOT.parent / "shared" / "data" / "pretraining" / "rfam_seed.tsv.gz"


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


def test_an_installation_without_mini_or_examples_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, "_HERE", tmp_path / "ernie_rna")
    with pytest.raises(FileNotFoundError, match="example RNAs are not in this installation"):
        ernie_rna.examples()
    with pytest.raises(FileNotFoundError, match="'mini' is not in this installation"):
        ernie_rna.mini()
    assert cli.main(["fold", "GGGGAAAACCCC", "-m", "mini"]) == 1
    assert "use another model" in capsys.readouterr().err


def test_a_folder_called_mini_is_not_taken_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mini").mkdir()
    Path("mini/config.json").touch()
    with pytest.warns(UserWarning, match="write ./mini"):
        assert find_model("mini") == str(ernie_rna.mini())
    assert find_model(Path("mini").absolute()) == str(Path("mini").absolute())


# ---------------------------------------------------------------------------------------------
# mini itself


def test_mini_is_a_whole_folder_without_code():
    assert why_no_model(ernie_rna.mini()) is None
    assert not list(ernie_rna.mini().glob("*.py"))
    load = ernie_rna.ErnieRnaModel.from_pretrained
    model, info = load(ernie_rna.mini(), output_loading_info=True)
    assert not info["missing_keys"]
    batch = ernie_rna.ErnieRnaTokenizer()(["GGGAAACCC"], return_tensors="pt")
    assert model(**batch).pooler_output is None


def test_the_structure_in_the_readme_is_minis():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    header, sequence, dot_bracket = text.split("```text\n>")[1].split("```")[0].splitlines()
    id = header.split()[0]
    (folded,) = ernie_rna.fold({id: sequence}, ernie_rna.mini())
    assert folded.structure.dot_bracket == dot_bracket


NAMES = ("", "ForMaskedLM", "ForPreTraining", "ForSequenceClassification", "ForTokenClassification")
# What is saved of it, where the package is not imported.
LOAD_SAVED = """
import json, sys
import transformers

_, here, *names = sys.argv
for name in names:
    folder = f"{here}/saved{name}"
    config = json.load(open(f"{folder}/config.json"))
    assert {"AutoConfig", *(f"AutoModel{name}" for name in names)} <= config["auto_map"].keys()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    auto = getattr(transformers, f"AutoModel{name}")
    model = auto.from_pretrained(folder, trust_remote_code=True)
    batch = tokenizer(["GGGAAACCC"], return_tensors="pt")
    print(name, *[f"{x:.4f}" for x in model.eval()(**batch)[0].flatten()[:8].tolist()])
assert "ernie_rna" not in sys.modules
"""


def test_mini_loads_by_every_auto_class_and_what_is_saved_of_it_elsewhere(tmp_path):
    batch = ernie_rna.ErnieRnaTokenizer()(["GGGAAACCC"], return_tensors="pt")
    expected = ""
    for name in NAMES:
        for trust in (False, True):
            keep = {"trust_remote_code": trust}
            auto = getattr(transformers, f"AutoModel{name}")
            model = auto.from_pretrained(ernie_rna.mini(), **keep).eval()
            assert type(model) is getattr(ernie_rna, f"ErnieRna{name or 'Model'}")
            tokenizer = transformers.AutoTokenizer.from_pretrained(ernie_rna.mini(), **keep)
            assert type(tokenizer) is ernie_rna.ErnieRnaTokenizer
            config = transformers.AutoConfig.from_pretrained(ernie_rna.mini(), **keep)
            assert config.auto_map == {}
        model.save_pretrained(tmp_path / f"saved{name}")
        tokenizer.save_pretrained(tmp_path / f"saved{name}")
        values = model(**batch)[0].flatten()[:8].tolist()
        expected += f"{name} {' '.join(f'{x:.4f}' for x in values)}\n"
    assert run_elsewhere("-c", LOAD_SAVED, tmp_path, *NAMES, cwd=tmp_path) == expected
