"""The progress bar: what it counts, and what it says of a run that is resumed."""

import re

import pytest

from ernie_rna.run.progress import LOADING, Progress, show_loading
from ernie_rna.sequences.chunks import Piece, Plan
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.sequences.sources import survey

RECORDS = [FastaRecord(str(i), "A" * (10 + 50 * (i % 3))) for i in range(12)]
FOUND = survey(RECORDS)
PLAN = Plan(200, 48, chunk_tokens=300)


def passes(record, sequence):
    return [Piece(record, 0, len(sequence), p, p + 1) for p in range(len(sequence))]


def go(capsys, plan=PLAN, skipped=0, show=True, found=FOUND):
    """The bar when all chunks but the first few were computed, those, and the last line drawn."""
    chunks = list(plan.chunks(RECORDS))
    bar = Progress(show, plan, found)
    for chunk in chunks[:skipped]:
        bar.skip(chunk)
    for chunk in chunks[skipped:]:
        for number in range(len(chunk.batches)):
            bar.advance(chunk, chunk.batch(number), 3)
    bar.close()
    lines = re.split(r"[\r\n]+", capsys.readouterr().err)
    return bar, chunks[skipped:], next((line for line in lines[::-1] if line.strip()), "")


@pytest.mark.parametrize("plan", [PLAN, Plan(200, 48, passes, 500, divides=True)])
@pytest.mark.parametrize("skipped", [0, 1, 4])
def test_counts_work_and_sequences(capsys, plan, skipped):
    """What was there counts as seen, and not as speed."""
    bar, computed, last = go(capsys, plan, skipped)
    assert last.startswith("12 of 12 sequences, ")
    assert "100%" in last
    assert bar.done == pytest.approx(sum(chunk.share(chunk.pieces) for chunk in computed))
    pieces = [piece for chunk in computed for piece in chunk.pieces]
    assert bar.tokens - bar.padding == sum(piece.tokens for piece in pieces)
    assert bar.threads == (3 if computed else 1)


def test_without_a_total(capsys):
    bar, _, last = go(capsys, found=None)
    assert "12 sequences, " in last
    assert (bar.tokens, bar.padding) == (sum(len(r.sequence) + 2 for r in RECORDS), 0)


def test_leaves_the_line_to_what_is_printed(capsys):
    bar = Progress(True, PLAN, FOUND)
    with bar.cleared():
        assert capsys.readouterr().err.endswith(" \r")
    assert "0%" in capsys.readouterr().err
    bar.close()


@pytest.mark.parametrize(("show", "shown"), [(True, True), (False, False), (None, False)])
def test_shown_on_a_terminal_or_if_asked_for(show, shown, capsys, monkeypatch):
    for text in (LOADING, "comparing with FOLDER{1}"):
        with show_loading(show, text):
            assert (text in capsys.readouterr().err) == shown
        assert text not in capsys.readouterr().err
    assert (go(capsys, skipped=1, show=show)[2] != "") == shown
    monkeypatch.setattr("sys.stderr", None)  # closed
    with show_loading(show):
        Progress(show, PLAN, FOUND).close()
