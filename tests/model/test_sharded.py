"""Weights sharded over two processes by torch's FSDP get the gradients of an unsharded model."""

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
def test_gradients_equal_those_of_the_unsharded_model(tmp_path):
    torch.multiprocessing.spawn(compare_in_process, (str(tmp_path / "store"),), PROCESSES)


def compare_in_process(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=PROCESSES)
    mesh = distributed.device_mesh.init_device_mesh("cpu", (PROCESSES,))
    for memory in ("carry", "recompute"):
        compare_gradients(rank, mesh, memory)
    distributed.destroy_process_group()


def compare_gradients(rank: int, mesh: distributed.DeviceMesh, memory: str) -> None:
    """Train on this process's half of a batch, with this process's shard of each weight."""
    torch.manual_seed(0)
    unsharded = small_model(32, 4, 2, **NO_DROPOUT, score_memory=memory).train().double()
    sharded = copy.deepcopy(unsharded)
    for layer in sharded.ernie_rna.layers:
        fsdp.fully_shard(layer, mesh=mesh)
    fsdp.fully_shard(sharded, mesh=mesh)

    ids = torch.randint(4, 8, (2 * PROCESSES, 12))
    own_ids = ids.chunk(PROCESSES)[rank]
    unsharded(input_ids=ids, labels=ids).loss.backward()
    sharded(input_ids=own_ids, labels=own_ids).loss.backward()
    shards = dict(sharded.named_parameters())
    for name, parameter in unsharded.named_parameters():
        shard = shards[name]
        assert shard.to_local().numel() < parameter.numel() or parameter.ndim == 0, name
        gradient = shard.grad.full_tensor()
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-12, rtol=1e-9, msg=name)
