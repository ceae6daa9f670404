"""FASTA as people have it, and what of it is refused."""

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import tracemalloc

import pytest

from ernie_rna.sequences.fasta import FastaRecord, InputError, read_fasta, write_fasta
from ernie_rna.sequences.seen_ids import SeenIds
from ernie_rna.sequences.survey import survey
from tests.conftest import ROOT

pytest.importorskip("dnaio")

PLAIN = b">one first RNA\nACGU\nacgt\n>two\nNRYN\n"
RECORDS = [FastaRecord("one", "ACGUacgt", "first RNA"), FastaRecord("two", "NRYN")]


@pytest.fixture
def read(tmp_path):
    def read(content, **options):
        path = tmp_path / "in.fasta"
        path.write_bytes(content)
        return list(read_fasta(path, **options))

    return read


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(PLAIN, id="Unix"),
        pytest.param(PLAIN.replace(b"\n", b"\r\n"), id="Windows"),
        pytest.param(PLAIN.replace(b"\n", b"\r"), id="old Mac"),
        pytest.param(b"\xef\xbb\xbf" + PLAIN, id="byte order mark"),
        pytest.param(PLAIN.replace(b"\n", b"\n\n"), id="empty lines"),
        pytest.param(b"# comment\n" + PLAIN, id="comment"),
        pytest.param(PLAIN.rstrip(), id="no line end at the end"),
        pytest.param(PLAIN.replace(b">one first", b">one\tfirst"), id="tab"),
        pytest.param(gzip.compress(PLAIN), id="gzip"),
        pytest.param(gzip.compress(PLAIN[:20]) + gzip.compress(PLAIN[20:]), id="gzip, two members"),
        pytest.param(bz2.compress(PLAIN), id="bzip2"),
        pytest.param(lzma.compress(PLAIN), id="xz"),
    ],
)
def test_reads(read, content):
    assert read(content) == RECORDS


FIRST, SECOND = b">one first RNA\nACGU\n", b"acgt\n>two\nNRYN\n"


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress, gzip.compress])
class TestStreams:
    """Compressed files may be one behind the other in a file; nothing else may."""

    @pytest.mark.parametrize("padding", [b"", b"\0" * 4])
    def test_all_are_read(self, read, compress, padding):
        if padding and compress is gzip.compress:
            pytest.skip("gzip has no padding between members")
        assert read(compress(FIRST) + padding + compress(SECOND) + padding) == RECORDS

    @pytest.mark.parametrize(
        "behind", [SECOND, b"\x01" + bz2.compress(SECOND), lzma.compress(SECOND)[:-9], b"BZh"]
    )
    def test_what_is_none_is_refused(self, read, compress, behind):
        with pytest.raises(InputError, match=r"in.fasta: damaged or cut off: "):
            read(compress(FIRST) + behind)


def test_text_is_utf8_whatever_the_locale(tmp_path):
    (tmp_path / "in.fasta").write_text(">é1 RNÄ\nACéGU\n", encoding="utf-8")
    code = (
        "from ernie_rna.sequences.fasta import read_fasta\n"
        "print(ascii(list(read_fasta('in.fasta', 'unk'))))"
    )
    locale = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **locale, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ascii([FastaRecord("é1", "ACéGU", "RNÄ")])


def test_reads_standard_input(monkeypatch):
    class Input:
        buffer = io.BufferedReader(io.BytesIO(gzip.compress(PLAIN)))

    monkeypatch.setattr(sys, "stdin", Input)
    assert list(read_fasta("-")) == RECORDS


def test_reads_a_line_of_a_million_letters(read):
    (record,) = read(b">long\n" + b"ACGUN" * 200_000 + b"\n")
    assert record.sequence == "ACGUN" * 200_000


