"""Weights sharded over two processes by torch's FSDP: the gradients of a model that is whole."""

import copy

import pytest
import torch
from torch import distributed

from tests.model.small_models import NO_DROPOUT, small_model

fsdp = pytest.importorskip("torch.distributed.fsdp")
if not hasattr(fsdp, "fully_shard"):
    pytest.skip("needs torch 2.6", allow_module_level=True)

PROCESSES = 2


@pytest.mark.slow  # two processes import torch and transformers
def test_gradients_are_those_of_the_whole(tmp_path):
    torch.multiprocessing.spawn(in_a_process, (str(tmp_path / "store"),), PROCESSES)


def in_a_process(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=PROCESSES)
    mesh = distributed.device_mesh.init_device_mesh("cpu", (PROCESSES,))
    for memory in ("carry", "recompute"):
        compare(rank, mesh, memory)
    distributed.destroy_process_group()


def compare(rank: int, mesh: distributed.DeviceMesh, memory: str) -> None:
    """Each process trains on its half of a batch, and has its share of each weight."""
    torch.manual_seed(0)
    whole = small_model(32, 4, 2, **NO_DROPOUT, score_memory=memory).train().double()
    sharded = copy.deepcopy(whole)
    for layer in sharded.ernie_rna.layers:
        fsdp.fully_shard(layer, mesh=mesh)
    fsdp.fully_shard(sharded, mesh=mesh)

    ids = torch.randint(4, 8, (2 * PROCESSES, 12))
    mine = ids.chunk(PROCESSES)[rank]
    whole(input_ids=ids, labels=ids).loss.backward()
    sharded(input_ids=mine, labels=mine).loss.backward()
    parts = dict(sharded.named_parameters())
    for name, parameter in whole.named_parameters():
        part = parts[name]
        assert part.to_local().numel() < parameter.numel() or parameter.ndim == 0, name
        gradient = part.grad.full_tensor()
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-12, rtol=1e-9, msg=name)
