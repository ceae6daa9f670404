"""FASTA files as people have them, and those that are refused."""

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
        pytest.param(PLAIN.replace(b">one", b">ENERGY = -5.4  one"), id="energy before the id"),
    ],
)
def test_variants_of_text_files(read, content):
    assert read(content) == RECORDS


def test_reads_an_open_file_and_standard_input(monkeypatch):
    content = gzip.compress(PLAIN)
    assert list(read_fasta(io.BytesIO(content))) == RECORDS
    with pytest.raises(InputError, match=r"^the input: it has no sequences$"):
        list(read_fasta(io.BytesIO(b"")))
    stdin = type("Input", (), {"buffer": io.BufferedReader(io.BytesIO(content))})
    monkeypatch.setattr(sys, "stdin", stdin)
    assert list(read_fasta("-")) == RECORDS


FIRST, SECOND = b">one first RNA\nACGU\n", b"acgt\n>two\nNRYN\n"


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress, gzip.compress])
@pytest.mark.parametrize("padding", [b"", b"\0" * 4, b"\0" * 200_000])
def test_all_streams_of_a_compressed_file_are_read(read, compress, padding):
    assert read(compress(PLAIN) + padding) == RECORDS
    assert read(compress(FIRST) + padding + compress(SECOND) + padding) == RECORDS


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress, gzip.compress])
def test_damaged_compressed_files_are_refused(read, compress):
    first, both = compress(FIRST), compress(PLAIN)
    second = (SECOND, b"\x01" + bz2.compress(SECOND), lzma.compress(SECOND)[:-9], b"BZh")
    damaged = (both[:-9], both[:10] + b"\xff" * 40, both[:-5] + bytes(5))
    for content in (*(first + rest for rest in second), *damaged):
        with pytest.raises(InputError, match=r"in.fasta: damaged or cut off: "):
            read(content)


def test_text_is_utf8_in_any_locale(tmp_path):
    (tmp_path / "in.fasta").write_text(">é1 RNÄ\nACéGU\n", encoding="utf-8")
    locale = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = "import ernie_rna.sequences.fasta as f; print(ascii([*f.read_fasta('in.fasta', 'unk')]))"
    env = {**os.environ, **locale, "PYTHONPATH": str(ROOT)}
    printed = subprocess.check_output(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, text=True
    )
    assert printed.strip() == ascii([FastaRecord("é1", "ACéGU", "RNÄ")])


def test_reads_every_code_of_the_vocabulary_and_long_lines(read):
    codes = "ACGUTNYRSKWMDHVBXI"
    letters = [token for token in VOCABULARY if len(token) == 1]
    assert sorted(LETTERS) == sorted(codes) == sorted([*letters, "T"])
    long = (codes + codes.lower()) * 30_000
    assert read(f">long\n{long}\n".encode()) == [FastaRecord("long", long)]


