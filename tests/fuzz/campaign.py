"""Read damaged files with a reader in a separate process, and record the outcome of each.

The memory of the process is limited. An alarm stops a reader that computes for too long, and a
limit on CPU time stops one that the alarm does not reach. If the process dies (in a C library), the
input is a finding, and another process continues with the next input.
"""

import contextlib
import multiprocessing
import os
import resource
import signal
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from tests.fuzz.readers import Reader

SECONDS = 5  # of computing for one input; docs/robustness.md has measured times ("slowest")
_WAIT = 600  # seconds to wait for an outcome; on a busy machine a process may be paused for long
MEMORY = 1 << 30  # bytes that a reader may allocate in addition to those of the process


class TooSlowError(BaseException):
    """The reader computes for too long. Not an Exception, so that no reader catches it."""


@dataclass
class Outcome:
    """The outcomes of a reader's inputs.

    Attributes:
        inputs: number of inputs.
        refused: number of inputs that ended in an allowed error, by its name.
        findings: number of the input and description, for each outcome that is not allowed.
        slowest: longest computing time in seconds.
        peak: peak memory in bytes, in addition to that of the process at its start.
    """

    reader: str
    inputs: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)
    slowest: float = 0.0
    peak: int = 0

    @property
    def results(self) -> int:
        """The number of inputs that the reader could read."""
        return self.inputs - self.refused.total() - len(self.findings)

    def add(self, refused: str, finding: str, seconds: float = 0.0, peak: int = 0) -> None:
        """Add the outcome of the next input."""
        self.refused.update([refused] if refused else [])
        self.findings += [(self.inputs, finding)] if finding else []
        self.slowest, self.peak = max(self.slowest, seconds), max(self.peak, peak)
        self.inputs += 1


def run(reader: Reader, folder: Path, inputs: int) -> Outcome:
    """Read this many damaged files with a reader, in processes that start anew after a crash."""
    context = multiprocessing.get_context("fork")
    outcome = Outcome(reader.name)
    while outcome.inputs < inputs:
        receiver, sender = context.Pipe(duplex=False)
        numbers = range(outcome.inputs, inputs)
        child = context.Process(target=_feed, args=(reader, folder, numbers, sender))
        child.start()
        sender.close()
        with contextlib.suppress(EOFError):
            while outcome.inputs < inputs and receiver.poll(_WAIT):
                outcome.add(*receiver.recv())
        child.join(10)  # A child that waits forever is still alive afterwards.
        if outcome.inputs < inputs:
            died = f"the process died (exit code {child.exitcode})"
            outcome.add("", "waits forever" if child.exitcode is None else died)
            child.kill()
    return outcome


def _feed(reader: Reader, folder: Path, numbers: range, sender: Connection) -> None:
    torch.set_num_threads(1)  # A forked process has none of its parent's threads.
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _alarm)
    start_memory = 0
    for content in reader.inputs(folder, numbers.start, numbers.stop):
        (folder / reader.file).write_bytes(content)
        start_memory = start_memory or limit_memory()
        start = time.process_time()
        refused, finding = _try(reader, folder / reader.file, int(start + 2 * SECONDS) + 1)
        sender.send((refused, finding, time.process_time() - start, _peak() - start_memory))
    sender.close()
    os._exit(0)


def _try(reader: Reader, path: Path, max_cpu_seconds: int) -> tuple[str, str]:
    """The name of the allowed error that the reader raises, and the finding; each may be ""."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    hard_limit = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (max_cpu_seconds, hard_limit))
    try:
        reader.read(path)
    except reader.refuses as error:
        return type(error).__name__, ""
    except TooSlowError:
        return "", f"computes for more than {SECONDS} s"
    except Exception as error:
        return "", describe(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "", ""


def limit_memory() -> int:
    """Limit this process to `MEMORY` bytes more than it has now; return its peak so far."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return _peak()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def describe(error: BaseException) -> str:
    """An error with its message and the last line of this package in its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    *_, last = [frame for frame in frames if "ernie_rna" in frame.filename] or frames
    where = f"{Path(last.filename).name}:{last.lineno}"
    return f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:160]}"


def _alarm(*_: object) -> None:
    raise TooSlowError


def table(outcomes: list[Outcome]) -> str:
    """A Markdown table with a row for each reader."""
    lines = [
        "| reader | inputs | results | refused, by error | findings | slowest (ms) | peak (MB) |",
        "|---|--:|--:|---|--:|--:|--:|",
    ]
    for outcome in outcomes:
        errors = outcome.refused.most_common()
        refused = ", ".join(f"{count:,} {name}" for name, count in errors) or "none"
        counts = f"{outcome.inputs:,} | {outcome.results:,} | {refused} | {len(outcome.findings):,}"
        cost = f"{1000 * outcome.slowest:.0f} | {outcome.peak / 1e6:.0f}"
        lines.append(f"| {outcome.reader} | {counts} | {cost} |")
    return "\n".join(lines)
