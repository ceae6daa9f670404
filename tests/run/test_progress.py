"""The progress bar: what it counts, and what it says of a run that is resumed."""

import re

import pytest

from ernie_rna.run.progress import LOADING, Progress, show_loading
from ernie_rna.sequences.chunks import Piece, Plan
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.sequences.sources import survey

RECORDS = [FastaRecord(str(i), "A" * (10 + 50 * (i % 3))) for i in range(12)]
FOUND = survey(RECORDS)
PLAN = Plan(200, 48)


@pytest.fixture
def chunk():
    (chunk,) = PLAN.chunks(RECORDS)
    return chunk


@pytest.fixture
def chunks():
    return list(Plan(200, 48, chunk_tokens=300).chunks(RECORDS))


def advance_all(bar, chunks):
    for chunk in chunks:
        for batch in range(len(chunk.batches)):
            bar.advance(chunk, batch)


def lines(capsys):
    return [line for line in re.split(r"[\r\n]+", capsys.readouterr().err) if line.strip()]


def bar_over(show, found=FOUND):
    return Progress(show, PLAN, found)


def test_counts_work_and_sequences(chunk, capsys):
    bar = bar_over(True)
    advance_all(bar, [chunk])
    bar.close()
    last = lines(capsys)[-1]
    assert last.startswith("12 of 12 sequences, ")
    assert "100%" in last
    assert bar.done == 12
    assert (bar.tokens, bar.padding) == (sum(len(r.sequence) + 2 for r in RECORDS), 0)


def test_what_was_there_does_not_count_as_speed(chunks, capsys):
    bar = bar_over(True)
    bar.skip(chunks[0])
    assert bar.done == 0
    advance_all(bar, chunks[1:])
    bar.close()
    assert bar.done == 12 - len(chunks[0].records)
    assert "12 of 12" in lines(capsys)[-1]


def test_without_a_total(chunk, capsys):
    bar = bar_over(True, None)
    advance_all(bar, [chunk])
    bar.close()
    assert "12 sequences, " in lines(capsys)[-1]


@pytest.mark.parametrize("show", [False, None])
def test_hidden(chunks, capsys, show):
    bar = bar_over(show)
    bar.skip(chunks[0])
    advance_all(bar, chunks[1:])
    bar.close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("skipped", [0, 1, 4])
def test_passes_over_parts_of_sequences(capsys, skipped):
    def passes(record, sequence):
        return [Piece(record, 0, len(sequence), p, p + 1) for p in range(len(sequence))]

    plan = Plan(200, 48, passes, 500, divides=True)
    chunks = list(plan.chunks(RECORDS))
    assert len(chunks) > len(RECORDS)
    bar = Progress(True, plan, FOUND)
    for chunk in chunks[:skipped]:
        bar.skip(chunk)
    advance_all(bar, chunks[skipped:])
    bar.close()
    last = lines(capsys)[-1]
    assert last.startswith("12 of 12 sequences, ")
    assert "100%" in last
    done = sum(chunk.share(chunk.pieces) for chunk in chunks[skipped:])
    assert bar.done == pytest.approx(done)


@pytest.mark.parametrize(("show", "shown"), [(True, True), (False, False), (None, False)])
def test_loading_is_shown_and_cleared(show, shown, capsys):
    with show_loading(show):
        assert (LOADING in capsys.readouterr().err) == shown
    assert LOADING not in capsys.readouterr().err
