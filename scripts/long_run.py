"""A long run of `embed` under attack: what it needs, and that its output is always the same.

Real sequences, repeated with every tenth letter drawn anew, go through a model again and again:

    undisturbed          once whole, and once a hundredth of it: peak memory, open files
    killed               by SIGKILL at random moments, each time resumed
    two processes        both killed once, resumed by two, or by one
    disk full            no file may be larger than half the output; then it may

Every output must have the bytes of the undisturbed run, and nothing may be left beside it. What
becomes of a task of Ray that is killed, tests/run/test_on_ray.py sees.

    python -m scripts.long_run --sequences 100000
    python -m scripts.long_run --sequences 10000 --kills 20 --attacks killed
"""

import argparse
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from ernie_rna import ErnieRnaConfig, ErnieRnaModel
from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.data import examples
from ernie_rna.embeddings.embed import embed
from ernie_rna.run.find_model import find_model
from ernie_rna.run.outputs import OutputError
from ernie_rna.run.store import partial_folder
from ernie_rna.sequences.fasta import FastaRecord, read_fasta, write_fasta
from scripts.measuring import print_table

# How much more memory all sequences may take than a hundredth of them, in bytes. The hundredth is
# at least so many sequences that batches are as large as they get.
MORE_MEMORY = 50e6
FEW = 1000
# The latest that a run is killed at, as a share of its output: it must not have ended before.
MOST_KILLED_AT = 0.4
REFUSED = 3  # what a process ends with that found the disk full
ATTACKS = ("killed", "two-processes", "disk-full")
FORK = multiprocessing.get_context("fork")  # torch is loaded once

