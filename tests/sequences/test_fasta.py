"""FASTA as people have it, and what of it is refused."""

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import time
import tracemalloc

import pytest

from ernie_rna.model.configuration_ernie_rna import VOCABULARY
from ernie_rna.sequences.fasta import LETTERS, FastaRecord, InputError, check_records, read_fasta
from tests.conftest import ROOT

UNKNOWN, DEGAP = {"unknown": "unk"}, {"degap": True}
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
        pytest.param(PLAIN.decode().encode("utf-16"), id="UTF-16 with byte order mark"),
        pytest.param(PLAIN.replace(b">two", b"\xef\xbb\xbf>two"), id="files with marks, joined"),
        pytest.param(PLAIN.replace(b"\n", b"\n\n"), id="empty lines"),
        pytest.param(b"# comment\n" + PLAIN, id="comment"),
        pytest.param(PLAIN.rstrip(), id="no line end at the end"),
        pytest.param(PLAIN.replace(b">one first", b">one\tfirst"), id="tab"),
        pytest.param(PLAIN.replace(b"acgt", b"  acgt\t"), id="blanks around a line"),
        pytest.param(PLAIN.replace(b"acgt", b"# comment\nacgt"), id="comment within"),
        pytest.param(PLAIN.replace(b">one", b"> one"), id="blank before the id"),
        pytest.param(gzip.compress(PLAIN), id="gzip"),
        pytest.param(gzip.compress(PLAIN[:20]) + gzip.compress(PLAIN[20:]), id="gzip, two members"),
        pytest.param(bz2.compress(PLAIN), id="bzip2"),
        pytest.param(lzma.compress(PLAIN), id="xz"),
    ],
)
def test_reads(read, content):
    assert read(content) == RECORDS


def test_reads_an_open_file_and_standard_input(monkeypatch):
    content = gzip.compress(PLAIN)
    assert list(read_fasta(io.BytesIO(content))) == RECORDS
    with pytest.raises(InputError, match=r"^the input: no sequences in it$"):
        list(read_fasta(io.BytesIO(b"")))
    stdin = type("Input", (), {"buffer": io.BufferedReader(io.BytesIO(content))})
    monkeypatch.setattr(sys, "stdin", stdin)
    assert list(read_fasta("-")) == RECORDS


FIRST, SECOND = b">one first RNA\nACGU\n", b"acgt\n>two\nNRYN\n"


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress, gzip.compress])
class TestStreams:
    """Compressed files may be one behind the other in a file; nothing else may."""

    @pytest.mark.parametrize("padding", [b"", b"\0" * 4, b"\0" * 200_000])
    def test_all_are_read(self, read, compress, padding):
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


def test_reads_a_line_of_a_million_letters(read):
    (record,) = read(b">long\n" + b"ACGUN" * 200_000 + b"\n")
    assert record.sequence == "ACGUN" * 200_000


