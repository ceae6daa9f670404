"""Processes that compute for the page, so that a request can be stopped and cannot take it down.

A worker loads the models once and then does one job of `tasks` after another. One that takes too
long is killed and started anew. Memory is limited by the operating system (Linux, on a CPU).
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ernie_rna.web.inputs import Limits

# Loading models may take longer than a job.
_SECONDS_TO_START = 600.0


class TaskError(RuntimeError):
    """A job has no result; the message is for whoever asked."""


@dataclass(frozen=True)
class Setup:
    """What a worker is started with.

    Attributes:
        models: name -> folder or Hub id.
        device: of torch.
        threads: of torch on a CPU; None leaves them as they are.
        limits: of time and memory.
    """

    models: Mapping[str, str]
    device: str = "auto"
    threads: int | None = None
    limits: Limits = field(default_factory=Limits)


class Worker:
    """One process; `start` it before the first `run`."""

    def __init__(self, setup: Setup):
        self._setup = setup
        self._process: Any = None
        self._pipe: Any = None

    def start(self) -> Any:
        """Start the process; return what `tasks.Tasks.describe` says of the models.

        Raises:
            TaskError: a model cannot be loaded.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self._setup), daemon=True)
        self._process.start()
        theirs.close()
        return self._answer(_SECONDS_TO_START)

    def run(self, task: str, **arguments: Any) -> Any:
        """The result of a method of `tasks.Tasks`.

        Raises:
            TaskError: it failed, took too long or too much memory.
        """
        if not self._process.is_alive():
            self.start()
        self._pipe.send((task, arguments))
        return self._answer(self._setup.limits.seconds)

    def _answer(self, seconds: float) -> Any:
        problem = (
            f"this took longer than the {seconds:g} seconds that the page gives to each request: "
            "take fewer or shorter sequences"
        )
        try:
            if self._pipe.poll(seconds):
                succeeded, value = self._pipe.recv()
                if succeeded:
                    return value
                raise TaskError(value)
        except (EOFError, ConnectionError):
            problem = (
                "the process that computes has ended, most likely for want of memory: take fewer "
                "or shorter sequences"
            )
        self.close()
        raise TaskError(problem)

    def close(self) -> None:
        """End the process, whatever it is at."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()


class Workers:
    """A few workers that take turns; a context that ends them."""

    def __init__(self, setup: Setup, count: int = 1):
        self._all = [Worker(setup) for _ in range(count)]
        self._free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self.models: Any = None

    def __enter__(self) -> Workers:
        try:
            for worker in self._all:
                self.models = worker.start()
                self._free.put(worker)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._all:
            worker.close()

    def run(self, task: str, **arguments: Any) -> Any:
        """As `Worker.run`, by the next worker that is free."""
        worker = self._free.get()
        try:
            return worker.run(task, **arguments)
        finally:
            self._free.put(worker)


def _work(pipe: Any, setup: Setup) -> None:
    """What the process does: answer requests until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends us.
    from ernie_rna.web.tasks import Tasks

    try:
        tasks = Tasks(setup.models, setup.device, setup.threads)
        described = tasks.describe()
    except Exception as error:
        pipe.send((False, str(error)))
        return
    if sys.platform == "linux" and tasks.device.type == "cpu":
        _limit_memory(setup.limits.gigabytes)
    pipe.send((True, described))
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(_outcome(getattr(tasks, name), arguments))


def _outcome(task: Callable[..., Any], arguments: Mapping[str, Any]) -> tuple[bool, Any]:
    """(True, result) or (False, message); what nobody foresaw is told to the server's log alone."""
    from ernie_rna.run.loading import EncodingError, is_out_of_memory

    try:
        return True, task(**arguments)
    except Exception as error:
        if is_out_of_memory(error):
            return False, "not enough memory for this: take fewer or shorter sequences"
        if isinstance(error, (ValueError, ImportError, EncodingError)):
            return False, str(error)
        traceback.print_exc()
        return False, "internal error, which the log of the server tells more about"


def _limit_memory(gigabytes: float) -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (int(gigabytes * 2**30), hard))
