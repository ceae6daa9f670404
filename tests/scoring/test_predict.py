"""Predictions of a converted head: the authors' values in any batch, the table, what is refused."""

import pytest
from safetensors.torch import load_file

from ernie_rna.cli.main import main
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForRibosomeLoading
from ernie_rna.scoring.predict import predict
from tests.golden_folder import GOLDEN, head_checkpoint, write_golden_folder

UTRS = {
    "utr_50": "GGAGACUUCAGGCAUCCAGUAUCUGACGGAACUUUAGCUAGCCGAUUACG",
    "short": "GGGAAACCC",
    "one": "G",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_golden_folder(
        tmp_path_factory.mktemp("loading"), head_checkpoint("ribosome_loading")
    )


@pytest.fixture(scope="module")
def model(folder):
    return ErnieRnaForRibosomeLoading.from_pretrained(folder).eval()


@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_the_authors_values_in_any_batch(model, sequences, batch_tokens):
    rnas = {**UTRS, "utr_76": sequences["trna_arg"]}
    found = {one.id: one for one in predict(rnas, model, batch_tokens=batch_tokens)}
    assert list(found) == list(rnas)
    expected = load_file(GOLDEN / "tiny_heads_expected.safetensors")
    for name in ("utr_50", "utr_76"):
        prediction = expected[f"ribosome_loading.{name}.prediction"].item()
        mrl = 1.3539032306228027 * prediction + 5.269799754058842
        assert list(found[name].predicted.values()) == [pytest.approx(mrl, abs=2e-5)]


def test_the_table(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "utrs.fasta").write_text("".join(f">{id}\n{text}\n" for id, text in UTRS.items()))
    arguments = ["predict", "utrs.fasta", "-m", str(folder)]
    assert main([*arguments, "-o", "loading.tsv"]) == 0
    header, *rows = (tmp_path / "loading.tsv").read_text().splitlines()
    assert header == "id\tlength\tpredicted_mrl"
    assert [row.split("\t")[:2] for row in rows] == [[id, str(len(s))] for id, s in UTRS.items()]
    capsys.readouterr()
    assert main([*arguments, "-o", "-", "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines() == [header, *rows]
    assert main([*arguments, "-o", "loading.xyz"]) == 1
    assert "the extension must be .tsv" in capsys.readouterr().err


def test_a_folder_without_a_head_is_refused(tmp_path, capsys):
    folder = write_golden_folder(tmp_path)
    (tmp_path / "utrs.fasta").write_text(">a\nGGGAAACCC\n")
    assert main(["predict", str(tmp_path / "utrs.fasta"), "-m", str(folder), "-o", "-"]) == 1
    assert "ErnieRnaForMaskedLM" in capsys.readouterr().err


def test_a_table_keeps_its_columns(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{id}\t{text}\tx{id}\n" for id, text in UTRS.items())
    (tmp_path / "utrs.tsv").write_text("name\tsequence\tnote\n" + rows)
    assert main(["predict", "utrs.tsv", "-m", str(folder), "-o", "loading.tsv"]) == 0
    header, *lines = (tmp_path / "loading.tsv").read_text().splitlines()
    assert {"name", "note", "predicted_mrl"} <= set(header.split("\t"))
    assert len(lines) == len(UTRS)
    assert all(f"x{id}" in line for id, line in zip(UTRS, lines, strict=True))
