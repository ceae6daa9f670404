"""Feeds a reader with damaged files in a process of its own, and says what became of each.

The process has a limit on its memory; an alarm ends what computes for too long, and a second limit
what no alarm reaches. If the process dies (in a C library), the input is a finding and another
process goes on behind it.
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

# Of computing, for one input; the slowest that was found took half a second.
SECONDS = 5
_WAIT = 600  # seconds for a sign of life; on a busy machine a process may get no turn for long
MEMORY = 1 << 30  # bytes that a reader may take beyond what the process has


class TooSlowError(BaseException):
    """Not an Exception, so that no reader catches it."""


@dataclass
class Outcome:
    """What became of a reader's inputs.

    Attributes:
        inputs: how many there were.
        refused: how many by the name of the error.
        findings: what should not be, with the number of the input.
        slowest: in seconds; peak: bytes beyond what the process began with.
    """

    reader: str
    inputs: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)
    slowest: float = 0.0
    peak: int = 0

    @property
    def results(self) -> int:
        """Of how many the reader made something."""
        return self.inputs - self.refused.total() - len(self.findings)

    def add(self, refused: str, finding: str, seconds: float = 0.0, peak: int = 0) -> None:
        """The next input."""
        self.refused.update([refused] if refused else [])
        self.findings += [(self.inputs, finding)] if finding else []
        self.slowest, self.peak = max(self.slowest, seconds), max(self.peak, peak)
        self.inputs += 1


def run(reader: Reader, folder: Path, inputs: int) -> Outcome:
    """Feed a reader with so many inputs."""
    context = multiprocessing.get_context("fork")
    outcome = Outcome(reader.name)
    while outcome.inputs < inputs:
        ours, theirs = context.Pipe(duplex=False)
        numbers = range(outcome.inputs, inputs)
        child = context.Process(target=_feed, args=(reader, folder, numbers, theirs))
        child.start()
        theirs.close()
        with contextlib.suppress(EOFError):
            while outcome.inputs < inputs and ours.poll(_WAIT):
                outcome.add(*ours.recv())
        child.join(10)  # One that waits for ever does not end by this.
        if outcome.inputs < inputs:
            died = f"the process died (exit code {child.exitcode})"
            outcome.add("", "waits for ever" if child.exitcode is None else died)
            child.kill()
    return outcome


def _feed(reader: Reader, folder: Path, numbers: range, theirs: Connection) -> None:
    torch.set_num_threads(1)  # The threads of the process that was forked are not there.
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _alarm)
    start_memory = 0
    for content in reader.inputs(folder, numbers.start, numbers.stop):
        (folder / reader.file).write_bytes(content)
        start_memory = start_memory or limit_memory()
        start = time.process_time()
        found = _try(reader, folder / reader.file, int(start + 2 * SECONDS) + 1)
        theirs.send((*found, time.process_time() - start, _peak() - start_memory))
    theirs.close()
    os._exit(0)


def _try(reader: Reader, path: Path, limit: int) -> tuple[str, str]:
    """The name of the error that the reader refuses a file by, and what should not be."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
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
    """Let this process take `MEMORY` more than it has; return its peak so far."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return _peak()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def describe(error: BaseException) -> str:
    """An error and the last line of our own that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "ernie_rna" in frame.filename] or frames
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
    return f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:160]}"


def _alarm(*_: object) -> None:
    raise TooSlowError


def table(outcomes: list[Outcome]) -> str:
    """Markdown, a row a reader."""
    lines = [
        "| reader | inputs | results | refused, by error | findings | slowest (ms) | peak (MB) |",
        "|---|--:|--:|---|--:|--:|--:|",
    ]
    for one in outcomes:
        refused = ", ".join(f"{count:,} {name}" for name, count in one.refused.most_common())
        numbers = f"{one.inputs:,} | {one.results:,} | {refused or 'none'} | {len(one.findings):,}"
        cost = f"{1000 * one.slowest:.0f} | {one.peak / 1e6:.0f}"
        lines.append(f"| {one.reader} | {numbers} | {cost} |")
    return "\n".join(lines)
