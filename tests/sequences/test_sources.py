"""Sources of sequences, the survey of an input, and sequences that are too long."""

import gzip
import os
import threading
import warnings

import pytest

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.sequences.fasta import FastaRecord, InputError, read_fasta
from ernie_rna.sequences.sources import as_source, check_lengths, short_enough, survey

RNAS = {"short": "ACGU", "big": "A" * 1023, "bigger": "A" * 2000}
CONFIG = ErnieRnaConfig()
WINDOW = "--long window divides each into windows, "
FULL = "--long full computes each as a whole"


@pytest.mark.parametrize(
    ("choices", "advice"), [(("error", "window", "full"), WINDOW + FULL), (("error", "full"), FULL)]
)
def test_long_sequences_are_named(choices, advice):
    records = as_source(RNAS).read
    names = r"2 of 3 sequences .* 1022 nt, .*: bigger \(2000 nt\), big \(1023 nt\)\. "
    with pytest.raises(InputError, match=f"^{names}{advice}$"):
        check_lengths(survey(records()), CONFIG, "error", choices)
    read_once = short_enough(records(), CONFIG, "error", choices)
    assert next(read_once).id == "short"
    with pytest.raises(InputError, match=rf" 1022 nt, .*: big \(1023 nt\)\. {advice}$"):
        next(read_once)
    with pytest.warns(UserWarning, match=r"2 of 3 .* the first take 0.2 GB"):
        check_lengths(survey(records()), CONFIG, "full", choices)
    check_lengths(survey(records()), CONFIG, "window", choices)
    for long in ("window", "full"):
        kept = short_enough(records(), CONFIG, long, choices)
        assert [record.id for record in kept] == list(RNAS)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (None, "record 2: expected a sequence, or an id and a sequence, as text; got None"),
        ({"id": "a", "sequence": "ACGU"}, "record 2: expected .*; got {'id'"),
        (("a",), r"record 2: expected .*; got \('a',\)"),
        (("a", float("nan")), r"record 2: expected .*; got \('a', nan\)"),
        (("a", b"ACGU"), r"record 2: expected .*; got \('a', b'ACGU'\)"),
        ((7, "ACGU"), r"record 2: expected .*; got \(7, 'ACGU'\)"),
        ((" a", "ACGU"), "the id ' a' has blanks in it; give a single word"),
        (("a\nb", "ACGU"), "has blanks in it; give a single word"),
        (("a\0", "ACGU"), r"'a\\x00': '\\x00' is not a character of text"),
        (("a\ud800", "ACGU"), r"'\\ud800' is not a character of text"),
        (("a", "ACGU\ud800"), r"'\\ud800' is not a character of text"),
        (FastaRecord("a", "ACGU", "of\n>another"), r"'\\n' is not a character of text"),
        (FastaRecord("a", "ACGU", None), "record 2: expected a sequence"),
    ],
)
def test_invalid_records_are_named(item, message):
    with pytest.raises(InputError, match=f"^sequences: .*{message}"):
        survey(as_source(["ACGU", item], "unk").read())


@pytest.mark.parametrize("given", [None, 3, type("Table", (list,), {"columns": []})()])
def test_what_is_no_collection_of_records_is_refused(given):
    with pytest.raises(InputError, match=f"must be a file, .*; got {type(given).__name__}$"):
        as_source(given)


@pytest.mark.parametrize(
    ("sequences", "once"),
    [
        pytest.param({"0": "ACGU", "1": "GG"}, False, id="mapping"),
        pytest.param(["ACGU", "GG"], False, id="list"),
        pytest.param([("0", "ACGU"), ("1", "GG")], False, id="pairs"),
        pytest.param(iter([FastaRecord("0", "ACGU"), FastaRecord("1", "GG")]), True, id="iterator"),
    ],
)
def test_python_objects_as_sources(sequences, once):
    source = as_source(sequences)
    assert source.once == once
    assert as_source(source) is source
    assert [*source.read()] == [FastaRecord("0", "ACGU"), FastaRecord("1", "GG")]


def test_a_sequence_instead_of_the_name_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [*as_source("GGggAAtT").read()] == [FastaRecord("RNA", "GGGGAAUU")]
    assert [*as_source("GA" * 300).read()] == [FastaRecord("RNA", "GA" * 300)]
    assert not as_source("GGAA").once
    (tmp_path / "GGAA").write_text(">a\nCC\n")
    assert [*as_source("GGAA").read()] == [FastaRecord("a", "CC")]
    with pytest.raises(InputError, match=r"^rna: there is no such file; .* A, C, G, U, T and N"):
        as_source("rna")
    with pytest.raises(FileNotFoundError):
        survey(as_source("rna.fasta").read())