def test_reads_every_code_of_the_vocabulary(read):
    codes = "ACGUTNYRSKWMDHVBXI"
    letters = [token for token in VOCABULARY if len(token) == 1]
    assert sorted(LETTERS) == sorted(codes) == sorted([*letters, "T"])
    (record,) = read(f">all\n{codes}{codes.lower()}\n".encode())
    assert record.sequence == codes + codes.lower()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "in.fasta: no sequences in it", id="empty file"),
        pytest.param(b"ACGU\n", "not a FASTA file: line 1 must .*'ACGU'", id="not FASTA"),
        pytest.param(b"#\n\nACGU\n>a\nAC", "line 3 must begin with '>', not 'ACGU'", id="line 3"),
        pytest.param(b"\n# nothing\n", "no sequences in it", id="comments and empty lines only"),
        pytest.param(b">a\n#AC\n", r"record 1 \(a\): it is empty", id="all of it a comment"),
        pytest.param(b">a\nAC>b\nAC", "'>' at position 3 .*letters only", id="> in a sequence"),
        pytest.param(b">a\n\n \n>b\nA\n", r"record 1 \(a\): it is empty", id="blank lines"),
        pytest.param(b">a\nAC\n>b\n>c\nAC\n", r"record 2 \(b\): it is empty", id="empty"),
        pytest.param(b">a\nAC\n>b", r"record 2 \(b\): it is empty", id="empty, at the end"),
        pytest.param(b">a\nAC\n> \nAC\n", r"record 2 \(no id\): its header has no id", id="no id"),
        pytest.param(b">a x\nA\n>b\nA\n>a y\nC\n", "record 3: .* 'a' .* _ in place", id="id twice"),
        pytest.param(b">p\nMKTAYIAKQRQIS", r"\(p\): it looks like a protein: .* 'Q'", id="protein"),
        pytest.param(b">a\n" + b"ACGU" * 9 + b"E", "'E' at position 37 is no nucleotide", id="odd"),
        pytest.param(b">a\nACGU*", r"\(a\): '\*' at position 5 is no nucleotide", id="star"),
        pytest.param(b">a\nAC-GU\n", "'-' at position 3 .* take the gaps out; --degap", id="gap"),
        pytest.param(b">a\nAC..GU\n", "gap of an alignment", id="gap, dots"),
        pytest.param(b">a\nACGG\nA..U\nAC..\n", "'.' at position 6 .* gap", id="gaps, wrapped"),
        pytest.param(b">a\nAC\n..\nGU\n", "'.' at position 3 .* gap", id="gaps, a whole line"),
        pytest.param(b">a\nACGU ACGU\n", "' ' at position 5 .*but a blank", id="blank"),
        pytest.param(b">a\n1 ACGU\n", "'1' at position 1 .*letters only", id="GenBank's numbers"),
        pytest.param(b">a\nACG<mask>U\n", "'<' at position 4 .*letters only", id="mask"),
        pytest.param(b">a\nAC\n>b\nAC\x00GU\n", "line 4: control character 0x00", id="NUL"),
        pytest.param(b">a\nAC\n>b\x1b[1m\nACGU\n", "line 3: control character 0x1b", id="escape"),
        pytest.param(PLAIN.decode().encode("utf-16-le"), "line 1: .*UTF-16", id="UTF-16"),
        pytest.param(b">a\r\nAC\r>b\nAC\x0bGU", "line 4: control character 0x0b", id="mixed ends"),
        pytest.param(b">a\r\nAC\r>b M\xfc", "line 3: .*: save the file", id="Latin-1 below"),
        pytest.param(b">" + b"a" * 70_000 + b"\n\xff", "line 2: text that", id="far into the file"),
        pytest.param(b">a M\xfcller\nACGU\n", "line 1: .* not UTF-8: save the", id="Latin-1"),
        pytest.param(">a\nACGÜ\n".encode(), r"\(a\): 'Ü' at position 4", id="umlaut"),
        pytest.param(gzip.compress(PLAIN)[:-9], "damaged or cut off", id="gzip cut off"),
        pytest.param(gzip.compress(PLAIN)[:10] + b"\xff" * 40, "damaged or cut off", id="bad gzip"),
        pytest.param(gzip.compress(PLAIN)[:-5] + b"\0" * 5, "damaged or cut off", id="checksum"),
        pytest.param(bz2.compress(PLAIN)[:-9], "damaged or cut off", id="bzip2 cut off"),
        pytest.param(lzma.compress(PLAIN)[:-9], "damaged or cut off", id="xz cut off"),
    ],
)  # fmt: skip
def test_refuses(read, content, message):
    with pytest.raises(InputError, match=message):
        read(content)


