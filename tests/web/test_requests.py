"""What a request gives: files, pictures and a line; and what it leaves behind."""

import numpy as np
import pytest

from ernie_rna.data import examples
from ernie_rna.embeddings.readers import read_embeddings, read_metadata
from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.web.requests import ALL_HEADS, AS_FOLDED

TEXT = ">one RNA of_x\nGGGGAAAACCCC\n>two RNA of_x\nGGGAAACCCAGC"


def names(result):
    return [file.name for file in result.files]


def test_folds_all(desk):
    result = desk.fold(TEXT, "small")
    assert names(result) == [
        "structures.dbn",
        "structures.ct",
        "pairs.tsv",
        "bases.tsv",
        "probabilities.npz",
    ]
    assert result.text == result.files[0].read_text().rstrip()
    one, two = read_structures(result.files[0])
    assert read_structures(result.files[1]) == [one, two]
    assert [one.id, two.id] == ["one", "two"]
    assert np.load(result.files[-1])["two"].shape == (12, 12)
    assert len(result.files[3].read_text().splitlines()) == 1 + 24


def test_draws_the_one_that_is_chosen(desk):
    result = desk.draw(TEXT, "small", "two")
    assert result.text.startswith("two: ")
    assert [file.name for file in result.pictures] == ["drawing.svg", "arcs.svg"]
    assert all("<svg" in file.read_text() for file in result.pictures)


def test_known_structures_of_examples_are_below(desk):
    fasta = (examples() / "rna.fasta").read_text()
    text = next(">" + one for one in fasta.split(">") if one.startswith("hammerhead"))
    assert "known structure is below" in desk.draw(text, "small", None).text


@pytest.mark.parametrize(
    ("layer", "head", "shape"),
    [
        (AS_FOLDED, ALL_HEADS, (12, 12)),
        (AS_FOLDED, 3, (12, 12)),
        (0, ALL_HEADS, (12, 12, 12)),
        (3, ALL_HEADS, (12, 12, 12)),
        (2, 7, (12, 12)),
    ],
)
def test_maps_by_layer_and_head(desk, layer, head, shape):
    result = desk.pairing_map(TEXT, "small", "one", layer, head)
    picture, matrix = result.files
    assert picture.name == "map.svg"
    assert np.load(matrix)["one"].shape == shape


def test_substitutions(desk):
    result = desk.substitutions(TEXT, "small", "one", masked=True)
    arrays = np.load(result.files[1])
    assert str(arrays["sequence"]) == "GGGGAAAACCCC"
    assert arrays["effects"].shape == (12, 4)
    single = desk.substitutions(TEXT, "small", "one", masked=False)
    assert not np.allclose(np.load(single.files[1])["effects"], arrays["effects"])
    with pytest.raises(InputError, match="up to 20 nt here"):
        desk.substitutions("ACGU" * 6, "small", None, masked=True)


def test_embeddings_say_nothing_of_the_server(desk, saved):
    result = desk.embeddings(TEXT, "small")
    one, two = read_embeddings(result.files[1])
    assert (one.id, two.id) == ("one", "two")
    assert read_metadata(result.files[1])["model"]["name"] == "small"
    assert str(saved).encode() not in result.files[1].read_bytes()
    with pytest.raises(InputError, match="two RNAs or more"):
        desk.embeddings("ACGU", "small")


def test_models_are_those_of_the_server(desk, saved):
    assert desk.models["small"].layers == 3
    with pytest.raises(InputError, match="there is no model"):
        desk.fold(TEXT, str(saved))


def test_ids_as_they_are_typed(desk):
    assert desk.ids(TEXT) == ["one", "two"]
    assert desk.ids(">one\n") == []


def test_titles_are_no_formulas(desk):
    assert desk.draw(">a$\\frac{$<b>\nGGGGAAAACCCC", "small", None).pictures


def test_a_request_that_fails_leaves_nothing(desk, monkeypatch):
    def fails(task, folder, **arguments):
        (folder / "half").touch()
        raise RuntimeError

    monkeypatch.setattr(desk.workers, "run", fails)
    with pytest.raises(RuntimeError):
        desk.fold(TEXT, "small")
    assert list(desk.folder.iterdir()) == []
