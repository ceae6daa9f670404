"""Kills runs of `embed` at many moments and goes on with each; a script for test_resume.

    python -m tests.killed_runs FOLDER EXTENSION KILLS

One process forks the runs, so that torch is loaded once. A run dies by SIGKILL at its n-th
operation on files, in the middle of a write where it is one, or at a random time. Prints, as
JSON, the names of the outputs that differ from the one that was never interrupted.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel

from ernie_rna.embeddings.embed import embed
from ernie_rna.run import arrays
from ernie_rna.run.outputs import OutputError
from ernie_rna.sequences import batches as batching
from ernie_rna.sequences.fasta import FastaRecord

batching.WINDOW_RECORDS = 3


def records():
    generator = random.Random(0)
    return [
        FastaRecord(f"rna{i}", "".join(generator.choices("ACGUN", k=generator.randint(1, 99))))
        for i in range(40)
    ]


def run(folder, extension, model):
    pooling = ("cls", "mean") if extension == "parquet" else ("token", "cls", "mean")
    output = folder / f"out.{extension}"
    options = {"pooling": pooling, "batch_tokens": 256, "long": "window", "overlap": 16}
    embed(records(), model, output, **options, layers=None, progress=False, shard_bytes=10000)


def fork(task):
    """Start a process that does a task, and return its id."""
    child = os.fork()
    if not child:
        task()
        os._exit(0)
    return child


def die_at(operation, do):
    """Have the process kill itself at one of its operations on files."""
    count = 0

    def counted(function, torn=None):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == operation:
                if torn:
                    torn(*args)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in ("replace", "fsync", "unlink", "rmdir", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    write = arrays.write_all
    arrays.write_all = counted(write, lambda file, data: write(file, data[: len(data) // 2]))
    do()
    return count


def content(folder):
    return {path.name: path.is_file() and path.read_bytes() for path in folder.iterdir()}


def main(folder, extension, kills):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 96}
    config = ErnieRnaConfig(**sizes, max_position_embeddings=66)
    model = ErnieRnaModel(config, add_pooling_layer=False).eval()
    whole, broken = folder / "whole", folder / "broken"
    whole.mkdir()
    start = time.monotonic()
    counts = folder / "count"
    child = fork(lambda: counts.write_text(str(die_at(-1, lambda: run(whole, extension, model)))))
    os.waitpid(child, 0)
    seconds, operations = time.monotonic() - start, int(counts.read_text())
    expected = content(whole)

    generator = random.Random(0)
    moments = [round(1 + i * (operations - 1) / (kills - 1)) for i in range(kills)]
    different = []
    for moment in [*moments, *["random"] * 3]:
        shutil.rmtree(broken, ignore_errors=True)
        broken.mkdir()
        if moment == "random":
            child = fork(lambda: run(broken, extension, model))
            time.sleep(generator.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
        else:
            child = fork(lambda at=moment: die_at(at, lambda: run(broken, extension, model)))
        os.waitpid(child, 0)
        os.waitpid(fork(lambda: go_on(broken, extension, model)), 0)
        if content(broken) != expected:
            different.append(f"{moment}: {sorted(content(broken))}")
    print(json.dumps({"operations": operations, "different": different}))


def go_on(folder, extension, model):
    # A run that dies once its output is complete is refused a second time.
    with contextlib.suppress(OutputError):
        run(folder, extension, model)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
