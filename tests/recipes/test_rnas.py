"""RNAs are read from files and drawn in batches for a run; invalid files are refused."""

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


def test_rows_of_a_split_are_read_one_by_one(table):
    first, *others = read_table(table, "train", leave_out={"rna1", "rna2"})
    assert len(others) == 29
    assert first.id == "rna3"
    assert first.pairs[0] == (0, len(first.sequence) - 1)
    assert pickle.loads(pickle.dumps(first)) == first
    with table.open("a") as file:
        file.write("invalid row\n")
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
def test_the_error_names_an_invalid_row(table, rows, message):
    table.write_text(rows if rows.startswith("id") else f"{HEADER}\n{rows}\n")
    with pytest.raises(InputError, match=message):
        list(read_table(table, "train"))


def test_parquet_is_read_like_tsv(table, tmp_path):
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


def test_kinds_of_files_and_ids_to_leave_out(fasta, rnas, table, tmp_path):
    names = ("a.tsv", "a.TSV.gz", "a.parquet", "a.fasta", "tsv.fa.gz", "a.tsv.fasta")
    assert [module.is_table(Path(name)) for name in names] == [True] * 3 + [False] * 3
    (tmp_path / "ids.txt").write_text("rna1 b\nc\n")
    assert module.read_ids(None) == frozenset()
    left_out = module.read_ids(tmp_path / "ids.txt")
    assert left_out == {"rna1", "b", "c"}
    without_structures = [Rna(rna.id, rna.sequence) for rna in rnas[1:]]
    assert list(read_rnas(fasta, "train", left_out)) == without_structures
    assert list(read_rnas(table, "train", {"rna1"})) == rnas[1:]


def test_permuting_keeps_structure_and_composition(rnas):
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
# Pools, and batches of similar length


def take(batches, count):
    return list(itertools.islice(batches, count))


@pytest.mark.parametrize("kind", ["drawn", "streamed"])
def test_batches_keep_to_the_limit(kind, rnas, fasta):
    pools = drawn(rnas, 0.5) if kind == "drawn" else streamed(lambda: read_rnas(fasta, ""))
    for batch in take(cut_batches(pools, 0, 3000, 2, 40), 200):
        longest = max(len(rna.sequence) for rna in batch) + 2
        assert len(batch) == 1 or longest**2 * len(batch) <= 3000


@pytest.mark.parametrize("predicted", [0.0, 0.3])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_shares_of_families_and_of_predicted_structures(rnas, power, predicted):
    all_rnas = list(rnas)
    if predicted:
        all_rnas += [replace(rna, predicted=True) for rna in rnas[:5]]
    draws = [rna for (rna,) in take(cut_batches(drawn(all_rnas, power, predicted), 0), 8000)]
    assert np.mean([rna.predicted for rna in draws]) == pytest.approx(predicted, abs=0.02)
    sizes = Counter(rna.family for rna in all_rnas)
    weights = Counter()
    for rna in rnas:
        weights[rna.family] += sizes[rna.family] ** (power - 1)
    counts = Counter(rna.family for rna in draws if not rna.predicted)
    for family, weight in weights.items():
        expected = (1 - predicted) * weight / weights.total()
        assert counts[family] / 8000 == pytest.approx(expected, abs=0.02)


def test_a_stream_repeats_all_sequences_equally_and_reads_one_pool_ahead(fasta, rnas):
    ids = []

    def read():
        for rna in read_rnas(fasta, ""):
            ids.append(rna.id)
            yield rna

    next(cut_batches(streamed(read), 0, 200, 1, 40))
    assert Counter(ids) == dict.fromkeys((rna.id for rna in rnas), 2048 // len(rnas))


# ---------------------------------------------------------------------------------------------
# The batches of a run


def batches(rnas, count, rank=0, world=1, start=0, **changes):
    """The first batches from step `start`; if `count` is None, the iterable of all."""
    settings = replace(SETTINGS, **changes)
    iterable = module.PretrainingBatches(rnas, settings, ErnieRnaConfig(**MODEL), rank, world)
    iterable.start = start
    return take(iterable, count) if count else iterable


def assert_same(batches, expected_batches):
    for batch, expected in zip(batches, expected_batches, strict=True):
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[name], expected[name]) for name in batch)


def sequences(batch):
    texts = ErnieRnaTokenizer().batch_decode(batch["input_ids"], skip_special_tokens=True)
    return {text.replace(" ", "") for text in texts}


def source(rnas, as_stream):
    """The RNAs as `PretrainingBatches` takes them: a list, or a function that reads a stream."""
    return (lambda: iter(rnas)) if as_stream else rnas