def test_each_source_warns_once_although_it_is_read_twice(tmp_path):
    (tmp_path / "in.fasta").write_text(">a\nGAAC\n(..)\n>b\nG-C\n")
    for _ in range(2):
        source = as_source(tmp_path / "in.fasta", "unk")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                assert [record.sequence for record in source.read()] == ["GAAC", "G-C"]
        starts = [str(warning.message).split(": ")[1][:10] for warning in caught]
        assert starts == ["the struct", "gaps in 1 "]


def test_letters_become_those_of_rna_unless_they_are_kept():
    records = [("a", "acgTn-é")]
    assert next(as_source(records, "unk").read()).sequence == "ACGUN-é"
    assert next(as_source(records, "unk", keep_letters=True).read()).sequence == "acgTn-é"
    assert next(as_source(records, "unk", degap=True).read()).sequence == "ACGUNé"


def test_sources_that_can_be_read_once_are_copied(tmp_path):
    records = [FastaRecord("a", "AC?U", " the  first, Ä \t"), FastaRecord("b", "GG")]
    expected = [FastaRecord("a", "AC?U", "the  first, Ä"), records[1]]
    kept = as_source(iter(records), "unk").kept_in(tmp_path / "kept.fasta")
    with (
        as_source(iter(records), "unk").readable_twice() as from_iterator,
        as_source(records, "unk").readable_twice() as from_list,
    ):
        for source in (kept, from_iterator, from_list):
            assert [[*source.read()] for _ in range(2)] == [expected, expected]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are those of Unix")
def test_a_pipe_is_read_once(tmp_path):
    pipe = tmp_path / "rna.fasta"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(">a\nACGU\n>b\nGG\n",))
    writer.start()
    with as_source(pipe).readable_twice() as source:
        writer.join()
        assert survey(source.read()).records == 2


def test_the_survey_counts_and_hashes_records(tmp_path):
    path = tmp_path / "in.fasta"
    plain = b">one first RNA\nACGU\nacgt\n>two\nNRYN\n"

    def survey_of(content):
        path.write_bytes(content)
        return survey(read_fasta(path))

    result = survey_of(plain)
    assert (result.records, result.nucleotides) == (2, 12)
    assert result.lengths == {8: 1, 4: 1}
    assert result.longest == ((8, "one"), (4, "two"))
    assert survey_of(gzip.compress(plain)).sha256 == result.sha256
    for old, new in ((b">two", b">three"), (b"first", b"second"), (b"NRYN", b"NRYA")):
        assert survey_of(plain.replace(old, new)).sha256 != result.sha256
    many = survey(as_source([(f"r{i:02}", "A" * (i % 9 + 1)) for i in range(90)]).read())
    assert many.longest == tuple((9, f"r{i}") for i in (89, 80, 71, 62, 53))


@pytest.fixture
def parquet(tmp_path):
    """A function that writes columns to a file in.parquet and returns its path."""
    pyarrow = pytest.importorskip("pyarrow")
    write_table = pytest.importorskip("pyarrow.parquet").write_table
    path = tmp_path / "in.parquet"
    return lambda columns: write_table(pyarrow.table(columns), path, row_group_size=999) or path


def test_parquet_is_read(parquet):
    ids = [str(row) for row in range(5000)]
    path = parquet({"more": range(5000), "sequence": ["ACGU"] * 5000, "id": ids})
    source = as_source(path)
    assert [[*source.read()] for _ in range(2)] == [[FastaRecord(id, "ACGU") for id in ids]] * 2
    assert not source.once


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a", "b"]}, "no column sequence; it has id"),
        ({"id": ["a", None], "sequence": ["A", "C"]}, r"expected a sequence.*; got \(None, 'C'\)"),
        ({"id": ["a", "a"], "sequence": ["A", "C"]}, "record 2: an earlier record has the id 'a'"),
        (
            {"id": [*map(str, range(1500))], "sequence": ["A"] * 1499 + [None]},
            "record 1500: expected",
        ),
        ({"id": ["a", "b"], "sequence": ["A", "E"]}, "looks like a protein"),
        ({"id": [], "sequence": []}, "it has no sequences"),
    ],
)
def test_parquet_is_checked_as_fasta_is(parquet, columns, message):
    with pytest.raises(InputError, match=rf"^.*in\.parquet: .*{message}"):
        survey(as_source(parquet(columns)).read())


def test_damaged_parquet_is_an_input_error(parquet):
    path = parquet({"id": ["a", "b"], "sequence": ["ACGU", "GGGG"]})
    content = path.read_bytes()
    refused = 0
    for i in range(0, len(content), 7):
        path.write_bytes(content[:i] + bytes([content[i] ^ 0xFF]) + content[i + 1 :])
        try:
            survey(as_source(path).read())
        except InputError:
            refused += 1
    assert refused > 20
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"in\.parquet: damaged, or not Parquet"):
        survey(as_source(path).read())
    path.unlink()
    with pytest.raises(FileNotFoundError):
        survey(as_source(path).read())