def test_reads_every_code_of_the_vocabulary(read):
    codes = "ACGUTNYRSKWMDHVBXI"
    (record,) = read(f">all\n{codes}{codes.lower()}\n".encode())
    assert record.sequence == codes + codes.lower()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "in.fasta: no sequences in it", id="empty file"),
        pytest.param(b"\n\n", "no sequences in it", id="empty lines only"),
        pytest.param(b"ACGU\n", r"not a FASTA file: .*'ACGU'.* \(line 1\)", id="not FASTA"),
        pytest.param(b"@r\nACGU\n+\nIIII\n", "not a FASTA file", id="FASTQ"),
        pytest.param(b">a\nAC\n>b\n>c\nAC\n", r"record 2 \(b\): it is empty", id="empty"),
        pytest.param(b">a\nAC\n>b", r"record 2 \(b\): it is empty", id="empty, at the end"),
        pytest.param(b">a\nAC\n> \nAC\n", r"record 2 \(no id\): its header has no id", id="no id"),
        pytest.param(b">a x\nA\n>b\nA\n>a y\nC\n", "two records have the id 'a'", id="id twice"),
        pytest.param(b">p\nMKTAYIAKQRQIS", r"\(p\): it looks like a protein: .* 'Q'", id="protein"),
        pytest.param(b">a\n" + b"ACGU" * 9 + b"E", "'E' at position 37 is no nucleotide", id="odd"),
        pytest.param(b">a\nAC-GU\n", "'-' at position 3 .* gap .*take the gaps out", id="gap"),
        pytest.param(b">a\nAC..GU\n", "gap of an alignment", id="gap, dots"),
        pytest.param(b">a\nACGU ACGU\n", "' ' at position 5", id="blank"),
        pytest.param(b">a\n1 ACGU\n", "'1' at position 1 .*letters only", id="GenBank's numbers"),
        pytest.param(b">a\nACG<mask>U\n", "'<' at position 4 .*letters only", id="mask"),
        pytest.param(b">a\nAC\n>b\nAC\x00GU\n", "line 4: control character 0x00", id="NUL"),
        pytest.param(b">a\nAC\n>b\x1b[1m\nACGU\n", "line 3: control character 0x1b", id="escape"),
        pytest.param(PLAIN.decode().encode("utf-16"), "line 1: .*UTF-16", id="UTF-16"),
        pytest.param(b">a M\xfcller\nACGU\n", "line 1: text that is not UTF-8", id="Latin-1"),
        pytest.param(">a\nACGÜ\n".encode(), "'Ü' at position 4", id="umlaut"),
        pytest.param(gzip.compress(PLAIN * 9)[:-9], "damaged or cut off", id="gzip cut off"),
        pytest.param(gzip.compress(PLAIN)[:12] + b"\xff" * 40, "damaged or cut off", id="bad gzip"),
    ],
)  # fmt: skip
def test_refuses(read, content, message):
    with pytest.raises(InputError, match=message):
        read(content)


def test_a_header_may_have_any_letters(read):
    (record,) = read(">a Müller, 5' UTR — é\nACGU\n".encode())
    assert record.description == "Müller, 5' UTR — é"


def test_unknown_letters_on_request(read):
    (record,) = read(b">a\nACPE*Z\n", unknown="unk")
    assert record.sequence == "ACPE*Z"
    with pytest.raises(InputError, match=r"' ' at position 3"):
        read(b">a\nAC GU\n", unknown="unk")
    with pytest.raises(ValueError, match=r"unknown must be one of error, unk; got 'skip'"):
        read(PLAIN, unknown="skip")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere"):
        list(read_fasta(tmp_path / "nowhere.fasta"))


def test_without_dnaio(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "dnaio", None)
    with pytest.raises(ImportError, match=r'pip install "ernie-rna\[io\]"'):
        read(PLAIN)


@pytest.mark.parametrize("place", range(0, 40, 3))
def test_finds_an_id_however_far_back(place):
    seen = SeenIds(pending_ids=4)
    found = [seen.add(f"id{number}") for number in range(40)]
    found += [seen.add(f"id{place}"), seen.flush()]
    assert f"id{place}" in found
    assert set(found) <= {None, f"id{place}"}


def test_ids_take_little_memory():
    tracemalloc.start()
    seen = SeenIds(pending_ids=1000)
    for number in range(100_000):
        assert seen.add(f"a rather long id, number {number}") is None
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 16 * 100_000 + 300_000  # the second for the ids that are pending


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "in.fasta"
    with open(path, "w") as file:
        for number in range(20_000):
            file.write(f">{number}\n{'ACGU' * 50}\n")
    tracemalloc.start()
    assert sum(1 for _ in read_fasta(path)) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < path.stat().st_size  # 4 MB; the ids are all pending yet


def test_survey(tmp_path):
    path = tmp_path / "in.fasta"
    path.write_bytes(PLAIN)
    found = survey(read_fasta(path))
    assert (found.records, found.nucleotides) == (2, 12)
    assert found.lengths == {8: 1, 4: 1}
    assert found.longest == ((8, "one"), (4, "two"))

    def sha256(content):
        path.write_bytes(content)
        return survey(read_fasta(path)).sha256

    assert sha256(gzip.compress(PLAIN)) == found.sha256
    assert sha256(PLAIN.replace(b">two", b">three")) != found.sha256
    assert sha256(PLAIN.replace(b"NRYN", b"NRYA")) != found.sha256


def test_writes_what_it_reads(tmp_path):
    path = tmp_path / "out.fasta"
    with open(path, "w") as file:
        write_fasta(file, RECORDS)
    assert list(read_fasta(path)) == RECORDS
