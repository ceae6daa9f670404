"""RNAs from files, and the batches of a run: what is read, what is refused, what is drawn."""

import itertools
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from ernie_rna.sequences.fasta import InputError
from recipes.pretraining import rnas as module
from recipes.pretraining.rnas import Rna, cut_batches, drawn, read_rnas, read_table, streamed
from recipes.pretraining.settings import Settings
from tests.recipes.conftest import HEADER, MODEL, PAIRS

SETTINGS = Settings(
    **{"model": MODEL, "training": {"seed": 4}},
    **{"masked": 0.25, "masked_tokens": 200, "masked_max_length": 40},
    **{"pairs_squared_tokens": 3000, "pairs_max_length": 40, "permuted": 0.5},
)


# ---------------------------------------------------------------------------------------------
# Files


def test_rows_of_a_split_as_they_are_read(table):
    found = list(read_table(table, "train", leave_out={"rna1", "rna2"}))
    assert len(found) == 30
    assert found[0].id == "rna3"
    assert found[0].pairs[0] == (0, len(found[0].sequence) - 1)
    assert pickle.loads(pickle.dumps(found[0])) == found[0]
    with table.open("a") as file:
        file.write("odd row\n")
    assert next(read_table(table, "train")).id == "rna1"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("x\tACGU\t(((.))\tf\ttrain", "x: 4 nucleotides, but a structure of 6"),
        ("x\tACGU\t(((.\tf\ttrain", "x: .*never closed"),
        ("x\tMKLV EFPQ\t\tf\ttrain", r"\(x\): it looks like a protein"),
        ("x\tACGU\t\tf\ttrain\n" * 2, "an earlier record has the id 'x'"),
        ("x\tACGU\t\tf\ttest", "split 'train': it has no sequences"),
        ("id\tsequence\nx\tACGU", "no column dot_bracket, family, split"),
    ],
)
def test_rows_at_fault_are_named(table, rows, message):
    table.write_text(rows if rows.startswith("id") else f"{HEADER}\n{rows}\n")
    with pytest.raises(InputError, match=message):
        list(read_table(table, "train"))


