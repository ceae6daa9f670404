"""Processes that compute for the page, so that a request can be stopped and cannot take it down.

pebble keeps as many of them as are asked for, and ends one whose request takes too long. Each loads
the models once, before the time of a request counts. Memory is limited by the operating system
(Linux, on a CPU).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
import traceback
from collections.abc import Mapping
from concurrent.futures import TimeoutError
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from typing import Any

from ernie_rna.extras import import_extra
from ernie_rna.options import ServeOptions

# Name -> folder or Hub id.
Models = tuple[tuple[str, str], ...]

_SMALLER = "take fewer or shorter sequences"


class TaskError(RuntimeError):
    """A task has no result; the message is for whoever asked."""


class Pool:
    """A context with processes that have loaded some models.

    Args:
        models: name -> folder or Hub id.
        options: how many processes, and how much one may take.
    """

    def __init__(self, models: Mapping[str, str], options: ServeOptions):
        self._pebble = import_extra("pebble", "web", "the web page")
        self._setup, self._seconds = (tuple(models.items()), options), options.seconds
        # Torch's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._start = partial(
            self._pebble.ProcessPool, options.workers, 0, _load, self._setup, context
        )
        self._pool, self._lock = self._start(), threading.Lock()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.stop()
        self._pool.join()

    def run(self, task: str, **arguments: Any) -> Any:
        """The result of a method of `tasks.Tasks`; all but `describe` are limited in time.

        Raises:
            TaskError: it failed, took too long or too much memory; or no model can be loaded.
        """
        seconds = None if task == "describe" else self._seconds
        with self._lock:
            if not self._pool.active:  # A process that had nothing to do was killed.
                self.__exit__()
                self._pool = self._start()
            given = (*self._setup, task, arguments)
            future = self._pool.schedule(_answer, given, timeout=seconds)
        try:
            succeeded, value = future.result()
        except TimeoutError:
            succeeded = False
            value = f"this took longer than the {seconds:g} seconds of a request: {_SMALLER}"
        except (self._pebble.ProcessExpired, BrokenProcessPool):
            succeeded = False
            value = f"the process that computes ended, maybe for lack of memory: {_SMALLER}"
        if not succeeded:
            raise TaskError(value)
        return value


def _load(models: Models, options: ServeOptions) -> None:
    """Load the models of this process; what is wrong with them is what each task answers."""
    with contextlib.suppress(Exception):
        _tasks(models, options)


@cache
def _tasks(models: Models, options: ServeOptions) -> Any:
    from ernie_rna.web.tasks import Tasks

    tasks = Tasks(dict(models), options)
    if sys.platform == "linux" and tasks.device.type == "cpu":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (int(options.gigabytes * 2**30), hard))
    return tasks


def _answer(
    models: Models, options: ServeOptions, task: str, arguments: Mapping[str, Any]
) -> tuple[bool, Any]:
    """(True, result) or (False, message); the unforeseen is told to the server's log alone."""
    from ernie_rna.run.loading import EncodingError, is_out_of_memory

    try:
        return True, getattr(_tasks(models, options), task)(**arguments)
    except Exception as error:
        if is_out_of_memory(error):
            return False, f"not enough memory for this: {_SMALLER}"
        if task == "describe" or isinstance(error, (ValueError, EncodingError)):
            return False, str(error)
        traceback.print_exc()
        return False, "internal error; the log of the server says more"
