"""Estimates the time, memory and disk space of a run from a few batches of its input."""

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

SECONDS = 10.0  # after which measuring stops
_SAMPLE = 256  # most sequences that are measured
_MACHINES = 10  # most that an estimate speaks of
_BYTES_OF_ID = 90  # of memory, in the set of hashes that finds duplicate ids


@dataclass(frozen=True)
class Estimate:
    """What a run will take on this machine.

    Attributes:
        seconds: time to compute the whole input.
        memory: peak so far in bytes, of the process or the GPU; None if the system does not say.
        output: bytes of the outputs; 0 if they are small.
        measured: number of sequences it was measured on, or of what `unit` names.
        machines: how many machines can share the run, at most ten.
    """

    seconds: float
    memory: int | None
    output: int
    measured: float
    unit: str = "sequence"
    machines: int = 1

    @property
    def text(self) -> str:
        """The estimate as text, with the time on several machines if they can share the run."""
        memory = "an unknown amount" if self.memory is None else in_bytes(self.memory)
        output = f", {in_bytes(self.output)} of output" if self.output else ""
        units = self.unit if self.measured == 1 else f"{self.unit}s"
        text = (
            f"about {_duration(self.seconds)} and {memory} of memory{output} "
            f"(measured on {self.measured:.3g} {units})"
        )
        if self.machines > 1:
            text += (
                f"; {_duration(self.seconds / self.machines)} on {self.machines} such machines, "
                f"each with its --part I/{self.machines}"
            )
        return text

    def scaled(self, records: int, input_survey: Survey, reading: float, disk: float) -> str:
        """What more sequences like these will take, as text with a table: the time on one and
        more machines, and which step takes longest.

        Every machine reads the whole input twice, and stores the results of its share; the last
        one assembles the output.

        Args:
            records: how many sequences.
            input_survey: of the input that was measured.
            reading: seconds to read that input once.
            disk: bytes that can be written in a second.
        """
        factor = records / input_survey.records
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
            f"{records:,} sequences like these, {input_survey.nucleotides * factor:.3g} nt: {room}"
            f"{in_bytes(_BYTES_OF_ID * records)} more memory for their ids\n" + "\n".join(rows)
        )


def forecast(task: Task[Any], source: Source, input_survey: Survey, output: str) -> str:
    """The estimate for a run as text; with the option `scale_to` also that for so many sequences.

    Computes a sample of the records, spread over the input.

    Args:
        task: with its model loaded.
        source: can be read several times.
        input_survey: of the source.
        output: the first output, whose disk is measured.

    Raises:
        EncodingError: there is not enough memory.
    """
    estimate = _measure(task, source.read(), input_survey)
    if task.options.scale_to is None:
        return estimate.text
    begin = time.monotonic()
    survey(source.read())
    reading = time.monotonic() - begin
    disk = disk_rate(None if output == STANDARD_OUTPUT else Path(output).parent)
    return f"{estimate.text}\n{estimate.scaled(task.options.scale_to, input_survey, reading, disk)}"


def _measure(task: Task[Any], records: Iterable[FastaRecord], input_survey: Survey) -> Estimate:
    begin = last = time.monotonic()
    steps: list[tuple[float, float]] = []  # seconds and work of each batch
    done = 0.0
    chunks = task.plan.chunks(_sample(records, input_survey))
    batches = ((chunk, pieces) for chunk in chunks for pieces, _ in compute_batches(task, chunk))
    for chunk, pieces in batches:
        now = time.monotonic()
        steps.append((now - last, task.plan.work(pieces)))
        last, done = now, done + chunk.share(pieces)
        if now - begin > SECONDS:
            break
    warm = steps[1:] or steps or [(0.0, 1.0)]  # The first one includes what is built only once.
    seconds_per_work = sum(seconds for seconds, _ in warm) / sum(work for _, work in warm)
    # One machine computes each chunk, and each sequence unless the plan divides it.
    most = _MACHINES if task.plan.divides else min(_MACHINES, input_survey.records)
    machines = min(most, -(-input_survey.nucleotides // task.plan.limit))
    seconds = total_work(task.plan, input_survey) * seconds_per_work
    return Estimate(seconds, peak_memory(), task.nbytes(input_survey), done, machines=machines)


def disk_rate(folder: Path | None) -> float:
    """Bytes that can be written in a second to a folder, which is left as it was; None is the
    folder of temporary files."""
    block = os.urandom(1 << 24)
    with tempfile.TemporaryFile(dir=folder) as file:
        begin = time.monotonic()
        for _ in range(8):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return 8 * len(block) / (time.monotonic() - begin)


def _sample(records: Iterable[FastaRecord], input_survey: Survey) -> Iterator[FastaRecord]:
    """The first of the longest records, which decide the memory, and some spread over all."""
    longest = max(input_survey.lengths)
    stride = -(-input_survey.records // _SAMPLE)
    for number, record in enumerate(records):
        is_longest = len(record.sequence) == longest
        if is_longest or number % stride == 0:
            longest = sys.maxsize if is_longest else longest
            yield record


def peak_memory() -> int | None:
    """Peak memory so far in bytes: of the GPU if it was used, else of this process; None if the
    system does not report it."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    number = f"{seconds:.3g}"
    return f"{number} second" if number == "1" else f"{number} seconds"


def in_bytes(size: float) -> str:
    """A number of bytes as text, with its unit."""
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= length:
            return f"{size / length:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"
