"""Every reader on damaged files: a result or one of our errors, a few inputs here, many by `fuzz`.

`make fuzz` feeds each with 10,000 inputs and prints the table of docs/robustness.md. To look
at input 1234 of a finding: `next(reader.inputs(folder, 1234, 1235))`.
"""

import contextlib
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import campaign
from tests.fuzz.mutations import MAX_BYTES, MUTATIONS
from tests.fuzz.readers import READERS, Reader

_NEEDS = {"embeddings, .h5": "h5py", "embeddings, .parquet": "pyarrow"}
FEW, MANY = 12, 10_000

each_reader = pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)


@pytest.fixture(autouse=True)
def _extras(request):
    reader = request.getfixturevalue("reader") if "reader" in request.fixturenames else None
    for name, module in _NEEDS.items():
        if reader is not None and name in reader.name:
            pytest.importorskip(module)


@each_reader
def test_a_few_inputs(reader, tmp_path):
    seeds = reader.seeds(tmp_path)
    path = tmp_path / reader.file

    @settings(max_examples=FEW, deadline=None, derandomize=True, database=None)
    @given(st.randoms(use_true_random=False))
    def check(choices):
        path.write_bytes(reader.damage(choices, seeds))
        with contextlib.suppress(*reader.refuses):
            reader.read(path)

    check()


@each_reader
def test_real_files_are_read(reader, tmp_path):
    for seed in reader.seeds(tmp_path):
        (tmp_path / reader.file).write_bytes(seed)
        reader.read(tmp_path / reader.file)


@pytest.mark.fuzz
@each_reader
def test_many_inputs(reader, tmp_path, outcomes):
    outcome = campaign.run(reader, tmp_path, MANY)
    outcomes.append(outcome)
    assert outcome.inputs == MANY
    assert outcome.findings == []


# ---------------------------------------------------------------------------------------------
# The engine


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_mutation_is_its_seeds(mutation):
    data, others = b">a 12\nACGU 7\n>b\nAC\n" * 9, [b"other 3\n" * 5]
    damaged = [mutation(random.Random(seed), data, others) for seed in range(50)]
    assert damaged == [mutation(random.Random(seed), data, others) for seed in range(50)]
    assert len(set(damaged)) > 10
    assert all(len(found) <= 2 * MAX_BYTES for found in damaged)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_mutation_of_nothing(mutation):
    for seed in range(20):
        mutation(random.Random(seed), b"", [])


def _misbehave(path):
    number = int(path.read_bytes())
    if number == 1:
        raise KeyError("not ours")
    if number == 2:
        raise ValueError("ours")
    if number == 3:
        bytearray(1 << 40)
    if number == 4:
        os._exit(1)  # as a crash in a C library ends it
    if number == 5:
        while True:
            pass


class _Numbers(Reader):
    def inputs(self, folder, first, stop):
        return (str(number).encode() for number in range(first, stop))


def test_what_a_campaign_finds(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "SECONDS", 0.2)
    reader = _Numbers("misbehaving", "in", lambda folder: [], _misbehave, (ValueError,))
    outcome = campaign.run(reader, tmp_path, 7)
    assert (outcome.inputs, outcome.results, outcome.refused) == (7, 2, {"ValueError": 1})
    numbers, texts = zip(*outcome.findings, strict=True)
    assert numbers == (1, 3, 4, 5)
    for text, part in zip(
        texts, ("KeyError", "MemoryError", "died", "computes for more"), strict=True
    ):
        assert part in text
    assert "| misbehaving | 7 | 2 | 1 ValueError | 4 |" in campaign.table([outcome])