SHEET = "a spreadsheet .*save it as CSV"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 [Content_Types].xml PK\x03\x04 xl/workbook.xml", SHEET),
        (b"PK\x03\x04mimetypeapplication/vnd.oasis.opendocument.spreadsheet", SHEET),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", SHEET),
        (b"PK\x03\x04 [Content_Types].xml PK\x03\x04 word/document.xml", "save it as plain text"),
        (b"PK\x03\x04 rna.fasta", r"a zip archive: unpack it: unzip \S+in.fasta$"),
        (b"\0" * 257 + b"ustar", r"a tar archive: unpack it: tar -xf \S+in.fasta$"),
        (gzip.compress(b"\0" * 257 + b"ustar"), "a tar archive"),
        (b"\x28\xb5\x2f\xfd", "by zstd: unpack it: zstd -d "),
        (b"7z\xbc\xaf", "an archive: unpack it"),
        (b"\x1f\x9d\x90\x3e", r"compressed by compress \(.Z\) or lzma: unpack it"),
        (gzip.compress(bz2.compress(PLAIN)), "a file that was compressed twice"),
        (b"%PDF-1.4\n", "a PDF: copy the sequences into a text file"),
        (gzip.compress(b"BAM\x01"), r"aligned reads \(BAM\): samtools fasta "),
        (b"PAR1", "let its name end in .parquet"),
        (b"@r\nACGU\n+\nIIII\n", r"reads \(FASTQ\): awk "),
        (b"@HD\tVN:1.6\n", r"aligned reads \(SAM\): samtools fasta "),
        (b"LOCUS       RNA7\n", "GenBank record: .* SeqIO.convert.*'genbank'"),
        (b"ID   X5; SV 1\n", "EMBL record: .* SeqIO.convert.*'embl'"),
        (b"HEADER    RNA\n", "structure in space"),
        (b"<!DOCTYPE html>\n", "a page of the web"),
        (b'{"id": "a"}\n', "a file of JSON"),
        (b"id\tsequence\na\tACGU\n", "a table: predict and finetune read tables"),
        (b"# STOCKHOLM 1.0\na AC-GU\n", "an alignment: --degap reads"),
        (b"\nCLUSTAL W (1.8)\na AC-GU\n", "an alignment: --degap reads"),
    ],
)  # fmt: skip
def test_files_of_other_kinds_are_named_with_the_way_out(read, content, message):
    with pytest.raises(InputError, match=f"in.fasta: this is .*{message}"):
        read(content)


def test_the_command_that_makes_fasta_of_reads(tmp_path):
    path = tmp_path / "reads.fastq"
    path.write_text("@a 1\nACGU\n+\nIIII\n@b\nGG\n+a\n@@\n")
    with pytest.raises(InputError, match="reads") as error:
        list(read_fasta(path))
    command = str(error.value).partition("(FASTQ): ")[2]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    records = [FastaRecord("a", "ACGU", "1"), FastaRecord("b", "GG")]
    assert list(read_fasta(tmp_path / "rna.fasta")) == records


STOCKHOLM = b"""# STOCKHOLM 1.0
#=GF ID tiny
#=GS one DE first RNA

one AC-GU
two .NRY_
#=GC SS_cons <...>

one acgt
two N~--
//
"""
CLUSTAL = b"CLUSTAL W (1.83)\n\none AC-GU 4\ntwo -NRY-\n    *\n\none acgt 8\ntwo ---N 4\n"


