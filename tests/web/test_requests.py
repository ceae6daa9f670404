"""Requests of the page: reading the text, limits, results and files; the computing processes, which
are limited and are replaced when they end."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

from ernie_rna.data import examples, mini
from ernie_rna.embeddings.formats import read_embeddings, read_metadata
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM
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


def test_text_is_fasta_or_a_sequence_alone():
    def read(text):
        return {record.id: record.sequence for record in read_text(text, SMALL)}

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
def test_invalid_text_gets_a_message_without_options(text, message):
    with pytest.raises(InputError, match=message) as raised:
        read_text(text, SMALL)
    assert "--" not in str(raised.value)


def test_an_uploaded_file_must_be_text():
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


def test_masking_has_a_limit_of_its_own(requests):
    requests.models["small"] = replace(requests.models["small"], nucleotides=1000)
    requests.check("substitutions", 400 * "A", "small", masked=True)
    requests.check("substitutions", 401 * "A", "small", masked=False)
    with pytest.raises(InputError, match=r"has 401 nt; .* up to 400 nt here: choose the single"):
        requests.check("substitutions", 401 * "A", "small", masked=True)


def test_an_unknown_id_means_the_first_rna(requests):
    drawn = [requests.check("map", TEXT, "small", id)["drawn"].id for id in ("two", "gone", None)]
    assert drawn == ["two", "one", "one"]
    assert requests.ids(TEXT) == ["one", "two"]
    assert requests.ids(">one\n") == []


def test_folders_of_files_cannot_be_guessed_and_a_failed_request_leaves_none(requests, monkeypatch):
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
def test_the_oldest_files_are_deleted_first(tmp_path, size, left):
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


def test_fold_computes_every_rna_once_and_draws_the_chosen_one(ask, monkeypatch):
    folded, compute = [], FoldTask.compute

    def record_and_compute(task, records, *rest):
        folded.extend(record.id for record in records)
        return compute(task, records, *rest)

    monkeypatch.setattr(FoldTask, "compute", record_and_compute)
    result = ask("fold", id="two")
    assert sorted(folded) == ["one", "two"]
    files = ["structures.dbn", "structures.ct", "probabilities.npz", "pairs.tsv", "bases.tsv"]
    assert [file.name for file in result.files] == files
    assert result.text == result.files[0].read_text().rstrip()
    dbn, ct = ([(rna.id, rna.pairs) for rna in read_structures(file)] for file in result.files[:2])
    assert dbn == ct
    assert [id for id, _ in dbn] == ["one", "two"]
    assert np.load(result.files[2])["two"].shape == (12, 12)
    assert len(result.files[4].read_text().splitlines()) == 1 + 24
    captions = [(path.name, caption[:5]) for path, caption in result.captions.items()]
    assert captions == [("layout.svg", "two: "), ("arcs.svg", "two: ")]
    assert all("two, 12 nt" in path.read_text() for path in result.captions)


def test_a_prior_gives_the_results_of_fold(ask, requests):
    plain = np.load(ask("fold").files[2])["one"]
    model = module._load(*requests._setup)["small"].model
    model.config.pair_prior = [0.4, 0.75]
    requests.models.update(describe(*requests._setup))
    result = ask("fold", prior="vienna")
    probabilities = np.load(result.files[2])["one"]
    for picture in result.captions:
        assert "secondary-structure head, and ViennaRNA" in picture.read_text()
    scores = np.load(ask("map", id="one", prior="vienna").files[0])["one"]
    for matrix, values in (("probabilities", probabilities), ("scores", scores)):
        (folded,) = fold({"one": RECORD.sequence}, model, prior="vienna", matrix=matrix)
        np.testing.assert_allclose(values, folded.matrix, atol=1e-5)
    assert abs(probabilities - plain).max() > 0.01


def test_the_known_structure_of_an_example_is_drawn_as_well(ask):
    records = (examples() / "rna.fasta").read_text().split(">")
    text = next(f">{record}" for record in records if record.startswith("hammerhead"))
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


def test_substitutions_are_scored_with_and_without_masks(ask):
    masked = np.load(ask("substitutions", masked=True).files[0])
    assert str(masked["sequence"]) == "GGGGAAAACCCC"
    assert masked["letters"].tolist() == list("ACGU")
    assert masked["effects"].shape == (12, 4)
    unmasked = np.load(ask("substitutions", masked=False).files[0])
    assert not np.allclose(unmasked["effects"], masked["effects"])


def test_files_do_not_contain_the_paths_of_the_server(ask, saved):
    result = ask("embeddings")
    one, two = read_embeddings(result.files[0])
    assert (one.id, two.id) == ("one", "two")
    assert read_metadata(result.files[0])["model"]["name"] == "small"
    # An id is not read as a formula, as markup or as a file name.
    folded = ask("fold", ">x.npy\nGGGGAAAACCCC\n>$\\frac{$<b>\nACGU", id="$\\frac{$<b>")
    assert folded.captions
    assert folded.text.splitlines()[-1].startswith("x.npy is not in probabilities.npz: x.npy: an")
    for answer in (result, folded, ask("substitutions", masked=False)):
        for file in (*answer.files, *answer.captions):
            assert saved.parent.name.encode() not in file.read_bytes()


def test_the_text_says_why_an_rna_has_no_structure(ask, monkeypatch):
    solve = "ernie_rna.model.structures_ernie_rna.solve_each"
    monkeypatch.setattr(solve, lambda maps, texts, **how: ["it diverges"])
    result = ask("fold", ">one\nGGGGAAAACCCC")
    assert result.text.strip() == "one has no structure: it diverges"
    assert not result.captions


def test_the_description_of_a_model(requests):
    small = requests.models["small"]
    assert (small.layers, small.heads, small.nucleotides) == (3, 12, 254)
    module._load(*requests._setup)["small"].model.config.weights_origin = "random"
    note = describe(*requests._setup)["small"].note
    assert note.startswith("small: **its weights are random, so all results are meaningless**; ")


def test_requests_are_answered_after_a_process_has_ended(saved, tmp_path):
    with Requests({"small": str(saved)}, OPTIONS, tmp_path) as requests:
        requests.load()
        request = requests.check("map", f">one\n{RECORD.sequence}", "small")
        requests.limits = replace(OPTIONS, seconds=0.001)
        with pytest.raises(TaskError, match=r"longer than the 0.001 seconds .*: take fewer"):
            requests.answer(request)
        requests.limits = replace(OPTIONS, seconds=120.0)
        assert requests.answer(request).captions
        # If an idle process is killed, pebble closes its pool.
        (process,) = requests._pool._pool_manager.worker_manager.workers
        os.kill(process, signal.SIGKILL)
        while requests._pool.active:
            time.sleep(0.05)
        assert requests.answer(request).captions
        with pytest.raises(TaskError, match="not enough memory for this: take fewer"):
            requests.run(_allocate_8_gib)
        message = "the computing process ended unexpectedly, maybe for lack"
        with pytest.raises(TaskError, match=message):
            requests.run(_die)
    assert not multiprocessing.active_children()


def _allocate_8_gib(*setup):
    np.ones(1 << 33, np.uint8)


def _die(*setup):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_model_that_cannot_be_loaded_is_named(tmp_path):
    with (
        Requests({"none": str(tmp_path)}, OPTIONS, tmp_path) as requests,
        pytest.raises(TaskError, match="cannot load the model 'none'"),
    ):
        requests.load()


@pytest.mark.parametrize(
    ("error", "message", "is_logged"),
    [
        (ValueError("a reason at /a/path"), "a reason at mine", False),
        (MemoryError(), "not enough memory for this: take fewer", False),
        (OSError("/a/path of the server"), "internal error; see the log of the server", True),
    ],
)
def test_paths_of_the_server_are_logged_but_not_shown(capsys, error, message, is_logged):
    def fails(*setup):
        raise error

    with pytest.raises(TaskError, match=message):
        module._run(fails, (("mine", "/a/path"),), OPTIONS, {})
    assert ("/a/path" in capsys.readouterr().err) is is_logged


def test_a_prior_is_offered_only_with_the_head_it_was_fitted_for(tmp_path):
    ErnieRnaForMaskedLM.from_pretrained(mini()).save_pretrained(tmp_path / "lm")
    models = (("mini", str(mini())), ("lm", str(tmp_path / "lm")))
    descriptions = describe(models, OPTIONS)
    assert descriptions["mini"].has_prior
    assert not descriptions["lm"].has_prior
