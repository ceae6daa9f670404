"""Kill runs at many moments and resume each; a script for tests/run/test_runner.py.

    python -m tests.killed_runs FOLDER EXTENSION KILLS

The runs are of `embed`, or, for tsv, of `mutate` with two outputs. One process forks them, so that
torch is loaded only once. SIGKILL ends a run at its n-th file operation (in the middle of it, if it
is a write) or at a random time. The script prints, as JSON, the number of file operations of a run,
and the moments of a kill after which the resumed outputs differ from those of an undisturbed run.
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

from ernie_rna.embeddings.embed import embed
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM, ErnieRnaModel
from ernie_rna.run import parts
from ernie_rna.run.outputs import OutputError
from ernie_rna.scoring.mutate import mutate
from ernie_rna.sequences import chunks as chunking
from ernie_rna.sequences.fasta import FastaRecord

chunking.CHUNK_RECORDS = 3


def records(count, longest):
    generator = random.Random(0)
    lengths = [generator.randint(1, longest) for _ in range(count)]
    return [
        FastaRecord(f"rna{i}", "".join(generator.choices("ACGUN", k=length)))
        for i, length in enumerate(lengths)
    ]


def run(folder, extension, model):
    output = folder / f"out.{extension}"
    if extension == "tsv":
        positions = folder / "positions.tsv"
        mutate(records(12, 30), model, output, positions, batch_tokens=16, progress=False)
        return
    options = {"batch_tokens": 256, "long": "window", "overlap": 16, "progress": False}
    options |= {"pooling": ("token", "cls", "mean"), "layers": None, "shard_bytes": 10000}
    embed(records(40, 99), model, output, **options)


def forked(task, seconds=None):
    """Run a task in a child process; if `seconds` is given, kill the process after that time."""
    child = os.fork()
    if not child:
        task()
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def die_at(operation, task):
    """Run a task and kill this process at the given file operation; return the number of them."""
    count = 0

    def counted(function, last_act=None):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == operation:
                if last_act:
                    last_act(*args)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in ("replace", "fsync", "unlink", "rmdir", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    save = parts.save_file
    parts.save_file = counted(save, lambda *args: write_half(save, *args))
    task()
    return count


def write_half(save, arrays, path, metadata):
    save(arrays, path, metadata)
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])


def content(folder):
    return {path.name: path.is_file() and path.read_bytes() for path in folder.iterdir()}


def make_model(extension):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 96}
    config = ErnieRnaConfig(**sizes, max_position_embeddings=66)
    if extension == "tsv":
        return ErnieRnaForMaskedLM(config).eval()
    return ErnieRnaModel(config, add_pooling_layer=False).eval()


def main(folder, extension, kills):
    model = make_model(extension)
    undisturbed, killed, counts = folder / "undisturbed", folder / "killed", folder / "count"
    undisturbed.mkdir()
    start = time.monotonic()
    forked(lambda: counts.write_text(str(die_at(-1, lambda: run(undisturbed, extension, model)))))
    seconds, operations = time.monotonic() - start, int(counts.read_text())
    moments = [round(1 + i * (operations - 1) / (kills - 1)) for i in range(kills)]
    generator, different = random.Random(0), []

    def resume():
        # If the killed run had completed its output, a second run is refused.
        with contextlib.suppress(OutputError):
            run(killed, extension, model)

    for moment in [*moments, "random", "random", "random"]:
        killed.mkdir()
        if moment == "random":
            forked(lambda: run(killed, extension, model), generator.uniform(0, seconds))
        else:
            forked(lambda at=moment: die_at(at, lambda: run(killed, extension, model)))
        forked(resume)
        if content(killed) != content(undisturbed):
            different.append(f"{moment}: {sorted(content(killed))}")
        shutil.rmtree(killed)
    print(json.dumps({"operations": operations, "different": different}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
