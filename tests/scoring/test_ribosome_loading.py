"""Ribosome loading: the authors' values in any batch, the table, and what is refused."""

import pytest
from safetensors.torch import load_file

from ernie_rna.cli.main import main
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForRibosomeLoading
from ernie_rna.scoring.ribosome_loading import HEADER, ribosome_loading
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
    found = {one.id: one for one in ribosome_loading(rnas, model, batch_tokens=batch_tokens)}
    assert list(found) == list(rnas)
    expected = load_file(GOLDEN / "tiny_heads_expected.safetensors")
    for name in ("utr_50", "utr_76"):
        prediction = expected[f"ribosome_loading.{name}.prediction"].item()
        assert found[name].standardised == pytest.approx(prediction, abs=1e-5)
        mrl = 1.3539032306228027 * prediction + 5.269799754058842
        assert found[name].mrl == pytest.approx(mrl, abs=2e-5)
        assert found[name].length == len(rnas[name])


def test_the_table(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "utrs.fasta").write_text("".join(f">{id}\n{text}\n" for id, text in UTRS.items()))
    arguments = ["ribosome-loading", "utrs.fasta", "-m", str(folder)]
    assert main([*arguments, "-o", "loading.tsv"]) == 0
    written = (tmp_path / "loading.tsv").read_text()
    assert written.startswith(HEADER)
    assert [line.split("\t")[:2] for line in written.splitlines()[1:]] == [
        [id, str(len(text))] for id, text in UTRS.items()
    ]
    capsys.readouterr()
    assert main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr().out == written
    assert main([*arguments, "-o", "loading.csv"]) == 1
    assert "the extension must be .tsv" in capsys.readouterr().err


def test_a_folder_without_the_head_is_refused(tmp_path, capsys):
    folder = write_golden_folder(tmp_path)
    (tmp_path / "utrs.fasta").write_text(">a\nGGGAAACCC\n")
    assert main(["ribosome-loading", str(tmp_path / "utrs.fasta"), "-m", str(folder)]) == 1
    error = capsys.readouterr().err
    assert "has no head for ribosome loading: it is ErnieRnaForMaskedLM" in error
    assert "ernie-rna convert" in error
