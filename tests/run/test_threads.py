"""Threads by the size of what is computed."""

import contextlib

import pytest
import torch

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.run.threads import suitable_threads, use_threads
from ernie_rna.sequences.chunks import Plan
from ernie_rna.sequences.fasta import FastaRecord

MINI, FULL = (ErnieRnaConfig(hidden_size=size) for size in (192, 768))


@pytest.mark.parametrize(
    ("config", "count", "length", "threads"),
    [(MINI, 4, 60, 1), (MINI, 16, 60, 4), (FULL, 4, 60, 8), (FULL, 1, 10, 1)],
)
def test_small_batches_take_few(monkeypatch, config, count, length, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    plan = Plan(2048, config.hidden_size)
    (chunk,) = plan.chunks([FastaRecord(str(i), "A" * length) for i in range(count)])
    assert suitable_threads(config, plan, chunk) == threads


def test_threads_are_put_back():
    with contextlib.suppress(KeyError), use_threads(1):
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 2