SHEET = "in.fasta: this is a spreadsheet .*save it as CSV"
REFUSED = [
    (b"", "in.fasta: it has no sequences"),
    (b"\n# nothing\n", "it has no sequences"),
    (b"ACGU\n", "not a FASTA file: line 1 must .*'ACGU'"),
    (b"#\n\nACGU\n>a\nAC", "line 3 must begin with '>', not 'ACGU'"),
    (b">a\n#AC\n", r"record 1 \(a\): it is empty"),
    (b">a\nAC\n>b\n\n \n>c\nAC\n", r"record 2 \(b\): it is empty"),
    (b">a\nAC\n>b", r"record 2 \(b\): it is empty"),
    (b">a\nAC\n> \nAC\n", r"record 2 \(no id\): its header has no id"),
    (b">a x\nA\n>b\nA\n>a y\nC\n", "record 3: .* 'a' .* _ in place"),
    # Letters
    (b">p\nMKTAYIAKQRQIS", r"\(p\): it looks like a protein: .* 'Q'"),
    (b">a\n" + b"ACGU" * 9 + b"E", "'E' at position 37 is not a nucleotide .*; --unknown unk"),
    (">a\nACGÜ\n".encode(), r"\(a\): 'Ü' at position 4"),
    (b">a\nACGU*", r"\(a\): '\*' at position 5 is not a nucleotide"),
    (b">a\nAC-GU\n", "'-' at position 3 .* remove the gaps; --degap"),
    (b">a\nACGG\nA..U\nAC..\n", "'.' at position 6 .* gap of an alignment"),
    (b">a\nAC\n..\nGU\n", "'.' at position 3 .* gap of an alignment"),
    (b">a\nAC>b\nAC", "'>' at position 3 .*only letters"),
    (b">a\nACGU ACGU\n", "' ' at position 5 .*only letters"),
    (b">a\n1 ACGU\n", "'1' at position 1 .*only letters"),
    (b">a\nACG<mask>U\n", "'<' at position 4 .*only letters"),
    (b">a\nACGUacgt\n(((..))\n", r"'\(' at position 9"),
    (b">a\nACGUacgt\n((..\n((", r"'\(' at position 9"),
    (b">a\nACGU\n(..)\nACGU\n", "in.fasta: a: 'ACGU', below a structure, has more of a sequence"),
    (b">a\nGGGG\n((..\nCC-C\n..))\n", "'CC-C', below a structure, has more"),
    (b">a\nACGU\n(..) (-1.2)\n(..)\nAC GU 12\n", "'AC GU 12', below a structure, has more"),
    (b">a\nACGU\n(..) ACGU\n", r"'\(..\) ACGU', below a structure, has more"),
    # Lines of text
    (b">a\nAC\n>b\nAC\x00GU\n", "line 4: control character 0x00"),
    (b">a\r\nAC\r>b\nAC\x0bGU", "line 4: control character 0x0b"),
    (PLAIN.decode().encode("utf-16-le"), "line 1: .*UTF-16"),
    (b">a\r\nAC\r>b M\xfc", "line 3: .* not UTF-8: save the file"),
    (b">" + b"a" * 70_000 + b"\n\xff", "line 2: text that"),
    (b">a\nAC\n>b M\xc3", "line 3: text that"),  # The text ends within a letter.
    # Files of other kinds
    (b"PK\x03\x04 [Content_Types].xml PK\x03\x04 xl/workbook.xml", SHEET),
    (b"PK\x03\x04mimetypeapplication/vnd.oasis.opendocument.spreadsheet", SHEET),
    (b"\xd0\xcf\x11\xe0\xa1\xb1", SHEET),
    (b"PK\x03\x04 [Content_Types].xml PK\x03\x04 word/document.xml", "save it as plain text"),
    (b"PK\x03\x04 rna.fasta", r"this is a zip archive: unpack it: unzip \S+in.fasta$"),
    (b"\0" * 257 + b"ustar", r"a tar archive: unpack it: tar -xf \S+in.fasta$"),
    (gzip.compress(b"\0" * 257 + b"ustar"), "a tar archive"),
    (b"\x28\xb5\x2f\xfd", "with zstd: unpack it: zstd -d "),
    (b"7z\xbc\xaf", "a file of 7-Zip, .*: unpack it"),
    (b"\x1f\x9d\x90\x3e", r"compress \(.Z\) or lzma: unpack it"),
    (gzip.compress(bz2.compress(PLAIN)), "a file that was compressed twice"),
    (b"%PDF-1.4\n", "a PDF: copy the sequences into a text file"),
    (gzip.compress(b"BAM\x01"), r"aligned reads \(BAM\): samtools fasta "),
    (b"PAR1", "a name that ends in .parquet"),
    (b"@r\nACGU\n+\nIIII\n", r"reads \(FASTQ\): awk "),
    (b"@HD\tVN:1.6\n", r"aligned reads \(SAM\): samtools fasta "),
    (b"LOCUS       RNA7\n", "GenBank record: .* SeqIO.convert.*'genbank'"),
    (b"ID   X5; SV 1\n", "EMBL record: .* SeqIO.convert.*'embl'"),
    (b"HEADER    RNA\n", "3D structure"),
    (b"<!DOCTYPE html>\n", "a web page"),
    (b'{"id": "a"}\n', "a JSON file"),
    (b"id\tsequence\na\tACGU\n", "a table: predict and finetune read tables"),
    (b"# STOCKHOLM 1.0\na AC-GU\n", "this is an alignment: .*; --degap reads it"),
    (b"\nCLUSTAL W (1.8)\na AC-GU\n", "this is an alignment: .*; --degap reads it"),
    # Refused despite options
    (b">a\nA-\n>b\n--\n", r"record 2 \(b\): it is empty", DEGAP),
    (b"# STOCKHOLM 1.0\na AC GU\n", "line 2: expected a name and its row; .*'a AC GU'", DEGAP),
    (b"# STOCKHOLM 1.0\na AC\n//\n# STOCKHOLM 1.0\nb AC\n", "cut off: a Stockholm", DEGAP),
    (b"# STOCKHOLM 1.0\na AC\n", "cut off: a Stockholm alignment must end with a line //", DEGAP),
    (b"CLUSTAL W\n\na AC\nb AC\n\na GU\n", "the row of b has 2 columns, the first 4", DEGAP),
    (b">a\nAC GU\n", r"' ' at position 3", UNKNOWN),
    (">a\nAC\u00a0GU\n".encode(), r"at position 3 .*only letters", UNKNOWN),
    (b">a\nAC<mask>\n", "only letters", UNKNOWN),
    (b">a\nAC\tG\n", "only letters", UNKNOWN),
]  # fmt: skip


