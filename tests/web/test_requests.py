"""Text of a box: what is read of it, what is refused, and what a request leaves behind."""

import os
import time
from dataclasses import replace

import pytest

from ernie_rna.options import ServeOptions
from ernie_rna.sequences.fasta import InputError
from ernie_rna.web.requests import UNNAMED, decode, make_room, read_text

LIMITS = ServeOptions(sequences=2, nucleotides=15)
TEXT = ">one RNA\nGGGGAAAACCCC\n>two RNA\nGGGAAACCCAGC"


def test_fasta_or_a_bare_sequence():
    def read(text):
        return {one.id: one.sequence for one in read_text(text, LIMITS)}

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
        ("ACGZGACGUA", r"'Z' at position 4 is no nucleotide code$"),
        (">a\nAC-GU", "gap of an alignment"),
        ("# STOCKHOLM 1.0\na AC-GU", "an alignment: write its rows as FASTA, without their gaps$"),
        (">a\n>b\nACGU", r"record 1 \(a\): it is empty"),
        (">a\nACGU\n>a\nACGU", "record 2: there is a record with the id 'a'"),
        (">a\nAC\x01GU", "line 2: control character"),
        ("ACGU\nGGCC", "2 lines without a header: write a line >name above them if they are one"),
        ("ACGU" * 4, "16 nt together; this page takes up to 15"),
        (">a\nA\n>b\nA\n>c\nA", "3 sequences; this page takes up to 2"),
        (">a\nAAAAAAAA\n>b\nAAAAAAAA", "16 nt together; this page takes up to 15"),
        (">" + 3000 * "a", "3001 characters; this page takes up to 2015"),
        (">a\nAC\ud800GU", "'.' at position 3 is no nucleotide code"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(InputError, match=message) as raised:
        read_text(text, LIMITS)
    assert "--" not in str(raised.value)


def test_loaded_files_are_text():
    assert decode(b"\xef\xbb\xbf>a\nACGU") == ">a\nACGU"
    with pytest.raises(InputError, match="no plain text"):
        decode(b"\x1f\x8b\x08")


def test_limits_of_a_model_and_of_a_task(requests, saved):
    with pytest.raises(InputError, match="RNA has 255 nt; this page takes up to 254"):
        requests.check("fold", 255 * "A", "small")
    with pytest.raises(InputError, match=r"there is no model .*; choose small"):
        requests.check("fold", TEXT, str(saved))
    with pytest.raises(InputError, match="two RNAs or more"):
        requests.check("embeddings", "ACGU", "small")
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

    monkeypatch.setattr(requests.pool, "run", fails)
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