@pytest.mark.parametrize(
    ("content", "description"),
    [
        (b">one first RNA\nAC-G.U\na~c_gt\n>two\n-NRYN-\n", "first RNA"),
        (b">one first RNA\nAC\n..\nGU\nac..gt\n......\n>two\nN.RY\nN...\n", "first RNA"),
        (STOCKHOLM, "first RNA"),
        (STOCKHOLM.replace(b"//\n", b""), "first RNA"),
        (CLUSTAL, ""),
    ],
)
def test_gaps_are_taken_out_on_request(read, content, description):
    expected = [FastaRecord("one", "ACGUacgt", description), RECORDS[1]]
    assert read(content, degap=True) == expected
    assert read(content, degap=True, keep_letters=False)[0].sequence == "ACGUACGU"


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b">a\nA-\n>b\n--\n", DEGAP, r"record 2 \(b\): it is empty"),
        (b"# STOCKHOLM 1.0\na AC GU\n", DEGAP, "line 2: expected a name and its row; .*'a AC GU'"),
        (b"CLUSTAL W\n\na AC\nb AC\n\na GU\n", DEGAP, "the row of b has 2 columns, the first 4"),
        (b">a\nAC GU\n", UNKNOWN, r"' ' at position 3"),
        (">a\nAC\u00a0GU\n".encode(), UNKNOWN, r"at position 3 .* but a blank"),
        (b">a\nAC<mask>\n", UNKNOWN, "letters only"),
        (b">a\nAC\tG\n", UNKNOWN, "letters only"),
    ],
)
def test_refuses_in_spite_of_options(read, content, options, message):
    with pytest.raises(InputError, match=message):
        read(content, **options)


def test_gaps_that_are_read_as_unknown_letters_count(read):
    with pytest.warns(UserWarning, match="gaps in 1 of 2 sequences .* positions count them"):
        assert read(b">a\nA-.C\n>b\nGG\n", unknown="unk")[0].sequence == "A-.C"


@pytest.mark.parametrize(
    "below",
    [
        b"(((..)))\n",
        b"........\n",
        b"(((..))) ( -4.10)\n(({..})) [ -5.0]\n frequency 0.5\n",
        b"(((.\n.)))\n",
        b"|xx..<>.\n",
        b"(((..)))\nEEEHHEEE\n",
    ],
)
def test_structures_below_sequences_are_passed_over(read, below):
    with pytest.warns(UserWarning, match="structures below 1 of the sequences .* first below one"):
        assert read(PLAIN.replace(b">two", below + b">two")) == RECORDS


@pytest.mark.parametrize("below", [b"(((..))\n", b"((..\n(("])
def test_what_is_below_a_sequence_and_no_structure_of_it(read, below):
    with pytest.raises(InputError, match=r"'\(' at position 9"):
        read(PLAIN.replace(b">two", below + b">two"))


@pytest.mark.parametrize("letters", ["ACPE*Z", "ACGÜ?1"])
def test_unknown_letters_on_request(read, letters):
    (record,) = read(f">a\n{letters}\n".encode(), unknown="unk")
    assert record.sequence == letters
    with pytest.raises(InputError, match="begins with #, as comments do"):
        list(check_records([FastaRecord("a", f"#{letters}")], "sequences", "unk"))


def test_a_wide_table_is_refused_at_once(read):
    start = time.monotonic()
    with pytest.raises(InputError, match="not a FASTA file"):
        read(b"gene" + b",x" * 20_000)
    assert time.monotonic() - start < 5  # It took 30 s.


def test_what_is_no_file(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"nowhere"):
        list(read_fasta(tmp_path / "nowhere.fasta"))
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        list(read_fasta(tmp_path))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        list(read_fasta("-"))


@pytest.mark.parametrize("place", range(0, 4000, 300))
def test_finds_an_id_however_far_back(place):
    records = [FastaRecord(f"id{number}", "A") for number in (*range(4000), place)]
    with pytest.raises(InputError, match=f"record 4001: .* the id 'id{place}'"):
        list(check_records(records, "sequences"))


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "in.fasta"
    path.write_text("".join(f">{number}\n{'ACGU' * 50}\n" for number in range(20_000)))
    records = read_fasta(path)
    tracemalloc.start()
    assert sum(1 for _ in records) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < path.stat().st_size  # 4 MB, of which a hash for each id is 2.2


def test_ids_take_little_memory():
    records = (FastaRecord(f"a_rather_long_id,_number_{number}", "A") for number in range(100_000))
    tracemalloc.start()
    checked = check_records(records, "sequences")
    for _ in range(100_000):
        next(checked)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 12_000_000  # A set of hashes; the ids alone would take as much again.
