"""What a run will take, measured on a few batches of its input."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ernie_rna.run.outputs import STANDARD_OUTPUT
from ernie_rna.run.progress import total_work
from ernie_rna.run.runner import Task, compute_batches
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.sequences.sources import Source, Survey, survey

SECONDS = 10.0  # to measure for, if the input has work for so long
_SAMPLE = 256  # sequences that are measured at most
_MACHINES = 10
# Of memory, in the set of hashes by which ids that are there twice are found.
_BYTES_OF_ID = 90


@dataclass(frozen=True)
class Estimate:
    """What a run will take on this machine.

    Attributes:
        seconds: to compute all of it.
        memory: bytes, of the process or of the GPU, at most so far; None where the system does
            not say.
        output: bytes of the outputs; 0 where they are small.
        measured: sequences that it was measured on, or what `unit` says.
        machines: how many can share it, up to ten.
    """

    seconds: float
    memory: int | None
    output: int
    measured: float
    unit: str = "sequence"
    machines: int = 1

    @property
    def text(self) -> str:
        """It in words, and how long it takes if machines share it, where they can."""
        memory = "an unknown amount" if self.memory is None else in_bytes(self.memory)
        output = f", {in_bytes(self.output)} of output" if self.output else ""
        units = f"{self.unit}{'s' * (self.measured != 1)}"
        shared = (
            f"; {_duration(self.seconds / self.machines)} on {self.machines} such machines, each "
            f"with its --part I/{self.machines}"
        )
        return (
            f"about {_duration(self.seconds)} and {memory} of memory{output} "
            f"(measured on {self.measured:.3g} {units})" + shared * (self.machines > 1)
        )

    def scaled(self, records: int, found: Survey, reading: float, disk: float) -> str:
        """What more sequences like these will take, in words and as a table: by one and more
        machines, and which part of it takes longest.

        Every machine reads the whole input twice, and keeps the results of its part; the last one
        puts the output together.

        Args:
            records: how many sequences.
            found: in the input that was measured.
            reading: seconds to read that once.
            disk: bytes that can be written in a second.
        """
        factor = records / found.records
        output = self.output * factor
        head = ("machines", "computing", "reading", "writing", "in all", "limit")
        table: list[tuple[str, ...]] = [head]
        for machines in (1, 10, 100, 1000):
            seconds = {
                "computing": self.seconds * factor / machines,
                "reading": 2 * reading * factor,
                "writing": output / disk * (1 + 1 / machines),
            }
            times = map(_duration, [*seconds.values(), sum(seconds.values())])
            table.append((f"{machines:,}", *times, max(seconds, key=seconds.__getitem__)))
        rows = ("".join(f"{cell:<14}" for cell in row).rstrip() for row in table)
        room = f"{in_bytes(output)} of output, twice that until it is complete; " if output else ""
        return (
            f"{records:,} sequences like these, {found.nucleotides * factor:.3g} nt: {room}"
            f"{in_bytes(_BYTES_OF_ID * records)} of memory more, for their ids\n" + "\n".join(rows)
        )


def forecast(task: Task[Any], source: Source, found: Survey, output: str) -> str:
    """What a run will take, in words, and what `scale_to` sequences will if that is given.

    Some of the records, spread over the input, are computed.

    Args:
        task: with its model loaded.
        source: can be read several times.
        found: in it.
        output: the first one, whose disk is measured.

    Raises:
        EncodingError: memory does not suffice.
    """
    about = _measure(task, source.read(), found)
    if task.options.scale_to is None:
        return about.text
    begin = time.monotonic()
    survey(source.read())
    reading = time.monotonic() - begin
    disk = disk_rate(None if output == STANDARD_OUTPUT else Path(output).parent)
    return f"{about.text}\n{about.scaled(task.options.scale_to, found, reading, disk)}"


def _measure(task: Task[Any], records: Iterable[FastaRecord], found: Survey) -> Estimate:
    begin = last = time.monotonic()
    steps: list[tuple[float, float]] = []  # seconds and work of each batch
    done = 0.0
    chunks = task.plan.chunks(_sample(records, found))
    batches = ((chunk, own) for chunk in chunks for own, _ in compute_batches(task, chunk))
    for chunk, pieces in batches:
        now = time.monotonic()
        steps.append((now - last, task.plan.work(pieces)))
        last, done = now, done + chunk.share(pieces)
        if now - begin > SECONDS:
            break
    warm = steps[1:] or steps or [(0.0, 1.0)]  # The first one also builds what is built once.
    a_unit = sum(seconds for seconds, _ in warm) / sum(work for _, work in warm)
    # What fits in one chunk is computed by one machine.
    most = _MACHINES if task.plan.divides else min(_MACHINES, found.records)
    machines = min(most, -(-found.nucleotides // task.plan.limit))
    about = total_work(task.plan, found) * a_unit
    return Estimate(about, peak_memory(), task.nbytes(found), done, machines=machines)


def disk_rate(folder: Path | None) -> float:
    """Bytes that can be written in a second to a folder, None for that of temporary files; nothing
    is left there."""
    block = os.urandom(1 << 24)
    with tempfile.TemporaryFile(dir=folder) as file:
        begin = time.monotonic()
        for _ in range(8):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return 8 * len(block) / (time.monotonic() - begin)


def _sample(records: Iterable[FastaRecord], found: Survey) -> Iterator[FastaRecord]:
    """The first of the longest records, on which memory depends, and some spread over the input."""
    longest = max(found.lengths)
    stride = -(-found.records // _SAMPLE)
    for number, record in enumerate(records):
        if len(record.sequence) == longest or number % stride == 0:
            longest = longest if len(record.sequence) < longest else sys.maxsize
            yield record


def peak_memory() -> int | None:
    """Bytes that were needed at most so far: on a GPU there, else of this process; None where
    the system does not say."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    kilo = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    number = f"{seconds:.3g}"
    return f"{number} second{'s' * (number != '1')}"


def in_bytes(size: float) -> str:
    """A number of bytes in words."""
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= length:
            return f"{size / length:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"
