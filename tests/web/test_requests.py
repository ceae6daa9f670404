"""What is read of a text, what is refused, what a request gives and leaves behind, and processes
that compute: limited, and started anew after an end."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

from ernie_rna.data import examples
from ernie_rna.embeddings.formats import read_embeddings, read_metadata
from ernie_rna.options import ServeOptions
from ernie_rna.sequences.fasta import FastaRecord, InputError
from ernie_rna.structures.fold import FoldTask, fold
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.web import requests as module
from ernie_rna.web.requests import (
    UNNAMED,
    Requests,
    TaskError,
    decode,
    describe,
    make_room,
    read_text,
)

SMALL = ServeOptions(sequences=2, nucleotides=15)
OPTIONS = ServeOptions(device="cpu", threads=1)
TEXT = ">one RNA of_x\nGGGGAAAACCCC\n>two RNA of_x\nGGGAAACCCAGC"
RECORD = FastaRecord("one", "GGGGAAAACCCC")


def test_fasta_or_a_bare_sequence():
    def read(text):
        return {one.id: one.sequence for one in read_text(text, SMALL)}

    assert read(">a x y\nACGU\n>b\nGGCC\nTT") == {"a": "ACGU", "b": "GGCCTT"}
    assert read("\n\n >a\r\nacgu\r\n") == {"a": "acgu"}
    assert read("# a comment\n>a\nACGU") == {"a": "ACGU"}
    assert read(" ACGU ACG u\n") == {UNNAMED: "ACGUACGu"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no RNA yet"),
        (" \n", "there is no RNA yet"),
        ("MKVLAEFFGP", "looks like a protein"),
        ("ACGZGACGUA", r"'Z' at position 4 is not a nucleotide code$"),
        (">a\nAC-GU", "gap of an alignment"),
        ("# STOCKHOLM 1.0\na AC-GU", "an alignment: write its rows as FASTA, without their gaps$"),
        (">a\n>b\nACGU", r"record 1 \(a\): it is empty"),
        (">a\nACGU\n>a\nACGU", "record 2: an earlier record has the id 'a'"),
        (">a\nAC\x01GU", "line 2: control character"),
        ("ACGU\nGGCC", "2 lines without a header: write a line >name above them if they are one"),
        ("ACGU" * 4, "16 nt in total; this page takes up to 15"),
        (">a\nA\n>b\nA\n>c\nA", "3 sequences; this page takes up to 2"),
        (">a\nAAAAAAAA\n>b\nAAAAAAAA", "16 nt in total; this page takes up to 15"),
        (">" + 3000 * "a", "3001 characters; this page takes up to 2015"),
        (None, "there is no RNA yet"),
        (">a\nAC\ud800GU", "'.' at position 3 is not a nucleotide code"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(InputError, match=message) as raised:
        read_text(text, SMALL)
    assert "--" not in str(raised.value)


def test_loaded_files_are_text():
    assert decode(b"\xef\xbb\xbf>a\nACGU") == ">a\nACGU"
    with pytest.raises(InputError, match="not plain text"):
        decode(b"\x1f\x8b\x08")


@pytest.mark.parametrize(
    ("what", "text", "model", "message"),
    [
        ("fold", 255 * "A", "small", "RNA has 255 nt; this page takes up to 254"),
        ("fold", TEXT, "/on-the-server/small", r"there is no model .*; choose small"),
        ("embeddings", "ACGU", "small", "two RNAs or more"),
    ],
)
def test_limits_of_a_model(requests, what, text, model, message):
    with pytest.raises(InputError, match=message):
        requests.check(what, text, model)


def test_limits_of_masking(requests):
    requests.models["small"] = replace(requests.models["small"], nucleotides=1000)
    requests.check("substitutions", 400 * "A", "small", masked=True)
    requests.check("substitutions", 401 * "A", "small", masked=False)
    with pytest.raises(InputError, match=r"has 401 nt; .* up to 400 nt here: choose the single"):
        requests.check("substitutions", 401 * "A", "small", masked=True)


def test_an_id_that_is_gone_means_the_first(requests):
    drawn = [requests.check("map", TEXT, "small", id)["drawn"].id for id in ("two", "gone", None)]
    assert drawn == ["two", "one", "one"]
    assert requests.ids(TEXT) == ["one", "two"]
    assert requests.ids(">one\n") == []


def test_files_are_where_nobody_can_guess(requests, monkeypatch):
    for _ in range(2):
        requests.answer(requests.check("map", TEXT, "small"))
    folders = [*requests.folder.iterdir()]
    assert len(folders[0].name) == len(folders[1].name) > 20

    def fails(task, folder, **arguments):
        (folder / "half").touch()
        raise RuntimeError

    monkeypatch.setattr(requests, "run", fails)
    with pytest.raises(RuntimeError):
        requests.answer(requests.check("fold", TEXT, "small"))
    assert {*requests.folder.iterdir()} == {*folders}


@pytest.mark.parametrize(("size", "left"), [(4, {"0", "1", "2"}), (3, {"0", "1"}), (0, set())])
def test_old_files_go_first(tmp_path, size, left):
    for number in range(3):
        file = tmp_path / f"request{number}" / str(number)
        file.parent.mkdir()
        file.write_bytes(b"12"[: 1 + number % 2])
        os.utime(file, (time.time() - 10 * number,) * 2)
    make_room(tmp_path, size)
    assert {file.name for file in tmp_path.rglob("?")} == left


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


def test_a_prior_is_that_of_the_command(ask, requests):
    plain = np.load(ask("fold").files[2])["one"]
    model = module._load(*requests._setup)["small"].model
    model.config.pair_prior = [0.4, 0.75]
    requests.models.update(describe(*requests._setup))
    result = ask("fold", prior="vienna")
    found = np.load(result.files[2])["one"]
    for picture in result.captions:
        assert "secondary-structure head, and ViennaRNA" in picture.read_text()
    drawn = np.load(ask("map", id="one", prior="vienna").files[0])["one"]
    for matrix, values in (("probabilities", found), ("scores", drawn)):
        (folded,) = fold({"one": RECORD.sequence}, model, prior="vienna", matrix=matrix)
        np.testing.assert_allclose(values, folded.matrix, atol=1e-5)
    assert abs(found - plain).max() > 0.01


def test_known_structures_of_examples_are_drawn_too(ask):
    fasta = (examples() / "rna.fasta").read_text()
    text = next(">" + one for one in fasta.split(">") if one.startswith("hammerhead"))
    _, arcs = ask("fold", text).captions.values()
    assert "known structure is below" in arcs
    for what, choices, is_shown in (("map", {}, True), ("heads", {"layer": 0}, False)):
        (picture,) = ask(what, text, **choices).captions
        assert ("pairs known" in picture.read_text()) is is_shown


@pytest.mark.parametrize("choices", [{}, {"layer": 0}, {"layer": 3}, {"layer": 2, "head": 7}])
def test_maps_by_layer_and_head(ask, choices):
    what = "heads" if len(choices) == 1 else "map"
    result = ask(what, id="one", **choices)
    assert [path.name for path in result.captions] == [f"{what}.svg"]
    assert np.load(result.files[0])["one"].shape == (12,) * (3 if what == "heads" else 2)


def test_substitutions(ask):
    arrays, single = (
        np.load(ask("substitutions", masked=masked).files[0]) for masked in (True, False)
    )
    assert str(arrays["sequence"]) == "GGGGAAAACCCC"
    assert arrays["letters"].tolist() == list("ACGU")
    assert arrays["effects"].shape == (12, 4)
    assert not np.allclose(single["effects"], arrays["effects"])


def test_files_say_nothing_of_the_server(ask, saved):
    result = ask("embeddings")
    one, two = read_embeddings(result.files[0])
    assert (one.id, two.id) == ("one", "two")
    assert read_metadata(result.files[0])["model"]["name"] == "small"
    # An id is no formula, no markup and no file.
    folded = ask("fold", ">x.npy\nGGGGAAAACCCC\n>$\\frac{$<b>\nACGU", id="$\\frac{$<b>")
    assert folded.captions
    assert folded.text.splitlines()[-1].startswith("x.npy is not in probabilities.npz: x.npy: an")
    for more in (result, folded, ask("substitutions", masked=False)):
        for file in (*more.files, *more.captions):
            assert saved.parent.name.encode() not in file.read_bytes()


def test_a_structure_that_is_missing_is_said(ask, monkeypatch):
    solve = "ernie_rna.model.structures_ernie_rna.solve_each"
    monkeypatch.setattr(solve, lambda maps, texts, **how: ["it diverges"])
    result = ask("fold", ">one\nGGGGAAAACCCC")
    assert result.text.strip() == "one has no structure: it diverges"
    assert not result.captions


def test_models_are_described(requests):
    small = requests.models["small"]
    assert (small.layers, small.heads, small.nucleotides) == (3, 12, 254)
    module._load(*requests._setup)["small"].model.config.weights_origin = "random"
    note = describe(*requests._setup)["small"].note
    assert note.startswith("small: **its weights are random, so all results are meaningless**; ")


def test_a_request_ends_without_the_page(saved, tmp_path):
    with Requests({"small": str(saved)}, OPTIONS, tmp_path) as started:
        started.load()
        request = started.check("map", f">one\n{RECORD.sequence}", "small")
        started.limits = replace(OPTIONS, seconds=0.001)
        with pytest.raises(TaskError, match=r"longer than the 0.001 seconds .*: take fewer"):
            started.answer(request)
        started.limits = replace(OPTIONS, seconds=120.0)
        assert started.answer(request).captions
        # A process that has nothing to do is killed, which pebble gives up at.
        (process,) = started._pool._pool_manager.worker_manager.workers
        os.kill(process, signal.SIGKILL)
        while started._pool.active:
            time.sleep(0.05)
        assert started.answer(request).captions
        with pytest.raises(TaskError, match="not enough memory for this: take fewer"):
            started.run(_want_much)
        with pytest.raises(
            TaskError, match="the computing process ended unexpectedly, maybe for lack"
        ):
            started.run(_die)
    assert not multiprocessing.active_children()


def _want_much(*setup):
    np.ones(1 << 33, np.uint8)


def _die(*setup):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_model_that_cannot_be_loaded_is_told(tmp_path):
    with (
        Requests({"none": str(tmp_path)}, OPTIONS, tmp_path) as started,
        pytest.raises(TaskError, match="cannot load the model 'none'"),
    ):
        started.load()


@pytest.mark.parametrize(
    ("error", "told", "logged"),
    [
        (ValueError("a reason at /a/path"), "a reason at mine", False),
        (MemoryError(), "not enough memory for this: take fewer", False),
        (OSError("/a/path of the server"), "internal error; see the log of the server", True),
    ],
)
def test_what_is_told_and_what_is_not(capsys, error, told, logged):
    def fails(*setup):
        raise error

    with pytest.raises(TaskError, match=told):
        module._run(fails, (("mine", "/a/path"),), OPTIONS, {})
    assert ("/a/path" in capsys.readouterr().err) is logged
