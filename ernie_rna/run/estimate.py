"""What a run will take, measured on a few batches of its input."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ernie_rna.run.progress import total_work
from ernie_rna.run.runner import Task, compute_batches
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.sequences.sources import Survey

_SECONDS = 10.0  # to measure for, if the input has work for so long
_SAMPLE = 256  # sequences that are measured at most
_MACHINES = 10


@dataclass(frozen=True)
class Estimate:
    """What a run will take on this machine.

    Attributes:
        seconds: to compute all of it.
        memory: bytes, of the process or of the GPU, at most so far.
        output: bytes of the outputs; 0 where they are small.
        measured: sequences that it was measured on.
    """

    seconds: float
    memory: int
    output: int
    measured: float

    @property
    def text(self) -> str:
        """It in words."""
        output = f", {_amount(self.output)} of output" if self.output else ""
        shared = _duration(self.seconds / _MACHINES)
        return (
            f"about {_duration(self.seconds)} and {_amount(self.memory)} of memory{output} "
            f"(measured on {self.measured:.3g} sequences); {shared} on {_MACHINES} such machines, "
            f"each with its --part I/{_MACHINES}"
        )


def estimate(task: Task[Any], records: Iterable[FastaRecord], found: Survey) -> Estimate:
    """Compute some of the records, spread over the input, and tell what all will take.

    Args:
        task: with its model loaded.
        records: all of them.
        found: in them.

    Raises:
        EncodingError: memory does not suffice.
    """
    begin = last = time.monotonic()
    steps: list[tuple[float, float]] = []  # seconds and work of each batch
    done = 0.0
    chunks = task.plan.chunks(_sample(records, found))
    batches = ((chunk, own) for chunk in chunks for own, _ in compute_batches(task, chunk))
    for chunk, pieces in batches:
        now = time.monotonic()
        steps.append((now - last, task.plan.work(pieces)))
        last, done = now, done + chunk.share(pieces)
        if now - begin > _SECONDS:
            break
    if not steps:  # no letter that has scores
        return Estimate(0.0, _memory(), task.nbytes(found), done)
    warm = steps[1:] or steps  # The first one also builds what is built once.
    rate = sum(work for _, work in warm) / sum(seconds for seconds, _ in warm)
    return Estimate(total_work(task.plan, found) / rate, _memory(), task.nbytes(found), done)


def _sample(records: Iterable[FastaRecord], found: Survey) -> Iterator[FastaRecord]:
    """The first of the longest records, on which memory depends, and some spread over the input."""
    longest = max(found.lengths)
    stride = -(-found.records // _SAMPLE)
    for number, record in enumerate(records):
        if len(record.sequence) == longest or number % stride == 0:
            longest = longest if len(record.sequence) < longest else sys.maxsize
            yield record


def _memory() -> int:
    """Bytes that were needed at most so far: on a GPU there, else of this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    import resource  # not on Windows

    kilo = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.2g} seconds"


def _amount(size: float) -> str:
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= length:
            return f"{size / length:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"