Process = multiprocessing.context.ForkProcess
Row = tuple[str, str, str]  # name of a run, how its output is, what it took


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("--sequences", type=int, default=100_000, metavar="N", help="how many (100000)")
    add("--kills", type=int, default=20, metavar="N", help="kills of the one process (20)")
    add("--fasta", type=Path, help="where they come from; default: the example RNAs")
    add("--longest", type=int, metavar="N", help="take pieces of N/2 to N nucleotides (whole)")
    add("--attacks", nargs="*", choices=ATTACKS, default=ATTACKS, help="only these, or none (all)")
    add("-m", "--model", help="folder, Hub id or mini; default: a tiny one of random weights")
    add("--seed", type=int, default=0, help="of the letters and of the moments (0)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # Processes that are forked must not inherit a pool of threads.
    with tempfile.TemporaryDirectory() as folder:
        attack = Attack(args, Path(folder))
        print_table(["run", "output", "what it took"], attack.rows())
    return int(attack.failed)


class Attack:
    """The runs, all in one folder.

    Attributes:
        failed: whether an output was not as it should be.
    """

    def __init__(self, args: argparse.Namespace, folder: Path):
        self._args, self._folder, self.failed = args, folder, False
        self._random = random.Random(args.seed)
        self._model = find_model(args.model) if args.model else save_tiny_model(folder / "model")
        self._many = folder / "many.fasta"

    def rows(self) -> Iterator[Row]:
        """The undisturbed run first, whose bytes the others must have."""
        count, kills, attacks = self._args.sequences, self._args.kills, self._args.attacks
        hundredth = max(count // 100, min(count, FEW))
        _, peak, _ = self._undisturbed(self._folder / "few.fasta", hundredth)
        self._seconds, most, lost = self._undisturbed(self._many, count)
        self._whole = self._many.with_suffix(".npz").read_bytes()
        what = (
            f"{self._seconds:.0f} s, {most / 1e6:.0f} MB at the peak, {(most - peak) / 1e6:+.1f} "
            f"MB over {hundredth} sequences; {lost:+d} open files"
        )
        fits = most - peak < MORE_MEMORY and lost <= 0
        yield self._row(f"undisturbed, {count} sequences", fits, what)
        output = self._folder / "out.npz"
        if "killed" in attacks:
            shares = [MOST_KILLED_AT * number / kills for number in range(kills)]
            cut_off = [self._cuts_off(output, 1, share) for share in shares]
            same = all(cut_off) and self._finishes(output)
            yield self._row(f"killed {kills} times", same, "resumed each time")
        for after in (2, 1) if "two-processes" in attacks else ():
            same = self._cuts_off(output, 2, self._random.uniform(0, MOST_KILLED_AT))
            same &= self._finishes(output, after)
            yield self._row("two processes, both killed", same, f"resumed by {after}")
        if "disk-full" in attacks:
            same = ends(self._start(output, limit=len(self._whole) // 2)) == [REFUSED]
            same &= self._finishes(output)
            yield self._row("disk full", same, "refused, and resumed once there was room")

    def _row(self, name: str, same: bool, what: str) -> Row:
        self.failed |= not same
        return name, "the same" if same else "DIFFERS", what

    def _undisturbed(self, fasta: Path, count: int) -> tuple[float, int, int]:
        """Embed so many sequences; seconds, peak memory, and files that stay open."""
        records = list(read_fasta(self._args.fasta or examples() / "rna.fasta"))
        with open(fasta, "w", encoding="utf-8") as file:
            write_fasta(file, mutated(records, count, self._args.seed, self._args.longest))
        with ProcessPoolExecutor(1, FORK) as pool:
            return pool.submit(measured_embed, fasta, self._model).result()

    def _start(self, output: Path, processes: int = 1, limit: int = 0) -> list[Process]:
        """Start processes that share the whole run; `limit` is of the size of a file, 0 none."""

        def run(part: str) -> None:
            if limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                embed(self._many, self._model, output, part=part, progress=False)
            except OutputError as error:
                sys.exit(REFUSED if "no room to write" in str(error) else 1)

        parts = [f"{number + 1}/{processes}" for number in range(processes)]
        started = [FORK.Process(target=run, args=(part,)) for part in parts]
        for process in started:
            process.start()
        return started

    def _cuts_off(self, output: Path, count: int, share: float) -> bool:
        """Kill processes soon after a share of the output is computed; whether they had not ended
        before."""
        processes, folder = self._start(output, count), partial_folder(output)
        while all(process.is_alive() for process in processes):
            sizes = (part.stat().st_size for part in folder.glob("part-*.safetensors"))
            if sum(sizes) >= share * len(self._whole):
                break
            time.sleep(0.01)
        time.sleep(self._random.uniform(0, self._seconds / 40))
        for process in processes:
            process.kill()
        ends(processes)
        return not output.exists()

    def _finishes(self, output: Path, processes: int = 1) -> bool:
        """Whether processes resume a run to the bytes of the undisturbed one; deletes those."""
        same = set(ends(self._start(output, processes))) == {0} and output.exists()
        same = same and output.read_bytes() == self._whole and not partial_folder(output).exists()
        output.unlink(missing_ok=True)
        return same


def measured_embed(fasta: Path, model: Any) -> tuple[float, int, int]:
    """Seconds, peak memory of this process, and how many files more are open behind it."""
    files, start = len(os.listdir("/proc/self/fd")), time.monotonic()
    embed(fasta, model, fasta.with_suffix(".npz"), progress=False)
    seconds, peak = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seconds, 1024 * peak, len(os.listdir("/proc/self/fd")) - files


def save_tiny_model(folder: Path) -> Path:
    torch.manual_seed(0)
    config = ErnieRnaConfig(hidden_size=48, num_hidden_layers=2, intermediate_size=96)
    ErnieRnaModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def mutated(
    records: Sequence[FastaRecord], count: int, seed: int, longest: int | None
) -> Iterator[FastaRecord]:
    """So many records: the given ones, or pieces, in turn, a tenth of the letters drawn anew."""
    generator = random.Random(seed)
    for number in range(count):
        letters = list(records[number % len(records)].sequence)
        if longest is not None:
            length = generator.randint((longest + 1) // 2, longest)
            start = generator.randint(0, max(0, len(letters) - length))
            letters = letters[start : start + length]
        for at in generator.sample(range(len(letters)), len(letters) // 10):
            letters[at] = generator.choice("ACGU")
        yield FastaRecord(f"rna{number}", "".join(letters))


def ends(processes: Sequence[Process]) -> list[int | None]:
    """Wait for processes; what they end with, negative for a signal."""
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


if __name__ == "__main__":
    sys.exit(main())
