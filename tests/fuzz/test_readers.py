"""Every reader returns a result or raises one of its documented errors on damaged files.

The default tests use a few damaged files. `make fuzz` uses 10,000 for each reader and prints the
table of docs/robustness.md. `next(reader.inputs(folder, 1234, 1235))` returns input 1234.
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

FEW, MANY = 12, 10_000


@pytest.fixture(params=READERS, ids=lambda reader: reader.name)
def reader(request) -> Reader:
    for suffix, module in {".h5": "h5py", ".parquet": "pyarrow"}.items():
        if request.param.file.endswith(suffix):
            pytest.importorskip(module)
    return request.param


def test_real_files_are_read_and_a_few_damaged_ones(reader, tmp_path):
    path = tmp_path / reader.file
    seeds = reader.seeds(path)
    for seed in seeds:
        path.write_bytes(seed)
        reader.read(path)

    @settings(max_examples=FEW, deadline=None, derandomize=True, database=None)
    @given(st.randoms(use_true_random=False))
    def check(choices):
        path.write_bytes(reader.damage(choices, seeds))
        with contextlib.suppress(*reader.refuses):
            reader.read(path)

    check()


@pytest.fixture(scope="module")
def outcomes(pytestconfig):
    """A list of the outcomes of all readers, which is printed as a table at the end."""
    all_outcomes: list[campaign.Outcome] = []
    yield all_outcomes
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{campaign.table(all_outcomes)}")


@pytest.mark.fuzz
def test_many_damaged_files(reader, tmp_path, outcomes):
    outcome = campaign.run(reader, tmp_path, MANY)
    outcomes.append(outcome)
    assert outcome.inputs == MANY
    assert outcome.findings == []


# ---------------------------------------------------------------------------------------------
# Tests of the campaign itself


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_mutation_depends_on_its_seed_alone(mutation):
    data, others = b">a 12\nACGU 7\n>b\nAC\n" * 9, [b"other 3\n" * 5]
    damaged = [mutation(random.Random(seed), data, others) for seed in range(50)]
    assert damaged == [mutation(random.Random(seed), data, others) for seed in range(50)]
    assert len(set(damaged)) > 10
    assert all(len(content) <= 2 * MAX_BYTES for content in damaged)
    for seed in range(20):
        mutation(random.Random(seed), b"", [])


# Number in the file -> what its reader does, and words of the finding.
MISBEHAVIOUR = {
    1: (lambda: {}["undocumented"], "KeyError"),
    2: (lambda: bytearray(1 << 40), "MemoryError"),
    3: (lambda: os._exit(1), "died"),  # like a crash in a C library
    4: (lambda: all(number == 0 for number in iter(int, 1)), "computes for more"),  # never ends
    5: (lambda: int("documented"), None),  # a ValueError, which is no finding
}


def _misbehave(path):
    MISBEHAVIOUR.get(int(path.read_bytes()), [bool])[0]()


class _NumberReader(Reader):
    """A reader whose inputs are their numbers."""

    def inputs(self, folder, first, stop):
        return (str(number).encode() for number in range(first, stop))


def test_a_campaign_records_all_kinds_of_outcomes(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "SECONDS", 0.2)
    reader = _NumberReader("misbehaving", "in", lambda folder: [], _misbehave, (ValueError,))
    outcome = campaign.run(reader, tmp_path, 7)
    assert (outcome.inputs, outcome.results, outcome.refused) == (7, 2, {"ValueError": 1})
    assert [number for number, _ in outcome.findings] == [1, 2, 3, 4]
    assert all(MISBEHAVIOUR[number][1] in text for number, text in outcome.findings)
    assert "| misbehaving | 7 | 2 | 1 ValueError | 4 |" in campaign.table([outcome])
