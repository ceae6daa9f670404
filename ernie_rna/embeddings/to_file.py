"""Embeddings into a file: a job for `inference.resumable`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ernie_rna.embeddings.columns import check_pooling
from ernie_rna.embeddings.encoder import Encoder
from ernie_rna.embeddings.options import EmbedOptions, Model
from ernie_rna.embeddings.writers import Table, check_output, existing_files, write_table
from ernie_rna.files.store import Part
from ernie_rna.inference.identity import model_name, model_sha256, versions
from ernie_rna.inference.processes import World
from ernie_rna.inference.resumable import Job, Results, RunSummary, Step, run_job
from ernie_rna.sequences.batches import Plan, Window
from ernie_rna.sequences.long import LONG
from ernie_rna.sequences.sources import Source
from ernie_rna.sequences.survey import Survey, check_lengths


def embed_to_file(
    source: Source,
    model: Model,
    output: Path,
    options: EmbedOptions,
    force: bool,
    progress: bool | None,
    shard_bytes: int,
) -> RunSummary:
    """Write the embeddings of a source to a file; arguments and errors as for `embed.embed`."""
    check_output(output, check_pooling(options.pooling))

    def prepare(world: World, found: Survey) -> Job:
        own = replace(options, device=world.own_device(options.device))
        encoder, plan = own.load(model)
        config = encoder.model.config
        world.lead(lambda: check_lengths(found, config, options.long, LONG))
        metadata = _metadata(encoder, plan, options, found, model)

        def compute(window: Window, step: Step) -> Results:
            lengths = np.array(window.lengths, np.int64)
            return {"ids": window.ids, "lengths": lengths, **encoder.encode_window(window, step)}

        def assemble(parts: list[Part], folder: Path) -> list[Path]:
            return write_table(Table(metadata, parts), output, folder, shard_bytes)

        nbytes = encoder.nbytes(found.records, found.nucleotides)
        device = encoder.model.device
        return Job(metadata, device, plan, encoder.hidden, nbytes, compute, assemble)

    return run_job(
        source,
        output,
        prepare,
        existing=existing_files(output),
        force=force,
        progress=progress,
    )


def _metadata(
    encoder: Encoder, plan: Plan, options: EmbedOptions, found: Survey, model: Model
) -> dict[str, Any]:
    """What the output says of itself: all that it depends on, nothing else."""
    loaded = encoder.model
    config = loaded.config
    on_cpu = loaded.device.type == "cpu"
    return {
        "format": "ernie-rna embeddings",
        "format_version": 1,
        "columns": [column.name for column in encoder.columns],
        "hidden_size": encoder.hidden,
        "records": found.records,
        "nucleotides": found.nucleotides,
        "input_sha256": found.sha256,
        "model": {
            "name": model_name(model),
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
