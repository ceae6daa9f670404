"""What a request gives, and processes that compute: limited, and started anew after an end."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from ernie_rna.data import examples
from ernie_rna.embeddings.formats import read_embeddings, read_metadata
from ernie_rna.options import ServeOptions
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.structures.fold import FoldTask, fold
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.web import tasks
from ernie_rna.web.tasks import Pool, TaskError, answer, describe

for module in ("matplotlib", "pebble", "RNA"):
    pytest.importorskip(module)
TEXT = ">one RNA of_x\nGGGGAAAACCCC\n>two RNA of_x\nGGGAAACCCAGC"
RECORD = FastaRecord("one", "GGGGAAAACCCC")
OPTIONS = ServeOptions(device="cpu", threads=1)


@pytest.fixture
def ask(requests):
    def ask(what, text=TEXT, id=None, **choices):
        return requests.answer(requests.check(what, text, "small", id, **choices))

    return ask


def test_folds_all_once_and_draws_the_one_that_is_chosen(ask, monkeypatch):
    folded, compute = [], FoldTask.compute
    count = lambda *given: folded.extend(one.id for one in given[1]) or compute(*given)  # noqa: E731
    monkeypatch.setattr(FoldTask, "compute", count)
    result = ask("fold", id="two")
    assert sorted(folded) == ["one", "two"]
    files = ["structures.dbn", "structures.ct", "probabilities.npz", "pairs.tsv", "bases.tsv"]
    assert [file.name for file in result.files] == files
    assert result.text == result.files[0].read_text().rstrip()
    both = [[(one.id, one.pairs) for one in read_structures(file)] for file in result.files[:2]]
    assert both[0] == both[1]
    assert [id for id, _ in both[0]] == ["one", "two"]
    assert np.load(result.files[2])["two"].shape == (12, 12)
    assert len(result.files[4].read_text().splitlines()) == 1 + 24
    drawn = [(path.name, said[:5]) for path, said in result.captions.items()]
    assert drawn == [("layout.svg", "two: "), ("arcs.svg", "two: ")]
    assert all("two, 12 nt" in path.read_text() for path in result.captions)


def test_a_prior_is_that_of_the_command(ask, requests, setup):
    plain = np.load(ask("fold").files[2])["one"]
    model = tasks._load(*setup)["small"].model
    model.config.pair_prior = [0.4, 0.75]
    requests.models.update(describe(*setup))
    result = ask("fold", prior="vienna")
    found = np.load(result.files[2])["one"]
    for picture in result.captions:
        assert "secondary-structure head, and ViennaRNA" in picture.read_text()
    drawn = np.load(ask("map", id="one", prior="vienna").files[0])["one"]
    for matrix, values in (("probabilities", found), ("scores", drawn)):
        (folded,) = fold({"one": RECORD.sequence}, model, prior="vienna", matrix=matrix)
        np.testing.assert_allclose(values, folded.matrix, atol=1e-5)
    assert abs(found - plain).max() > 0.01


def test_known_structures_of_examples_are_below(ask):
    fasta = (examples() / "rna.fasta").read_text()
    text = next(">" + one for one in fasta.split(">") if one.startswith("hammerhead"))
    _, arcs = ask("fold", text).captions.values()
    assert "known structure is below" in arcs


@pytest.mark.parametrize("choices", [{}, {"layer": 0}, {"layer": 3}, {"layer": 2, "head": 7}])
def test_maps_by_layer_and_head(ask, choices):
    what = "heads" if len(choices) == 1 else "map"
    result = ask(what, id="one", **choices)
    assert [path.name for path in result.captions] == [f"{what}.svg"]
    assert np.load(result.files[0])["one"].shape == (12,) * (3 if what == "heads" else 2)


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
    folded = ask("fold", ">x.npy\nGGGGAAAACCCC\n>y\nACGU")
    assert folded.text.splitlines()[-1].startswith("x.npy is not in probabilities.npz: x.npy: an")
    for more in (result, folded, ask("substitutions", masked=False)):
        for file in (*more.files, *more.captions):
            assert saved.parent.name.encode() not in file.read_bytes()


def test_titles_are_no_formulas(ask):
    assert ask("fold", ">a$\\frac{$<b>\nGGGGAAAACCCC").captions


def test_a_structure_that_is_missing_is_said(ask, monkeypatch):
    solve = "ernie_rna.model.structures_ernie_rna.solve_each"
    monkeypatch.setattr(solve, lambda maps, texts, **how: ["it diverges"])
    result = ask("fold", ">one\nGGGGAAAACCCC")
    assert result.text.strip() == "one has no structure: it diverges"
    assert not result.captions


def test_models_are_described(requests, setup):
    small = requests.models["small"]
    assert (small.layers, small.heads, small.nucleotides) == (3, 12, 254)
    tasks._load(*setup)["small"].model.config.weights_origin = "random"
    note = describe(*setup)["small"].note
    assert note.startswith("small: **its weights are random, and nothing here means anything**; ")


# ---------------------------------------------------------------------------------------------
# Processes


def test_a_request_ends_without_the_page(saved, tmp_path, monkeypatch):
    def ask(name):
        (tmp_path / name).mkdir()
        given = {"what": "map", "model": "small", "records": [RECORD], "drawn": RECORD}
        return started.run(answer, folder=tmp_path / name, **given)

    with Pool({"small": str(saved)}, OPTIONS) as started:
        assert started.run(describe)["small"].layers == 3
        started._seconds = 0.001
        with pytest.raises(TaskError, match=r"longer than the 0.001 seconds .*: take fewer"):
            ask("late")
        started._seconds = 120.0
        assert ask("in time").captions
        # A process that has nothing to do is killed, which pebble gives up at.
        (process,) = started._pool._pool_manager.worker_manager.workers
        os.kill(process, signal.SIGKILL)
        while started._pool.active:
            time.sleep(0.05)
        assert ask("after that").captions
        with pytest.raises(TaskError, match="not enough memory for this: take fewer"):
            started.run(_want_much)
        with pytest.raises(TaskError, match="the process that computes ended, maybe for lack"):
            started.run(_die)
    assert not multiprocessing.active_children()


def _want_much(*setup):
    np.ones(1 << 33, np.uint8)


def _die(*setup):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_model_that_cannot_be_loaded_is_told(tmp_path):
    with (
        Pool({"none": str(tmp_path)}, OPTIONS) as started,
        pytest.raises(TaskError, match="cannot load the model 'none'"),
    ):
        started.run(describe)


def test_what_is_told_and_what_is_not(capsys):
    def said(error):
        def fails(*setup):
            raise error

        return tasks._run(fails, ((), OPTIONS), {})

    assert said(ValueError("a reason")) == (False, "a reason")
    assert "not enough memory" in said(MemoryError())[1]
    message = said(OSError("/a/path/of/the/server"))[1]
    assert "/a/path" not in message
    assert "/a/path" in capsys.readouterr().err
