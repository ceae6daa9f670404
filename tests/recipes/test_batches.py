"""Which batches a run trains on, and what is in them."""

import itertools
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from ernie_rna.sequences.fasta import InputError
from recipes.pretraining.batches import (
    PretrainingBatches,
    cut_batches,
    drawing,
    drawn,
    streamed,
    structure_batch,
)
from recipes.pretraining.rnas import Rna, read_rnas
from recipes.pretraining.settings import Settings
from tests.recipes.conftest import MODEL

SETTINGS = Settings(
    **{"model": MODEL, "training": {"seed": 4}},
    **{"masked": 0.25, "masked_tokens": 200, "masked_max_length": 40},
    **{"pairs_squared_tokens": 3000, "pairs_max_length": 40, "permuted": 0.5},
)


def taken(batches, count):
    return list(itertools.islice(batches, count))


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


class TestCutBatches:
    @pytest.fixture(params=["drawn", "streamed"])
    def pools(self, request, rnas, fasta):
        if request.param == "drawn":
            return drawn(rnas, 0.5)
        return streamed(lambda: read_rnas(fasta, ""))

    def test_batches_keep_to_the_limit(self, pools):
        for batch in taken(cut_batches(pools, 0, 3000, 2, 40), 200):
            longest = max(len(rna.sequence) for rna in batch) + 2
            assert len(batch) == 1 or longest**2 * len(batch) <= 3000

    def test_skipped_batches_are_those_before(self, pools):
        how = pools, 3, 200, 1, 40
        every = taken(cut_batches(*how), 600)
        assert taken(cut_batches(*how, start=350), 250) == every[350:]

    @pytest.mark.parametrize("pools", [partial(drawn, [], 1.0), streamed(lambda: iter([]))])
    def test_nothing_to_train_on(self, pools):
        with pytest.raises(InputError, match="no sequence to train on"):
            pools()(np.random.default_rng(0))


class TestDrawn:
    @pytest.mark.parametrize(("power", "expected"), [(0.0, 0.25), (1.0, None)])
    def test_families(self, rnas, power, expected):
        shares = Counter(rna.family for (rna,) in taken(cut_batches(drawn(rnas, power), 0), 8000))
        sizes = Counter(rna.family for rna in rnas)
        for family, count in shares.items():
            share = expected or sizes[family] / len(rnas)
            assert count / 8000 == pytest.approx(share, abs=0.02)

    def test_share_of_predicted(self, rnas):
        several = rnas + [replace(rna, predicted=True) for rna in rnas[:5]]
        found = [rna for (rna,) in taken(cut_batches(drawn(several, 0.0, 0.3), 0), 8000)]
        assert np.mean([rna.predicted for rna in found]) == pytest.approx(0.3, abs=0.02)
        families = Counter(rna.family for rna in found if not rna.predicted)
        assert min(families.values()) == pytest.approx(8000 * 0.7 / 4, rel=0.1)


class TestStreamed:
    def test_every_sequence_as_often(self, fasta, rnas):
        pool = streamed(lambda: read_rnas(fasta, ""))()(np.random.default_rng(0))
        seen = Counter(rna.id for rna in pool)
        assert set(seen) == {rna.id for rna in rnas}
        assert set(seen.values()) == {2048 // len(rnas)}

    def test_reads_no_more_than_a_pool_ahead(self, rnas):
        read = []

        def endless():
            for rna in itertools.cycle(rnas):
                read.append(rna)
                yield rna

        next(cut_batches(streamed(endless), 0, 200, 1, 40))
        assert len(read) == 2048


def test_structures():
    rnas = [Rna("x", "GAAAC", "", "(...)"), Rna("y", "GU", "", "..")]
    batch = structure_batch(rnas)
    labels = batch["pair_labels"]
    assert labels[0, 0].tolist() == [-100, -100, -100, -100, 1]
    assert labels[0, 4].tolist() == [1, -100, -100, -100, -100]
    assert labels[1, 0].tolist() == [-100, 0, -100, -100, -100]
    assert batch["attention_mask"].sum(1).tolist() == [7, 4]
    assert set(batch) == {"input_ids", "attention_mask", "pair_labels"}


class TestPretrainingBatches:
    def batches(self, rnas, count, settings=SETTINGS, **options):
        return taken(PretrainingBatches(rnas, settings, ErnieRnaConfig(**MODEL), **options), count)

    def test_kinds_by_share(self, rnas):
        kinds = ["labels" in batch for batch in self.batches(rnas, 20)]
        assert sum(kinds) == 5
        assert all(sum(kinds[start : start + 4]) == 1 for start in range(0, 20, 4))

    def test_any_start_and_workers_make_the_same(self, rnas):
        every = self.batches(rnas, 12)
        assert_same(self.batches(rnas, 5, start=7), every[7:])
        batches = PretrainingBatches(rnas, SETTINGS, ErnieRnaConfig(**MODEL), start=2)
        made = DataLoader(batches, batch_size=None, num_workers=2)
        assert_same(taken(made, 5), every[2:7])

    def test_processes_share(self, rnas):
        shares = [self.batches(rnas, 8, rank=rank, world=2) for rank in (0, 1)]
        for first, second in zip(*shares, strict=True):
            assert first.keys() == second.keys()
            assert first["input_ids"].tolist() != second["input_ids"].tolist()

    @pytest.mark.parametrize("as_stream", [False, True])
    def test_sequences_without_pairs_are_in_no_structure_batch(self, rnas, as_stream):
        unpaired = [replace(rna, dot_bracket="") for rna in rnas[:10]]
        given = [*unpaired, *rnas[10:]]
        settings = replace(SETTINGS, pairs_max_length=25, permuted=0.0)
        seen = set()
        for batch in self.batches((lambda: iter(given)) if as_stream else given, 400, settings):
            if "labels" not in batch:
                ids = batch["input_ids"]
                texts = ErnieRnaTokenizer().batch_decode(ids, skip_special_tokens=True)
                seen.update(text.replace(" ", "") for text in texts)
        assert seen == {one.sequence for one in rnas[10:] if len(one.sequence) <= 25}

    @pytest.mark.parametrize("predicted", [True, False])
    def test_predicted_structures_stay_with_their_sequences(self, rnas, predicted):
        given = [replace(rna, predicted=predicted) for rna in rnas]
        settings = replace(SETTINGS, masked=0.0, permuted=1.0, predicted=float(predicted))
        (batch,) = self.batches(given, 1, settings)
        known = {tuple(ErnieRnaTokenizer()(rna.sequence)["input_ids"]) for rna in rnas}
        rows = {tuple(id for id in row if id != 1) for row in batch["input_ids"].tolist()}
        assert (rows <= known) == predicted

    def test_what_there_is_nothing_of(self, rnas, fasta):
        with pytest.raises(InputError, match="the training data: no sequence has pairs"):
            self.batches(list(read_rnas(fasta, "")), 1)
        # Predicted sequences are not masked.
        with pytest.raises(InputError, match="no sequence to train on"):
            self.batches([replace(rna, predicted=True) for rna in rnas], 1)

    def test_long_sequences_give_windows(self, rnas):
        settings = replace(SETTINGS, masked=1.0, masked_max_length=8)
        shapes = {batch["input_ids"].shape[1] for batch in self.batches(rnas, 20, settings)}
        assert shapes == {10}

    def test_what_the_model_draws_is_left_alone(self, rnas):
        with drawing(5):
            expected = torch.rand(3)
        with drawing(5):
            self.batches(rnas, 8)
            assert torch.equal(torch.rand(3), expected)
