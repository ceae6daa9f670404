"""Functions that the measuring scripts share: fresh processes, samples and tables."""

import multiprocessing
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np


def processor() -> str:
    """The name of the CPU as far as the system reports it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def evenly(items: Sequence[Any], count: int | None) -> Sequence[Any]:
    """At most `count` of the items, evenly spaced; all if it is None."""
    return items if count is None else items[:: max(1, len(items) // count)][:count]


def nearest(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The index of, and cosine to, the nearest other of each centred vector (count, size)."""
    vectors = vectors - vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.argmax(axis=1), cosines.max(axis=1)


def run_anew(function: Callable[..., Any], *arguments: Any, **environment: str) -> Any:
    """Run a function in a new process, in which nothing has been imported; return its result.

    Args:
        environment: environment variables to set for the process.
    """
    spawn = multiprocessing.get_context("spawn")
    with mock.patch.dict(os.environ, environment), ProcessPoolExecutor(1, spawn) as pool:
        return pool.submit(function, *arguments).result()


def print_table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table in Markdown, each row as soon as it is available."""
    print(f"| {' | '.join(titles)} |\n|---|{'--:|' * (len(titles) - 1)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)
