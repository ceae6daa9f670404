"""The progress bar: what it counts, and what it says of a run that goes on."""

import re

import pytest
from ernie_rna.sequences.batches import Plan, work
from ernie_rna.sequences.survey import survey

from ernie_rna.run.progress import Progress
from ernie_rna.sequences.fasta import FastaRecord

RECORDS = [FastaRecord(str(i), "A" * (10 + 50 * (i % 3))) for i in range(12)]
FOUND = survey(RECORDS)


@pytest.fixture
def window():
    (window,) = Plan(200, 1022).windows(RECORDS)
    return window


@pytest.fixture
def windows():
    return list(Plan(200, 1022, window_tokens=300).windows(RECORDS))


def advance_all(bar, windows):
    for window in windows:
        for batch in range(len(window.batches)):
            bar.advance(window, batch)


def lines(capsys):
    return [line for line in re.split(r"[\r\n]+", capsys.readouterr().err) if line.strip()]


def bar_over(show, found=FOUND):
    return Progress(show, 48, found, lambda length: work(length + 2, 48))


def test_counts_work_and_sequences(window, capsys):
    bar = bar_over(True)
    advance_all(bar, [window])
    bar.close()
    last = lines(capsys)[-1]
    assert last.startswith("12 of 12 sequences, ")
    assert "100%" in last
    assert bar.done == 12
    assert (bar.tokens, bar.padding) == (sum(len(r.sequence) + 2 for r in RECORDS), 0)


def test_what_was_there_does_not_count_as_speed(windows, capsys):
    bar = bar_over(True)
    bar.skip(windows[0])
    assert (bar.done, bar.rate) == (0, 0)
    advance_all(bar, windows[1:])
    bar.close()
    assert bar.done == 12 - len(windows[0].records)
    assert "12 of 12" in lines(capsys)[-1]


def test_without_a_total(window, capsys):
    bar = bar_over(True, None)
    advance_all(bar, [window])
    bar.close()
    assert "12 sequences, " in lines(capsys)[-1]


@pytest.mark.parametrize("show", [False, None])
def test_hidden(windows, capsys, show):
    bar = bar_over(show)
    bar.skip(windows[0])
    advance_all(bar, windows[1:])
    bar.close()
    assert capsys.readouterr().err == ""
