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


@pytest.mark.parametrize(
    ("option", "message"),
    [("--layers 9", "layers 0 (embeddings) to 3"), ("--device mtia", "'mtia' cannot be used")],
)
def test_errors_of_the_model_take_one_line(folder, run, option, message):
    output, errors = run(f"{EMBED} {option}", code=1)
    assert (output, errors.count("\n")) == ("", 1)
    assert errors.startswith("ernie-rna: error: ")
    assert message in errors
    assert not Path("out.npz.partial").exists()