@pytest.mark.parametrize("refused", REFUSED)
def test_refuses(read, refused):
    content, message, *options = refused
    with pytest.raises(InputError, match=message):
        read(content, **dict(*options))


def test_the_command_that_converts_fastq_to_fasta(tmp_path):
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
        (CLUSTAL, ""),
    ],
)
def test_gaps_are_removed_on_request(read, content, description):
    expected = [FastaRecord("one", "ACGUacgt", description), RECORDS[1]]
    assert read(content, degap=True) == expected
    assert read(content, degap=True, keep_letters=False)[0].sequence == "ACGUACGU"


def test_a_line_of_gaps_in_an_alignment_is_not_a_structure(read, recwarn):
    assert read(b">a\nACGU\n....\n>b\nAC-U\n..-.\n", degap=True)[0].sequence == "ACGU"
    assert not recwarn
    with pytest.warns(UserWarning, match="structures below 1 of the sequences are ignored"):
        read(b">a\nACGU\n....\n>b\nACGU\n(..)\n", degap=True)


def test_gaps_kept_as_unknown_letters_cause_a_warning(read):
    with pytest.warns(UserWarning, match="gaps in 2 of 3 sequences .* positions count them"):
        assert read(b">a\nA-C\n>b\nA.G\n>c\nGG", unknown="unk")[0].sequence == "A-C"


@pytest.mark.parametrize(
    "below",
    [
        b"(((..)))\n",
        b"........\n",
        b"(((..))) ( -4.10)\n(({..})) [ -5.0]\n frequency 0.5\n",
        b"(((.\n.)))\n",
        b"|xx..<>.\n",
        b"(((..))) ( -4.10 = -3.10 + -1.00)\n{((..,)) [ -4.5]\n(((..))) { -4.10 d=0.52}\n"
        b" free energy of ensemble = -4.50 kcal/mol\n"
        b" frequency of mfe structure in ensemble 0.85; ensemble diversity 0.9\n",
        b"(((..)))\t-4.1 p=1e-2\n(-4.10)\n",
        b"(((..)))\n minimum free energy =  -5.40 kcal/mol\n",  # RNAfold on a terminal
        b"(((..))) (confidence=0.61) 61 %\nEEEHHEEE\n//\n",
    ],
)
def test_structures_below_sequences_are_ignored_with_a_warning(read, below):
    with pytest.warns(UserWarning, match="structures below 1 of the sequences .* first below one"):
        assert read(PLAIN.replace(b">two", below + b">two")) == RECORDS


def test_unknown_letters_are_read_on_request(read):
    (record,) = read(">a\nACPE*Z\nGÜ?1\n".encode(), unknown="unk")
    assert record.sequence == "ACPE*ZGÜ?1"
    with pytest.raises(InputError, match="begins with #, as comments do"):
        list(check_records([FastaRecord("a", "#ACGU")], "sequences", "unk"))


def test_a_wide_table_is_refused_quickly(read):
    start = time.monotonic()
    with pytest.raises(InputError, match="not a FASTA file"):
        read(b"gene" + b",x" * 20_000)
    assert time.monotonic() - start < 5  # It once took 30 s.


def test_missing_files_folders_and_closed_standard_input(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"nowhere"):
        list(read_fasta(tmp_path / "nowhere.fasta"))
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        list(read_fasta(tmp_path))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        list(read_fasta("-"))


@pytest.mark.parametrize("place", [0, 1700, 3999])
def test_finds_a_repeated_id_at_any_distance(place):
    records = [FastaRecord(f"id{number}", "A") for number in (*range(4000), place)]
    with pytest.raises(InputError, match=f"record 4001: .* the id 'id{place}'"):
        list(check_records(records, "sequences"))


def test_only_a_hash_of_each_id_stays_in_memory(tmp_path):
    path = tmp_path / "in.fasta"
    ids = [f"a_rather_long_id,_number_{number}" for number in range(20_000)]
    path.write_text("".join(f">{id}\n{'ACGU' * 50}\n" for id in ids))
    del ids
    records = read_fasta(path)
    tracemalloc.start()
    next(records)
    before, _ = tracemalloc.get_traced_memory()
    assert sum(1 for _ in records) == 19_999
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < 3_800_000  # the set and its integers; the ids would take 0.9 MB more


def test_an_energy_without_a_name_is_the_id(read):
    assert read(b">ENERGY = -5.4\nACGU\n")[0].id == "ENERGY"
