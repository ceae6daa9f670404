"""The data in the package: the example RNAs and the model `mini`."""

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


def test_every_example_has_a_known_structure():
    folder = ernie_rna.examples()
    records = list(read_fasta(folder / "rna.fasta"))
    known = read_structures(folder / "rna.dbn")
    assert len(known) == 14
    assert [(rna.id, rna.sequence) for rna in known] == [(r.id, r.sequence) for r in records]
    assert all(len(rna.pairs) >= 12 and set(rna.sequence) <= set("ACGU") for rna in known)
    assert sum("[" in rna.dot_bracket for rna in known) == 4


@pytest.mark.skipif(not RFAM.is_file(), reason="needs the Rfam seed alignments")
def test_the_examples_are_from_rfam_and_of_no_held_out_family():
    headers = [text for text in _lines("rna.fasta") if text.startswith(">")]
    ids = {header.split()[1]: header[1:].split()[0] for header in headers}
    known = {rna.id: rna for rna in read_structures(ernie_rna.examples() / "rna.dbn")}
    with gzip.open(RFAM, "rt", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["id"] in ids]
    assert len(rows) == len(ids) == len(known)
    for row in rows:
        example = known[ids[row["id"]]]
        assert row["sequence"] == example.sequence
        assert from_dot_bracket(row["dot_bracket"]) == example.pairs
        assert row["split"] != "held_out"


def test_the_readme_of_the_examples_states_their_lengths_and_pairs():
    rows = [line.split("|")[1:-1] for line in _lines("README.md") if line.startswith("| ")]
    cells = {row[0].strip(): [cell.strip() for cell in row] for row in rows}
    for rna in read_structures(ernie_rna.examples() / "rna.dbn"):
        pairs = str(rna.dot_bracket.count("("))
        if "[" in rna.dot_bracket:
            pairs += f" + {rna.dot_bracket.count('[')}"
        assert cells[rna.id][3:5] == [str(len(rna.sequence)), pairs]


def _lines(name: str) -> list[str]:
    return (ernie_rna.examples() / name).read_text(encoding="utf-8").splitlines()


def test_missing_data_gets_an_error_that_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, "_HERE", tmp_path / "ernie_rna")
    with pytest.raises(FileNotFoundError, match="example RNAs are not in this installation"):
        ernie_rna.examples()
    with pytest.raises(FileNotFoundError, match="'mini' is not in this installation"):
        ernie_rna.mini()
    assert cli.main(["fold", "GGGGAAAACCCC", "-m", "mini"]) == 1
    assert "use another model" in capsys.readouterr().err


def test_mini_means_the_model_of_the_package_and_not_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mini").mkdir()
    Path("mini/config.json").touch()
    with pytest.warns(UserWarning, match="write ./mini"):
        assert find_model("mini") == str(ernie_rna.mini())
    assert find_model(Path("mini").absolute()) == str(Path("mini").absolute())


# ---------------------------------------------------------------------------------------------
# mini itself


def test_mini_is_a_complete_model_without_code():
    assert why_no_model(ernie_rna.mini()) is None
    assert not list(ernie_rna.mini().glob("*.py"))
    load = ernie_rna.ErnieRnaModel.from_pretrained
    model, info = load(ernie_rna.mini(), output_loading_info=True)
    assert not info["missing_keys"]
    batch = ernie_rna.ErnieRnaTokenizer()(["GGGAAACCC"], return_tensors="pt")
    assert model(**batch).pooler_output is None


def test_mini_predicts_the_structure_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    header, sequence, dot_bracket = text.split("```text\n>")[1].split("```")[0].splitlines()
    id = header.split()[0]
    (folded,) = ernie_rna.fold({id: sequence}, ernie_rna.mini())
    assert folded.structure.dot_bracket == dot_bracket


NAMES = ("", "ForMaskedLM", "ForPreTraining", "ForSequenceClassification", "ForTokenClassification")
# Loads models that were saved from mini, without importing the package.
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


def test_every_auto_class_loads_mini_and_what_it_saves_loads_without_the_package(tmp_path):
    batch = ernie_rna.ErnieRnaTokenizer()(["GGGAAACCC"], return_tensors="pt")
    expected = ""
    for name in NAMES:
        for trust in (False, True):
            trust_option = {"trust_remote_code": trust}
            auto = getattr(transformers, f"AutoModel{name}")
            model = auto.from_pretrained(ernie_rna.mini(), **trust_option).eval()
            assert type(model) is getattr(ernie_rna, f"ErnieRna{name or 'Model'}")
            tokenizer = transformers.AutoTokenizer.from_pretrained(ernie_rna.mini(), **trust_option)
            assert type(tokenizer) is ernie_rna.ErnieRnaTokenizer
            config = transformers.AutoConfig.from_pretrained(ernie_rna.mini(), **trust_option)
            assert config.auto_map == {}
        model.save_pretrained(tmp_path / f"saved{name}")
        tokenizer.save_pretrained(tmp_path / f"saved{name}")
        values = model(**batch)[0].flatten()[:8].tolist()
        expected += f"{name} {' '.join(f'{x:.4f}' for x in values)}\n"
    assert run_elsewhere("-c", LOAD_SAVED, tmp_path, *NAMES, cwd=tmp_path) == expected
