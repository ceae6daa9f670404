"""Chunks, batches, and the windows of long sequences."""

from itertools import pairwise

import pytest
import torch

from ernie_rna.sequences import chunks as chunking
from ernie_rna.sequences.chunks import (
    Piece,
    Plan,
    check_overlap,
    count_padding,
    plan_batches,
    whole,
    windows,
    work,
)
from ernie_rna.sequences.fasta import FastaRecord


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
    assert [len(batch) for batch in plan_batches([100] * 50, 2048)] == [20, 20, 10]


@pytest.mark.parametrize(
    ("most", "sizes", "plan", "expected"),
    [
        (4096, [98] * 10, Plan(2048, 768, chunk_tokens=350), [3, 3, 3, 1]),
        (4096, [98], Plan(2048, 768, chunk_tokens=10), [1]),
        (4096, [98] * 650, Plan(2048, 768), [327, 323]),  # of 16 batches each
        (3, lengths(100, 200), Plan(64, 768), [3] * 33 + [1]),
        (4096, lengths(100, 200), Plan(640, 768), [98, 2]),
    ],
)
def test_chunks_end_at_a_number_of_records_or_tokens(monkeypatch, most, sizes, plan, expected):
    monkeypatch.setattr(chunking, "CHUNK_RECORDS", most)
    records = [FastaRecord(str(i), "A" * size) for i, size in enumerate(sizes)]
    chunks = list(plan.chunks(records))
    assert [len(chunk.records) for chunk in chunks] == expected
    assert [record for chunk in chunks for record in chunk.records] == records
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    for chunk in chunks:
        assert [piece.record for piece in chunk.pieces] == list(range(len(chunk.records)))
        assert chunk.share(chunk.pieces) == len(chunk.records)


def passes(record, sequence):
    """A piece for each letter but N."""
    places = (place for place, letter in enumerate(sequence) if letter != "N")
    return [Piece(record, 0, len(sequence), place, place + 1) for place in places]


@pytest.mark.parametrize("limit", [1, 13, 40, 41, 100, 10_000])
def test_the_pieces_of_a_sequence_may_be_divided(limit):
    records = [
        FastaRecord(str(i), letters) for i, letters in enumerate(("A" * 8, "NN", "ANA", "A" * 30))
    ]
    chunks = list(Plan(20, 768, passes, limit, divides=True).chunks(records))
    found = [
        (chunk.records[piece.record].id, piece.own_start)
        for chunk in chunks
        for piece in chunk.pieces
    ]
    assert found == [(r.id, piece.own_start) for r in records for piece in passes(0, r.sequence)]
    ids = [record.id for chunk in chunks for record in chunk.records]
    assert list(dict.fromkeys(ids)) == ["0", "1", "2", "3"]  # Without pieces it is there as well.
    assert all(len({*map(id, chunk.records)}) == len(chunk.records) for chunk in chunks)
    for chunk in chunks:
        tokens = sum(piece.tokens for piece in chunk.pieces)
        assert tokens <= limit or len(chunk.pieces) == 1
    whole_plan = list(Plan(20, 768, passes, limit).chunks(records))
    assert sum(len(chunk.records) for chunk in whole_plan) == 4


@pytest.mark.parametrize("length", [11, 12, 20, 37, 100, 101, 999])
@pytest.mark.parametrize("overlap", [0, 1, 4, 5, 9])
def test_windows_of_a_long_sequence(length, overlap):
    pieces = windows(0, length, 10, overlap)
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


def test_pieces_and_what_they_cost():
    assert windows(0, 10, 10, 0) == [Piece(0, 0, 10, 0, 10)]
    assert whole(7, "A" * 99) == [Piece(7, 0, 99, 0, 99)]
    assert whole(7, "A" * 99)[0].tokens == 101
    assert work(1024, 768) / 1024 == pytest.approx(1.33 * work(24, 768) / 24, rel=0.02)
    check_overlap(9, 10)
    with pytest.raises(ValueError, match="overlap must be below 10, the model's limit; got 10"):
        check_overlap(10, 10)
