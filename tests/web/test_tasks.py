"""What a request gives: files, pictures and what is said of them."""

import numpy as np
import pytest

from ernie_rna.data import examples
from ernie_rna.embeddings.formats import read_embeddings, read_metadata
from ernie_rna.structures.formats.by_extension import read_structures

TEXT = ">one RNA of_x\nGGGGAAAACCCC\n>two RNA of_x\nGGGAAACCCAGC"


@pytest.fixture
def ask(requests):
    def ask(what, text=TEXT, id=None, **choices):
        return requests.answer(requests.check(what, text, "small", id, **choices))

    return ask


def names(result):
    return [file.name for file in result.files]


def test_folds_all_and_draws_the_one_that_is_chosen(ask):
    result = ask("fold", id="two")
    files = ["structures.dbn", "structures.ct", "probabilities.npz", "pairs.tsv", "bases.tsv"]
    assert names(result) == files
    assert result.text == result.files[0].read_text().rstrip()
    one, two = read_structures(result.files[0])
    assert [(one.id, one.pairs) for one in read_structures(result.files[1])] == [
        (one.id, one.pairs),
        (two.id, two.pairs),
    ]
    assert [one.id, two.id] == ["one", "two"]
    assert np.load(result.files[2])["two"].shape == (12, 12)
    assert len(result.files[4].read_text().splitlines()) == 1 + 24
    assert [(path.name, said[:5]) for path, said in result.captions.items()] == [
        ("layout.svg", "two: "),
        ("arcs.svg", "two: "),
    ]
    assert all("<svg" in path.read_text() for path in result.captions)


def test_known_structures_of_examples_are_below(ask):
    fasta = (examples() / "rna.fasta").read_text()
    text = next(">" + one for one in fasta.split(">") if one.startswith("hammerhead"))
    _, arcs = ask("fold", text).captions.values()
    assert "known structure is below" in arcs


@pytest.mark.parametrize(
    ("what", "choices", "shape"),
    [
        ("map", {}, (12, 12)),
        ("heads", {"layer": 0}, (12, 12, 12)),
        ("heads", {"layer": 3}, (12, 12, 12)),
        ("map", {"layer": 2, "head": 7}, (12, 12)),
    ],
)
def test_maps_by_layer_and_head(ask, what, choices, shape):
    result = ask(what, id="one", **choices)
    assert [path.name for path in result.captions] == [f"{what}.svg"]
    assert np.load(result.files[0])["one"].shape == shape


def test_substitutions(ask):
    arrays = np.load(ask("substitutions", masked=True).files[0])
    assert str(arrays["sequence"]) == "GGGGAAAACCCC"
    assert arrays["letters"].tolist() == list("ACGU")
    assert arrays["effects"].shape == (12, 4)
    single = ask("substitutions", masked=False)
    assert not np.allclose(np.load(single.files[0])["effects"], arrays["effects"])


def test_files_say_nothing_of_the_server(ask, saved):
    result = ask("embeddings")
    one, two = read_embeddings(result.files[0])
    assert (one.id, two.id) == ("one", "two")
    assert read_metadata(result.files[0])["model"]["name"] == "small"
    for more in (result, ask("fold"), ask("substitutions", masked=False)):
        for file in (*more.files, *more.captions):
            assert saved.parent.name.encode() not in file.read_bytes()


def test_titles_are_no_formulas(ask):
    assert ask("fold", ">a$\\frac{$<b>\nGGGGAAAACCCC").captions


def test_a_structure_that_is_missing_is_said(ask, monkeypatch):
    monkeypatch.setattr(
        "ernie_rna.model.structures_ernie_rna.solve_each",
        lambda maps, texts, **how: ["it diverges"],
    )
    result = ask("fold", ">one\nGGGGAAAACCCC")
    assert result.text.strip() == "one has no structure: it diverges"
    assert not result.captions


def test_models_are_described(requests):
    small = requests.models["small"]
    assert (small.layers, small.heads, small.nucleotides) == (3, 12, 254)
    tasks = requests.pool._tasks
    tasks._maps["small"].model.config.weights_origin = "random"
    note = tasks.describe()["small"].note
    assert note.startswith("small: **its weights are random, and nothing here means anything**; ")
