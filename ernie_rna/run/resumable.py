"""Runs over a whole input that share the work among processes and go on where they stopped.

What is computed is a `Job`; all else (the input read twice and found unchanged, the store, the
bar, the processes) is done here. Used by `embeddings.embed`; a command with another result
writes a function that makes a job of it.
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ernie_rna.run.outputs import full_disk_explained
from ernie_rna.run.processes import World, joined_world
from ernie_rna.run.progress import Progress
from ernie_rna.run.store import Part, Store
from ernie_rna.run.threads import describe_machine
from ernie_rna.sequences.batches import Plan, Window
from ernie_rna.sequences.fasta import InputError
from ernie_rna.sequences.sources import Source
from ernie_rna.sequences.survey import Digest, Survey, survey

_MAKE_ROOM = "; make room and run the same command again: it goes on where it stopped"

# Is told the number of each batch of a window that is done.
Step = Callable[[int], None]
Results = Mapping[str, np.ndarray | Sequence[str]]


@dataclass(frozen=True)
class Job:
    """What is computed of an input, and what is made of it.

    Attributes:
        metadata: all that the results depend on, as JSON gives it back: input, model, settings,
            versions. A run that goes on must agree with it, and with the machine.
        device: where it is computed.
        plan: how the input is cut; the results of a window are held in memory.
        hidden: width for `batches.work`.
        nbytes: about what the results take.
        compute: makes of a window what `Store.put` takes; calls the function that it is given
            with the number of each batch that is done.
        assemble: makes the output of the parts, in their order, in a folder for what is
            unfinished; gives the files.
    """

    metadata: Mapping[str, Any]
    device: torch.device
    plan: Plan
    hidden: float
    nbytes: int
    compute: Callable[[Window, Step], Results]
    assemble: Callable[[list[Part], Path], list[Path]]


@dataclass(frozen=True)
class RunSummary:
    """What a run has written.

    Attributes:
        files: the output, or its shards and their index.
        records, nucleotides: of the whole output.
        resumed: whether an earlier run had done a part of it.
        seconds: what this run took.
        sequences_per_second: of all processes, in this run.
        padding: share of the tokens computed in this run that was padding.
        rank: number of this process among those that shared the work.
    """

    files: list[Path]
    records: int
    nucleotides: int
    resumed: bool
    seconds: float
    sequences_per_second: float
    padding: float
    rank: int


def run_job(
    source: Source,
    output: Path,
    prepare: Callable[[World, Survey], Job],
    *,
    existing: Sequence[Path] | None = None,
    force: bool = False,
    progress: bool | None = None,
) -> RunSummary:
    """Do a job on a source; a run that was cut off is gone on with.

    Every process of the world calls this: each computes the windows that fall to it, the leading
    one puts the output together, and all return once it is there.

    Args:
        source: the records, checked.
        output: the file to be.
        prepare: loads the model and makes the job, once the whole input has been found fit.
            Called in every process.
        existing, force: as for `Store`.
        progress: whether to show a bar; None shows it on a terminal.

    Raises:
        InputError: the input is unfit, or has changed while it was read.
        OutputError: as by `Store`, or the job or the machine differs from that of the run that
            was cut off, or the disk is full.
    """
    explained = full_disk_explained(output, _MAKE_ROOM)
    with explained, joined_world() as world, contextlib.ExitStack() as stack:
        store = stack.enter_context(
            world.first(lambda: Store(output, existing, force, world.leads))
        )
        if source.once:
            once = source
            source = world.first(lambda: once.kept_in(store.input_path, write=world.leads))
        found = world.lead(lambda: survey(source.read()))
        job = prepare(world, found)
        resumed = world.lead(lambda: _begin(store, job))
        bar = stack.enter_context(contextlib.closing(_bar(progress, job, found, world)))
        count = _compute(source, found, job, store, world, bar)
        # After this, the parts of all processes are there.
        done, tokens, padding = map(world.total, (bar.done, bar.tokens, bar.padding))

        def assemble() -> list[Path]:
            files = job.assemble(store.parts(count), store.folder)
            store.remove()
            return files

        return RunSummary(
            files=world.lead(assemble),
            records=found.records,
            nucleotides=found.nucleotides,
            resumed=resumed,
            seconds=bar.seconds,
            sequences_per_second=done / bar.seconds,
            padding=padding / max(tokens, 1),
            rank=world.rank,
        )


def _begin(store: Store, job: Job) -> bool:
    resumed = store.begin(
        {
            **job.metadata,
            "window_tokens": job.plan.window_tokens,
            "machine": describe_machine(job.device),
        }
    )
    there = sum(path.stat().st_size for path in store.folder.iterdir())
    free = shutil.disk_usage(store.folder).free
    if 2 * job.nbytes - there > free:
        warnings.warn(
            f"{store.output} will take {job.nbytes / 1e6:,.0f} MB and twice that while it is put "
            f"together, but {free / 1e6:,.0f} MB are free",
            stacklevel=2,
        )
    return resumed


def _bar(progress: bool | None, job: Job, found: Survey, world: World) -> Progress:
    def cost(length: int) -> float:
        return job.plan.cost(length, job.hidden)

    return Progress(progress if world.leads else False, job.hidden, found, cost, world.size)


def _compute(
    source: Source, found: Survey, job: Job, store: Store, world: World, bar: Progress
) -> int:
    """Compute the windows that fall to this process; return how many there are in all."""
    digest = Digest()
    count = 0
    for window in job.plan.windows(digest.watch(source.read())):
        count += 1
        if window.number % world.size != world.rank:
            continue
        if store.has(window.number):
            bar.skip(window)
        else:
            store.put(window.number, job.compute(window, partial(bar.advance, window)))
    if digest.sha256 != found.sha256:
        store.invalidate()
        raise InputError("the input was changed while it was being read; run it again")
    return count
