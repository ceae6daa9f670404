"""Windows, batches and the pieces of long sequences."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from ernie_rna.sequences import batches as batching
from ernie_rna.sequences.batches import Plan, count_padding, plan_batches, work
from ernie_rna.sequences.fasta import FastaRecord, read_fasta
from ernie_rna.sequences.long import split

DATA = Path(__file__).parents[3] / "shared/data/throughput/throughput_mixed.fasta"


def lengths(count, top, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, top, (count,), generator=generator).tolist()


@pytest.mark.parametrize("batch_tokens", [1, 100, 2048, 16384])
@pytest.mark.parametrize("top", [30, 1025, 5000])
def test_batches(batch_tokens, top):
    sizes = lengths(500, top)
    batches = plan_batches(sizes, batch_tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(500))
    longest = [sizes[batch[0]] for batch in batches]
    assert longest == sorted(longest, reverse=True)
    for batch in batches:
        tokens, padding = count_padding(sizes, [batch])
        assert padding <= 0.05 * tokens
        first = sizes[batch[0]]
        assert len(batch) == 1 or tokens * max(1, first / 1024) <= batch_tokens


def test_batches_are_full_where_lengths_agree():
    assert [len(batch) for batch in plan_batches([100] * 50, 2048)] == [20, 20, 10]


@pytest.mark.parametrize("window_records", [3, 4096])
def test_windows_keep_the_order(monkeypatch, window_records):
    monkeypatch.setattr(batching, "WINDOW_RECORDS", window_records)
    records = [FastaRecord(str(i), "A" * size) for i, size in enumerate(lengths(100, 200))]
    windows = list(Plan(64, 1022).windows(records))
    assert [record for window in windows for record in window.records] == records
    assert [window.number for window in windows] == list(range(len(windows)))
    assert max(len(window.records) for window in windows) <= window_records
    for window in windows:
        assert [piece.record for piece in window.pieces] == list(range(len(window.records)))


def test_windows_end_at_a_number_of_tokens():
    records = [FastaRecord(str(i), "A" * 98) for i in range(10)]
    windows = Plan(2048, 1022, window_tokens=350).windows(records)
    assert [len(window.records) for window in windows] == [3, 3, 3, 1]
    (window,) = Plan(2048, 1022, window_tokens=10).windows(records[:1])
    assert len(window.records) == 1


@pytest.mark.parametrize("length", [11, 12, 20, 37, 100, 101, 999])
@pytest.mark.parametrize("overlap", [0, 1, 4, 5, 9])
def test_pieces_of_a_long_sequence(length, overlap):
    pieces = split(0, length, 10, "window", overlap)
    assert pieces[0].start == 0
    assert pieces[-1].stop == length
    kept = [at for piece in pieces for at in range(piece.own_start, piece.own_stop)]
    assert kept == list(range(length))
    for piece in pieces:
        assert piece.stop - piece.start == 10
        assert piece.start <= piece.own_start < piece.own_stop <= piece.stop
    for left, right in pairwise(pieces):
        assert left.stop - right.start >= overlap

    def from_edge(at, piece):  # The ends of the sequence are no edges.
        before = at - piece.start if piece.start else length
        after = piece.stop - 1 - at if piece.stop < length else length
        return min(before, after)

    for piece in pieces:
        for at in range(piece.own_start, piece.own_stop):
            best = max(from_edge(at, other) for other in pieces if other.start <= at < other.stop)
            assert from_edge(at, piece) == best


def test_pieces_otherwise():
    assert len(split(0, 10, 10, "error", 0)) == 1
    (piece,) = split(7, 99, 10, "full", 0)
    assert (piece.record, piece.start, piece.stop, piece.tokens) == (7, 0, 99, 101)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("error", 0), "11 nt, over the limit of 10"),
        (("cut", 0), "long must be one of error, window, full; got 'cut'"),
        (("window", 10), "overlap must be at least 0 and below 10; got 10"),
        (("window", -1), "overlap must be at least 0 and below 10; got -1"),
    ],
)
def test_split_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        split(0, 11, 10, *arguments)


def test_work_grows_faster_than_length():
    assert work(1024, 768) / 1024 == pytest.approx(1.33 * work(24, 768) / 24, rel=0.02)


@pytest.mark.skipif(not DATA.exists(), reason="the throughput set is not here")
@pytest.mark.parametrize("batch_tokens", [2048, 16384])
@pytest.mark.parametrize("long", ["window", "full", "at most 1022 nt"])
def test_padding_on_real_sequences(batch_tokens, long):
    pytest.importorskip("dnaio")
    records = read_fasta(DATA)
    if long == "at most 1022 nt":
        records, long = (record for record in records if len(record.sequence) <= 1022), "error"
    total = padding = 0
    for window in Plan(batch_tokens, 1022, long).windows(records):
        more = count_padding([piece.tokens for piece in window.pieces], window.batches)
        total, padding = total + more[0], padding + more[1]
    assert padding < 0.05 * total


def test_windows_are_enough_for_several_processes():
    records = [FastaRecord(str(i), "A" * 98) for i in range(4000)]
    windows = list(Plan(2048, 1022).windows(records))
    assert 12 <= len(windows) <= 16
    assert [record for window in windows for record in window.records] == records