def test_structure_batch():
    batch = module.structure_batch([Rna("x", "GAAAC", "", "(...)"), Rna("y", "GU", "", "..")])
    labels = batch["pair_labels"]
    assert labels[0, 0].tolist() == [-100, -100, -100, -100, 1]
    assert labels[0, 4].tolist() == [1, -100, -100, -100, -100]
    assert labels[1, 0].tolist() == [-100, 0, -100, -100, -100]
    assert batch["attention_mask"].sum(1).tolist() == [7, 4]
    assert set(batch) == {"input_ids", "attention_mask", "pair_labels"}


@pytest.mark.parametrize("as_stream", [False, True])
def test_batches_do_not_depend_on_the_start_or_on_workers(rnas, as_stream):
    rnas = source(rnas, as_stream)
    state = torch.get_rng_state()
    expected = batches(rnas, 90)
    assert torch.equal(torch.get_rng_state(), state)  # Batches do not use torch's generator.
    is_masked = ["labels" in batch for batch in expected]
    assert all(sum(is_masked[start : start + 4]) == 1 for start in range(0, 88, 4))
    assert_same(batches(rnas, 5, start=85), expected[85:])
    loader = DataLoader(batches(rnas, None, start=3), batch_size=None, num_workers=2)
    assert_same(take(loader, 5), expected[3:8])


def test_two_processes_share_the_batches(rnas):
    def shapes(batches, kind):
        return [batch["input_ids"].shape for batch in batches if kind in batch]

    shares = [batches(rnas, 8, rank, world=2, permuted=0.0) for rank in (0, 1)]
    all_batches = batches(rnas, 16, permuted=0.0)
    for kind in ("labels", "pair_labels"):
        in_turn = zip(*(shapes(share, kind) for share in shares), strict=True)
        assert list(itertools.chain.from_iterable(in_turn)) == shapes(all_batches, kind)
    assert_same(batches(rnas, 3, rank=1, world=2, start=5, permuted=0.0), shares[1][5:])


@pytest.mark.parametrize("as_stream", [False, True])
def test_sequences_without_pairs_or_too_long_are_in_no_structure_batch(rnas, as_stream):
    some_unpaired = [replace(rna, dot_bracket="") for rna in rnas[:10]] + rnas[10:]
    drawn = batches(source(some_unpaired, as_stream), 400, pairs_max_length=25, permuted=0.0)
    folded = set().union(*(sequences(batch) for batch in drawn if "labels" not in batch))
    assert folded == {rna.sequence for rna in rnas[10:] if len(rna.sequence) <= 25}


@pytest.mark.parametrize("predicted", [True, False])
def test_predicted_structures_are_not_permuted(rnas, predicted):
    marked = [replace(rna, predicted=predicted) for rna in rnas]
    (batch,) = batches(marked, 1, masked=0.0, permuted=1.0, predicted=float(predicted))
    assert (sequences(batch) <= {rna.sequence for rna in rnas}) == predicted


@pytest.mark.parametrize("as_stream", [False, True])
def test_data_without_pairs_or_without_known_structures_are_refused(rnas, as_stream):
    unpaired = [Rna(rna.id, rna.sequence) for rna in rnas]
    with pytest.raises(InputError, match="the training data: no sequence has pairs"):
        batches(source(unpaired, as_stream), None)
    predicted = [replace(rna, predicted=True) for rna in rnas]  # They are not used in masked-LM.
    with pytest.raises(InputError, match="no sequence to train on"):
        batches(source(predicted, as_stream), None)


def test_long_sequences_are_cut_into_windows(rnas):
    masked = batches(rnas, 20, masked=1.0, masked_max_length=8)
    assert {batch["input_ids"].shape[1] for batch in masked} == {10}


def test_the_validation_sample_is_reproducible_and_fits_the_settings(rnas):
    settings = replace(SETTINGS, eval_sequences=5, pairs_max_length=25)
    sample = module.choose_sample([Rna("u", "GGGAAAGGG"), *rnas], settings)
    assert sample == module.choose_sample([Rna("u", "GGGAAAGGG"), *rnas], settings)
    assert len({rna.id for rna in sample}) == 5
    assert all(rna.pairs and len(rna.sequence) <= 25 for rna in sample)
    everything = module.choose_sample(rnas, replace(SETTINGS, eval_sequences=100))
    assert sorted(rna.id for rna in everything) == sorted(rna.id for rna in rnas)
    short = replace(settings, pairs_max_length=3, masked_max_length=3)
    with pytest.raises(InputError, match="the validation data: no sequence has pairs and at most"):
        module.choose_sample(rnas, short)
    with pytest.raises(InputError, match="the validation data: no sequence has at most 3 nucl"):
        module.choose_sample(rnas, replace(short, masked=1.0))
