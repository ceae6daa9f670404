"""Embeddings into a file: the windows of the input, one after the other, then the output."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch

from ernie_rna.embeddings.columns import check_pooling
from ernie_rna.embeddings.encoder import Encoder, model_sha256
from ernie_rna.embeddings.options import EmbedOptions, Model, check_lengths, make_bar, versions
from ernie_rna.embeddings.store import Store
from ernie_rna.embeddings.table import Table
from ernie_rna.embeddings.writers import check_output, existing_files, write_table
from ernie_rna.inference.processes import World, joined_world
from ernie_rna.inference.progress import Progress
from ernie_rna.sequences.batches import Plan
from ernie_rna.sequences.fasta import InputError
from ernie_rna.sequences.sources import Source
from ernie_rna.sequences.survey import Digest, Survey, survey


@dataclass(frozen=True)
class EmbedSummary:
    """What `embed` has written.

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


def embed_to_file(
    source: Source,
    model: Model,
    output: Path,
    options: EmbedOptions,
    force: bool,
    progress: bool | None,
    shard_bytes: int,
) -> EmbedSummary:
    """Write the embeddings of a source to a file; arguments and errors as for `embed.embed`.

    Every process of the world calls this: each computes the windows that fall to it, the leading
    one puts the output together, and all return once it is there.
    """
    check_output(output, check_pooling(options.pooling))
    with joined_world() as world, contextlib.ExitStack() as stack:
        store = stack.enter_context(
            world.first(lambda: Store(output, existing_files(output), force, world.leads))
        )
        if source.once:
            once = source
            source = world.first(lambda: once.kept_in(store.input_path, write=world.leads))
        found = world.lead(lambda: survey(source.read()))
        encoder, plan = _on_own_gpu(options, world).load(model)
        plan = plan.for_input(found.nucleotides + 2 * found.records)
        world.lead(lambda: check_lengths(found, plan, encoder))
        metadata = _metadata(encoder, plan, options, found, model)
        resumed = world.lead(lambda: store.begin(metadata))
        world.lead(lambda: _check_room(store, encoder, found))
        bar = stack.enter_context(
            contextlib.closing(make_bar(progress, encoder, plan, found, world))
        )
        count = _compute(source, found, encoder, plan, store, world, bar)
        # After this, the parts of all processes are there.
        done, tokens, padding = map(world.total, (bar.done, bar.tokens, bar.padding))

        def assemble() -> list[Path]:
            parts = [store.part(number, encoder.layout) for number in range(count)]
            files = write_table(
                Table(metadata, encoder.layout, parts), output, store.folder, shard_bytes
            )
            store.remove()
            return files

        return EmbedSummary(
            files=world.lead(assemble),
            records=found.records,
            nucleotides=found.nucleotides,
            resumed=resumed,
            seconds=bar.seconds,
            sequences_per_second=done / bar.seconds,
            padding=padding / max(tokens, 1),
            rank=world.rank,
        )


def _compute(
    source: Source,
    found: Survey,
    encoder: Encoder,
    plan: Plan,
    store: Store,
    world: World,
    bar: Progress,
) -> int:
    """Compute the windows that fall to this process; return how many there are in all."""
    digest = Digest()
    count = 0
    for window in plan.windows(digest.watch(source.read())):
        count += 1
        if window.number % world.size != world.rank:
            continue
        batches = range(len(window.batches))
        if store.has(window.number):
            bar.advance(window, batches, skip=True)
            continue
        with contextlib.closing(store.open_part(window, encoder.layout)) as part:
            bar.advance(window, list(part.done), skip=True)
            for batch in batches:
                if batch not in part.done:
                    part.write(batch, encoder.encode(window, batch))
                    bar.advance(window, [batch])
            part.finish()
    if digest.sha256 != found.sha256:
        store.invalidate()
        raise InputError("the input was changed while it was being read; run it again")
    return count


def _on_own_gpu(options: EmbedOptions, world: World) -> EmbedOptions:
    """Processes on one machine take a GPU each."""
    several = world.size > 1 and options.device in (None, "auto", "cuda")
    if several and torch.cuda.is_available():
        return replace(options, device=f"cuda:{world.local_rank % torch.cuda.device_count()}")
    return options


def _metadata(
    encoder: Encoder, plan: Plan, options: EmbedOptions, found: Survey, model: Model
) -> dict[str, Any]:
    """What the output says of itself: all that it depends on, nothing else."""
    loaded = encoder.model
    config = loaded.config
    name = fspath(model) if isinstance(model, (str, PathLike)) else config._name_or_path
    on_cpu = loaded.device.type == "cpu"
    return {
        "format": "ernie-rna embeddings",
        "format_version": 1,
        "columns": [column.name for column in encoder.columns],
        "hidden_size": encoder.layout.hidden,
        "records": found.records,
        "nucleotides": found.nucleotides,
        "input_sha256": found.sha256,
        "model": {
            "name": name,
            "revision": getattr(config, "_commit_hash", None),
            "sha256": model_sha256(loaded),
        },
        "settings": {
            "layers": sorted({column.layer for column in encoder.columns}),
            "pooling": sorted({column.pooling for column in encoder.columns}),
            "dtype": str(loaded.dtype).removeprefix("torch."),
            "device": loaded.device.type,
            "attention": config._attn_implementation,
            "threads": options.threads if on_cpu else None,
            "batch_tokens": plan.batch_tokens,
            "long": plan.long,
            "overlap": plan.overlap if plan.long == "window" else None,
            "unknown": options.unknown,
        },
        "versions": versions(),
    }


def _check_room(store: Store, encoder: Encoder, found: Survey) -> None:
    """Warn if the disk cannot hold what is to be written."""
    size = encoder.layout.nbytes(found.records, found.nucleotides)
    there = sum(path.stat().st_size for path in store.folder.iterdir())
    free = shutil.disk_usage(store.folder).free
    if 2 * size - there > free:
        warnings.warn(
            f"{store.output} will take {size / 1e6:,.0f} MB and twice that while it is put "
            f"together, but {free / 1e6:,.0f} MB are free",
            stacklevel=2,
        )