def test_parquet_is_tsv(table, tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    names, *rows = (line.split("\t") for line in table.read_text().splitlines())
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    path = tmp_path / "rnas.parquet"
    parquet.write_table(pa.table({**columns, "notes": [None] * len(rows)}), path)
    assert list(read_table(path, "train")) == list(read_table(table, "train"))
    assert next(module.table_rows(path, ["notes"])) == {"notes": ""}
    with pytest.raises(InputError, match="no column label; it has id, sequence"):
        list(module.table_rows(path, ["label"]))


def test_fasta_has_no_structures(fasta, rnas, table, tmp_path):
    names = ("a.tsv", "a.TSV.gz", "a.parquet", "a.fasta", "tsv.fa.gz", "a.tsv.fasta")
    assert [module.is_table(Path(name)) for name in names] == [True] * 3 + [False] * 3
    (tmp_path / "ids.txt").write_text("rna1 b\nc\n")
    assert module.read_ids(None) == frozenset()
    left_out = module.read_ids(tmp_path / "ids.txt")
    assert left_out == {"rna1", "b", "c"}
    found = list(read_rnas(fasta, "train", left_out))
    assert found == [Rna(one.id, one.sequence) for one in rnas[1:]]
    assert list(read_rnas(table, "train", {"rna1"})) == rnas[1:]


def test_permuted_structure_and_composition_stay(rnas):
    generator = np.random.default_rng(0)
    changed = 0
    for rna, rate in itertools.product(rnas, (0.5, 1.0)):
        new = module.permute(rna, rate, generator)
        assert new.pairs == rna.pairs
        assert Counter(new.sequence) == Counter(rna.sequence)
        assert all(new.sequence[i] + new.sequence[j] in PAIRS for i, j in new.pairs)
        changed += new.sequence != rna.sequence
    assert changed > len(rnas) / 2
    assert module.permute(rnas[0], 0.0, generator) == rnas[0]


# ---------------------------------------------------------------------------------------------
# Pools, and batches of a length


def taken(batches, count):
    return list(itertools.islice(batches, count))


@pytest.mark.parametrize("kind", ["drawn", "streamed"])
def test_batches_keep_to_the_limit(kind, rnas, fasta):
    pools = drawn(rnas, 0.5) if kind == "drawn" else streamed(lambda: read_rnas(fasta, ""))
    for batch in taken(cut_batches(pools, 0, 3000, 2, 40), 200):
        longest = max(len(rna.sequence) for rna in batch) + 2
        assert len(batch) == 1 or longest**2 * len(batch) <= 3000


@pytest.mark.parametrize("predicted", [0.0, 0.3])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_families_and_predicted_ones_are_drawn_by_their_shares(rnas, power, predicted):
    several = rnas + [replace(rna, predicted=True) for rna in rnas[:5]] * bool(predicted)
    found = [rna for (rna,) in taken(cut_batches(drawn(several, power, predicted), 0), 8000)]
    assert np.mean([rna.predicted for rna in found]) == pytest.approx(predicted, abs=0.02)
    sizes = Counter(rna.family for rna in several)
    weights = Counter()
    for rna in rnas:
        weights[rna.family] += sizes[rna.family] ** (power - 1)
    shares = Counter(rna.family for rna in found if not rna.predicted)
    for family, weight in weights.items():
        expected = (1 - predicted) * weight / weights.total()
        assert shares[family] / 8000 == pytest.approx(expected, abs=0.02)


def test_a_stream_has_every_sequence_as_often_and_reads_a_pool_ahead(fasta, rnas):
    read = []

    def reading():
        for rna in read_rnas(fasta, ""):
            read.append(rna.id)
            yield rna

    next(cut_batches(streamed(reading), 0, 200, 1, 40))
    assert Counter(read) == dict.fromkeys((rna.id for rna in rnas), 2048 // len(rnas))


# ---------------------------------------------------------------------------------------------
# The batches of a run


def batches(rnas, count, rank=0, world=1, start=0, **changes):
    settings = replace(SETTINGS, **changes)
    made = module.PretrainingBatches(rnas, settings, ErnieRnaConfig(**MODEL), rank, world)
    made.start = start
    return taken(made, count) if count else made


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def sequences(batch):
    texts = ErnieRnaTokenizer().batch_decode(batch["input_ids"], skip_special_tokens=True)
    return {text.replace(" ", "") for text in texts}


def test_structures():
    found = module.structure_batch([Rna("x", "GAAAC", "", "(...)"), Rna("y", "GU", "", "..")])
    labels = found["pair_labels"]
    assert labels[0, 0].tolist() == [-100, -100, -100, -100, 1]
    assert labels[0, 4].tolist() == [1, -100, -100, -100, -100]
    assert labels[1, 0].tolist() == [-100, 0, -100, -100, -100]
    assert found["attention_mask"].sum(1).tolist() == [7, 4]
    assert set(found) == {"input_ids", "attention_mask", "pair_labels"}


@pytest.mark.parametrize("as_stream", [False, True])
def test_any_start_and_workers_make_the_same(rnas, as_stream):
    given = (lambda: iter(rnas)) if as_stream else rnas
    random = torch.get_rng_state()
    every = batches(given, 90)
    assert torch.equal(torch.get_rng_state(), random)  # What the model draws is left alone.
    kinds = ["labels" in batch for batch in every]
    assert all(sum(kinds[start : start + 4]) == 1 for start in range(0, 88, 4))
    assert_same(batches(given, 5, start=85), every[85:])
    made = DataLoader(batches(given, None, start=3), batch_size=None, num_workers=2)
    assert_same(taken(made, 5), every[3:8])


def test_processes_share(rnas):
    shares = [batches(rnas, 8, rank, world=2, permuted=0.0) for rank in (0, 1)]
    every = batches(rnas, 16, permuted=0.0)
    for kind in ("labels", "pair_labels"):
        mine = [[one for one in share if kind in one] for share in shares]
        joined = itertools.chain.from_iterable(zip(*mine, strict=True))
        shapes = [one["input_ids"].shape for one in every if kind in one]
        assert [one["input_ids"].shape for one in joined] == shapes
    assert_same(batches(rnas, 3, rank=1, world=2, start=5, permuted=0.0), shares[1][5:])


@pytest.mark.parametrize("as_stream", [False, True])
def test_sequences_without_pairs_or_too_long_are_in_no_structure_batch(rnas, as_stream):
    given = [replace(rna, dot_bracket="") for rna in rnas[:10]] + rnas[10:]
    read = (lambda: iter(given)) if as_stream else given
    found = batches(read, 400, pairs_max_length=25, permuted=0.0)
    seen = set().union(*(sequences(batch) for batch in found if "labels" not in batch))
    assert seen == {one.sequence for one in rnas[10:] if len(one.sequence) <= 25}


@pytest.mark.parametrize("predicted", [True, False])
def test_predicted_structures_stay_with_their_sequences(rnas, predicted):
    given = [replace(rna, predicted=predicted) for rna in rnas]
    (batch,) = batches(given, 1, masked=0.0, permuted=1.0, predicted=float(predicted))
    assert (sequences(batch) <= {rna.sequence for rna in rnas}) == predicted


@pytest.mark.parametrize("as_stream", [False, True])
def test_what_there_is_nothing_of(rnas, fasta, as_stream):
    for given, message in (
        ([Rna(rna.id, rna.sequence) for rna in rnas], "the training data: no sequence has pairs"),
        ([replace(rna, predicted=True) for rna in rnas], "no sequence to train on"),  # unmasked
    ):
        with pytest.raises(InputError, match=message):
            batches((lambda rnas=given: iter(rnas)) if as_stream else given, None)


def test_long_sequences_give_windows(rnas):
    found = batches(rnas, 20, masked=1.0, masked_max_length=8)
    assert {batch["input_ids"].shape[1] for batch in found} == {10}


def test_a_sample_is_the_same_each_time_and_fits_the_training(rnas):
    settings = replace(SETTINGS, eval_sequences=5, pairs_max_length=25)
    sample = module.choose_sample([Rna("u", "GGGAAAGGG"), *rnas], settings)
    assert sample == module.choose_sample([Rna("u", "GGGAAAGGG"), *rnas], settings)
    assert len({rna.id for rna in sample}) == 5
    assert all(rna.pairs and len(rna.sequence) <= 25 for rna in sample)
    every = module.choose_sample(rnas, replace(SETTINGS, eval_sequences=100))
    assert sorted(one.id for one in every) == sorted(one.id for one in rnas)
    short = replace(settings, pairs_max_length=3, masked_max_length=3)
    with pytest.raises(InputError, match="the validation data: no sequence has pairs and at most"):
        module.choose_sample(rnas, short)
    with pytest.raises(InputError, match="the validation data: no sequence has at most 3 nucl"):
        module.choose_sample(rnas, replace(short, masked=1.0))
