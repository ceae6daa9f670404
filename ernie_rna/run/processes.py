"""The processes that `torchrun` or `accelerate launch` started, and how they keep in step."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

# A process may be done hours before the others.
_PATIENCE = datetime.timedelta(days=30)


class LeaderFailedError(RuntimeError):
    """The process that leads has failed, and reports why itself."""


@dataclass(frozen=True)
class World:
    """This process among those that share the work.

    Attributes:
        rank: its number, counted from 0; 0 leads.
        size: how many there are.
        local_rank: its number on its machine, which is that of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    _group: Any = None

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def own_device(self, device: str | None) -> str | None:
        """The device of this process: of several on one machine, each takes a GPU."""
        import torch

        several = self.size > 1 and device in (None, "auto", "cuda")
        if several and torch.cuda.is_available():
            return f"cuda:{self.local_rank % torch.cuda.device_count()}"
        return device

    def lead(self, function: Callable[[], T]) -> T:
        """Call a function in the leading process alone; return its result in every process.

        Raises:
            LeaderFailedError: in the other processes, if the function has raised.
        """
        if self.size == 1:
            return function()
        if not self.leads:
            return self._receive()
        try:
            result = function()
        except BaseException as error:
            self._share((None, f"{type(error).__name__}: {error}"))
            raise
        self._share((result, None))
        return result

    def first(self, function: Callable[[], T]) -> T:
        """Call a function in every process, in the leading one first."""
        results: list[T] = []
        self.lead(lambda: results.append(function()))
        return results[0] if results else function()

    def total(self, amount: float) -> float:
        """The sum of what every process passes in, once they all have called this."""
        if self.size == 1:
            return amount
        import torch.distributed as dist

        amounts: list[Any] = [None] * self.size
        dist.all_gather_object(amounts, amount, group=self._group)
        return sum(amounts)

    def _receive(self) -> Any:
        result, problem = self._share(None)
        if problem is not None:
            raise LeaderFailedError(f"the leading process failed: {problem}")
        return result

    def _share(self, value: Any) -> Any:
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._group)
        return values[0]


@contextlib.contextmanager
def joined_world() -> Iterator[World]:
    """The processes of torch.distributed, or those that RANK and WORLD_SIZE in the environment
    speak of; without either, this process is alone.

    Raises:
        RuntimeError: WORLD_SIZE speaks of others, but not of how to reach them.
    """
    import torch.distributed as dist

    size = int(os.environ.get("WORLD_SIZE", 1))
    started = dist.is_available() and dist.is_initialized()
    if not started and size == 1:
        yield World()
        return
    if not started:
        _start(dist, size)
    # Gloo, whatever the other groups use: these are messages between the hosts.
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    local_rank = int(os.environ.get("LOCAL_RANK", dist.get_rank()))
    try:
        yield World(dist.get_rank(), dist.get_world_size(), local_rank, group)
    finally:
        dist.destroy_process_group(None if not started else group)


def _start(dist: Any, size: int) -> None:
    if "MASTER_ADDR" not in os.environ or "RANK" not in os.environ:
        raise RuntimeError(
            f"WORLD_SIZE is {size}, but RANK or MASTER_ADDR is not set: start the processes by "
            "torchrun or accelerate launch, or unset WORLD_SIZE"
        )
    dist.init_process_group("gloo", timeout=_PATIENCE)
