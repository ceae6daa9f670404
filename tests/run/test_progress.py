"""The progress bar: what it counts, also in a resumed run, and when it is shown."""

import re

import pytest

from ernie_rna.run.progress import LOADING, Progress, show_loading
from ernie_rna.sequences.chunks import Piece, Plan
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.sequences.sources import survey

RECORDS = [FastaRecord(str(i), "A" * (10 + 50 * (i % 3))) for i in range(12)]
SIZE = survey(RECORDS)
PLAN = Plan(200, 48, chunk_tokens=300)


def passes(record, sequence):
    return [Piece(record, 0, len(sequence), p, p + 1) for p in range(len(sequence))]


def run_bar(capsys, plan=PLAN, skipped=0, show=True, size=SIZE):
    """Skip some chunks and compute the rest; return the bar, the rest and the last line drawn."""
    chunks = list(plan.chunks(RECORDS))
    bar = Progress(show, plan, size)
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
    """Chunks of an earlier run count as sequences done, but not towards the speed."""
    bar, computed, last = run_bar(capsys, plan, skipped)
    assert last.startswith("12 of 12 sequences, ")
    assert "100%" in last
    assert bar.done == pytest.approx(sum(chunk.share(chunk.pieces) for chunk in computed))
    pieces = [piece for chunk in computed for piece in chunk.pieces]
    assert bar.tokens - bar.padding == sum(piece.tokens for piece in pieces)
    assert bar.threads == (3 if computed else 1)


def test_without_a_total(capsys):
    bar, _, last = run_bar(capsys, size=None)
    assert "12 sequences, " in last
    assert (bar.tokens, bar.padding) == (sum(len(r.sequence) + 2 for r in RECORDS), 0)


def test_clears_its_line_for_other_output(capsys):
    bar = Progress(True, PLAN, SIZE)
    with bar.cleared():
        assert capsys.readouterr().err.endswith(" \r")
    assert "0%" in capsys.readouterr().err
    bar.close()


@pytest.mark.parametrize(("show", "shown"), [(True, True), (False, False), (None, False)])
def test_shown_on_a_terminal_or_on_request(show, shown, capsys, monkeypatch):
    for text in (LOADING, "comparing with FOLDER{1}"):
        with show_loading(show, text):
            assert (text in capsys.readouterr().err) == shown
        assert text not in capsys.readouterr().err
    assert (run_bar(capsys, skipped=1, show=show)[2] != "") == shown
    monkeypatch.setattr("sys.stderr", None)  # closed
    with show_loading(show):
        Progress(show, PLAN, SIZE).close()
