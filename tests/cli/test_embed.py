"""`ernie-rna embed`, as it is typed: what it writes, prints and refuses."""

from pathlib import Path

import numpy as np
import pytest

from ernie_rna.embeddings.formats import read_embeddings

EMBED = "embed in.fasta -m model -o out.npz"


def test_embeds(folder, run):
    output, errors = run(f"{EMBED} --layers=0,-1 --pooling mean,token")
    assert output == ""
    assert "out.npz: 2 sequences, 32 nt; " in errors
    one, two = read_embeddings("out.npz")
    assert (one.id, two.id) == ("one", "two")
    assert list(two.arrays) == ["token_layer0", "mean_layer0", "token_layer3", "mean_layer3"]
    np.testing.assert_allclose(two["token_layer3"].mean(0), two["mean_layer3"], atol=1e-6)


def test_every_option_and_standard_input(folder, run, stdin):
    options = (
        "--layers all --dtype float32 --device cpu --threads 1 --attention eager --long window "
        "--overlap 9 --unknown unk --batch-tokens 64 --part 1/1 --quiet --force --shard-bytes 9999"
    )
    whole = []
    for source in ("in.fasta", "-"):
        stdin("in.fasta")
        assert run(f"embed {source} -m model -o out.npz {options}") == ("", "")
        whole.append(Path("out.npz").read_bytes())
    assert whole[0] == whole[1]
    assert list(next(read_embeddings("out.npz")).arrays) == [f"mean_layer{i}" for i in range(4)]


def test_one_sequence_is_singular(folder, run):
    assert "out.npz: 1 sequence, 4 nt; " in run("embed ACGU -m model -o out.npz").err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nowhere.fasta -o o.npz", "nowhere.fasta: no such file"),
        ("model -o o.npz", "model: is a directory"),
        ("bad.fasta -o o.npz", "bad.fasta: record 1 (x): it looks like a protein: 31 %"),
        ("in.fasta -o o.xlsx", "o.xlsx: the extension must be one of .safetensors, .h5"),
        ("in.fasta -o in.npz", "in.npz exists already; --force replaces it"),
        ("in.fasta -o no/o.npz", "cannot write no/o.npz: there is no folder no"),
        ("in.fasta -o o.npz --layers 9", "the model has layers 0 (embeddings) to 3"),
        ("in.fasta -o o.npz --device mtia", "device 'mtia' cannot be used: "),
        ("in.fasta -o o.npz -m nowhere", "there is no folder nowhere here, and the Hub"),
    ],
)
def test_errors_take_one_line(folder, run, arguments, message):
    Path("bad.fasta").write_text(">x\nMKLVFEQPGSWTARNH\n")
    Path("in.npz").write_text("precious")
    output, errors = run(f"embed -m model {arguments}", code=1)
    assert output == ""
    assert errors.startswith("ernie-rna: error: ")
    assert message in errors
    assert errors.count("\n") == 1
    assert not Path("o.npz.partial").exists()
    assert Path("in.npz").read_text() == "precious"
