"""How many threads torch takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from ernie_rna.sequences.chunks import Chunk, Plan

# Multiplications that a thread should have of a product of matrices. With fewer, threads wait for
# one another at its end, on a busy machine for milliseconds: 256 tokens of `mini`, 9.4 million,
# took two threads as long as one, 1024 tokens 0.7 times as long (measured on two busy cores).
_LEAST_WORK = 1 << 23


@contextlib.contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Have torch use so many threads for a while; None leaves them as they are."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)


def suitable_threads(config: Any, plan: Plan, chunk: Chunk) -> int:
    """How many threads the batches of a chunk keep busy, at most as many as torch takes.

    It depends on nothing that changes from run to run, since the last bits of sums depend on it.
    """
    tokens = plan.work(chunk.pieces) / max(1, len(chunk.batches))
    fitting = int(tokens * config.hidden_size**2 / _LEAST_WORK)
    return max(1, min(fitting, torch.get_num_threads()))
