"""Chunks and batches of records, and windows of long sequences."""

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


def random_lengths(count, limit):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, limit, (count,), generator=generator).tolist()


@pytest.mark.parametrize("batch_tokens", [1, 100, 2048, 16384])
@pytest.mark.parametrize("limit", [30, 1025, 5000])
def test_batches_have_little_padding_and_begin_with_the_longest(batch_tokens, limit):
    lengths = random_lengths(500, limit)
    batches = plan_batches(lengths, batch_tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(500))
    longest = [lengths[batch[0]] for batch in batches]
    assert longest == sorted(longest, reverse=True)
    for batch, first in zip(batches, longest, strict=True):
        tokens, padding = count_padding(lengths, [batch])
        assert padding <= 0.05 * tokens
        assert len(batch) == 1 or tokens * max(1, first / 1024) <= batch_tokens
    assert [len(batch) for batch in plan_batches([100] * 50, 2048)] == [20, 20, 10]


@pytest.mark.parametrize(
    ("max_records", "lengths", "plan", "expected"),
    [
        (4096, [98] * 10, Plan(2048, 768, chunk_tokens=350), [3, 3, 3, 1]),
        (4096, [98], Plan(2048, 768, chunk_tokens=10), [1]),
        (4096, [98] * 650, Plan(2048, 768), [327, 323]),  # of 16 batches each
        (3, random_lengths(100, 200), Plan(64, 768), [3] * 33 + [1]),
        (4096, random_lengths(100, 200), Plan(640, 768), [98, 2]),
    ],
)
def test_the_size_of_chunks_is_limited(monkeypatch, max_records, lengths, plan, expected):
    """A chunk ends at a number of records, tokens or batches."""
    monkeypatch.setattr(chunking, "CHUNK_RECORDS", max_records)
    records = [FastaRecord(str(i), "A" * length) for i, length in enumerate(lengths)]
    chunks = list(plan.chunks(records))
    assert [len(chunk.records) for chunk in chunks] == expected
    assert [record for chunk in chunks for record in chunk.records] == records
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    for chunk in chunks:
        assert [piece.record for piece in chunk.pieces] == list(range(len(chunk.records)))
        assert chunk.share(chunk.pieces) == len(chunk.records)


def passes(record, sequence):
    """A piece for each letter except N."""
    places = (place for place, letter in enumerate(sequence) if letter != "N")
    return [Piece(record, 0, len(sequence), place, place + 1) for place in places]


@pytest.mark.parametrize("limit", [1, 13, 40, 41, 100, 10_000])
def test_the_pieces_of_a_sequence_may_be_in_several_chunks(limit):
    sequences = ["A" * 8, "NN", "ANA", "A" * 30]
    records = [FastaRecord(str(i), sequence) for i, sequence in enumerate(sequences)]
    chunks = list(Plan(20, 768, passes, limit, divides=True).chunks(records))
    assert [
        (chunk.records[piece.record].id, piece.own_start)
        for chunk in chunks
        for piece in chunk.pieces
    ] == [(r.id, piece.own_start) for r in records for piece in passes(0, r.sequence)]
    ids = [record.id for chunk in chunks for record in chunk.records]
    assert list(dict.fromkeys(ids)) == ["0", "1", "2", "3"]  # also the record without pieces
    for chunk in chunks:
        assert len({id(record) for record in chunk.records}) == len(chunk.records)
        tokens = sum(piece.tokens for piece in chunk.pieces)
        assert tokens <= limit or len(chunk.pieces) == 1
    undivided = Plan(20, 768, passes, limit).chunks(records)
    assert sum(len(chunk.records) for chunk in undivided) == 4


@pytest.mark.parametrize("length", [11, 12, 20, 37, 100, 101, 999])
@pytest.mark.parametrize("overlap", [0, 1, 4, 5, 9])
def test_windows_of_a_long_sequence(length, overlap):
    pieces = windows(0, length, 10, overlap)
    assert pieces[0].start == 0
    assert pieces[-1].stop == length
    kept = [base for piece in pieces for base in range(piece.own_start, piece.own_stop)]
    assert kept == list(range(length))
    for piece in pieces:
        assert piece.stop - piece.start == 10
        assert piece.start <= piece.own_start < piece.own_stop <= piece.stop
    for left, right in pairwise(pieces):
        assert left.stop - right.start >= overlap

    def distance_to_edge(base, piece):  # The ends of the sequence do not count as edges.
        before = base - piece.start if piece.start else length
        after = piece.stop - 1 - base if piece.stop < length else length
        return min(before, after)

    for piece in pieces:
        for base in range(piece.own_start, piece.own_stop):
            containing = [other for other in pieces if other.start <= base < other.stop]
            best = max(distance_to_edge(base, other) for other in containing)
            assert distance_to_edge(base, piece) == best


def test_undivided_sequences_and_the_cost_of_tokens():
    assert windows(0, 10, 10, 0) == [Piece(0, 0, 10, 0, 10)]
    assert whole(7, "A" * 99) == [Piece(7, 0, 99, 0, 99)]
    assert whole(7, "A" * 99)[0].tokens == 101
    assert work(1024, 768) / 1024 == pytest.approx(1.33 * work(24, 768) / 24, rel=0.02)
    check_overlap(9, 10)
    with pytest.raises(ValueError, match="overlap must be below 10, the model's limit; got 10"):
        check_overlap(10, 10)
