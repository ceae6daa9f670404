"""Test long runs of `embed` under attack: the resources they need, and that outputs are equal.

Real sequences, repeated with a tenth of the letters drawn at random, are embedded several times:

    undisturbed          all of them, and a hundredth of them: peak memory, open files
    killed               killed by SIGKILL at random moments, and resumed each time
    two processes        both killed once, and resumed by two processes or by one
    disk full            file size limited to half the output, and then unlimited

Every output must equal that of the undisturbed run byte for byte, and no other files may remain.
tests/run/test_on_ray.py tests killed tasks of Ray.

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

# How much more memory, in bytes, all sequences may take than a hundredth of them. The hundredth has
# at least FEW sequences, enough for batches of the largest size.
MORE_MEMORY = 50e6
FEW = 1000
# Runs are killed at this share of their output at the latest, so that they have not ended before.
MOST_KILLED_AT = 0.4
REFUSED = 3  # the exit code of a process that finds the disk full
ATTACKS = ("killed", "two-processes", "disk-full")
FORK = multiprocessing.get_context("fork")  # so that torch is loaded only once

Process = multiprocessing.context.ForkProcess
Row = tuple[str, str, str]  # name of a run, verdict on its output, what it took


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("--sequences", type=int, default=100_000, metavar="N", help="how many (100000)")
    add("--kills", type=int, default=20, metavar="N", help="kills of the single process (20)")
    add("--fasta", type=Path, help="source of the sequences; default: the example RNAs")
    add("--longest", type=int, metavar="N", help="use pieces of N/2 to N nucleotides (whole)")
    add("--attacks", nargs="*", choices=ATTACKS, default=ATTACKS, help="only these, or none (all)")
    add("-m", "--model", help="folder, Hub id or mini; default: a tiny one with random weights")
    add("--seed", type=int, default=0, help="of the letters and of the times of kills (0)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # Forked processes must not inherit a thread pool.
    with tempfile.TemporaryDirectory() as folder:
        attack = Attack(args, Path(folder))
        print_table(["run", "output", "what it took"], attack.rows())
    return int(attack.failed)


class Attack:
    """All runs of the test, in one folder.

    Attributes:
        failed: whether any run failed.
    """

    def __init__(self, args: argparse.Namespace, folder: Path):
        self._args, self._folder, self.failed = args, folder, False
        self._random = random.Random(args.seed)
        self._model = find_model(args.model) if args.model else save_tiny_model(folder / "model")
        self._many = folder / "many.fasta"

    def rows(self) -> Iterator[Row]:
        """Run all attacks. The undisturbed run is first; the others must produce its bytes."""
        count, kills, attacks = self._args.sequences, self._args.kills, self._args.attacks
        hundredth = max(count // 100, min(count, FEW))
        _, few, _ = self._undisturbed(self._folder / "few.fasta", hundredth)
        self._seconds, peak, open_files = self._undisturbed(self._many, count)
        self._expected = self._many.with_suffix(".npz").read_bytes()
        what = (
            f"{self._seconds:.0f} s, {peak / 1e6:.0f} MB at the peak, {(peak - few) / 1e6:+.1f} "
            f"MB over {hundredth} sequences; {open_files:+d} open files"
        )
        passed = peak - few < MORE_MEMORY and open_files <= 0
        yield self._row(f"undisturbed, {count} sequences", passed, what)
        output = self._folder / "out.npz"
        if "killed" in attacks:
            shares = [MOST_KILLED_AT * number / kills for number in range(kills)]
            killed = [self._kill_at(output, 1, share) for share in shares]
            passed = all(killed) and self._finishes(output)
            yield self._row(f"killed {kills} times", passed, "resumed each time")
        for resuming in (2, 1) if "two-processes" in attacks else ():
            passed = self._kill_at(output, 2, self._random.uniform(0, MOST_KILLED_AT))
            passed &= self._finishes(output, resuming)
            yield self._row("two processes, both killed", passed, f"resumed by {resuming}")
        if "disk-full" in attacks:
            passed = exit_codes(self._start(output, limit=len(self._expected) // 2)) == [REFUSED]
            passed &= self._finishes(output)
            yield self._row("disk full", passed, "refused, and resumed once there was room")

    def _row(self, name: str, passed: bool, what: str) -> Row:
        self.failed |= not passed
        return name, "the same" if passed else "DIFFERS", what

    def _undisturbed(self, fasta: Path, count: int) -> tuple[float, int, int]:
        """Embed `count` sequences without an attack; see `measured_embed` for the result."""
        records = list(read_fasta(self._args.fasta or examples() / "rna.fasta"))
        with open(fasta, "w", encoding="utf-8") as file:
            write_fasta(file, mutated(records, count, self._args.seed, self._args.longest))
        with ProcessPoolExecutor(1, FORK) as pool:
            return pool.submit(measured_embed, fasta, self._model).result()

    def _start(self, output: Path, processes: int = 1, limit: int = 0) -> list[Process]:
        """Start processes that share a run; `limit` is the largest size of a file, 0 for none."""

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

    def _kill_at(self, output: Path, count: int, share: float) -> bool:
        """Kill processes after a share of the output; return whether they had not finished."""
        processes, folder = self._start(output, count), partial_folder(output)
        while all(process.is_alive() for process in processes):
            sizes = (part.stat().st_size for part in folder.glob("part-*.safetensors"))
            if sum(sizes) >= share * len(self._expected):
                break
            time.sleep(0.01)
        time.sleep(self._random.uniform(0, self._seconds / 40))
        for process in processes:
            process.kill()
        exit_codes(processes)
        return not output.exists()

    def _finishes(self, output: Path, processes: int = 1) -> bool:
        """Resume a run, delete its output, and return whether it had the expected bytes."""
        succeeded = set(exit_codes(self._start(output, processes))) == {0} and output.exists()
        same = succeeded and output.read_bytes() == self._expected
        output.unlink(missing_ok=True)
        return same and not partial_folder(output).exists()


def measured_embed(fasta: Path, model: Any) -> tuple[float, int, int]:
    """Embed a file; return seconds, peak bytes of this process, and the change of open files."""
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
    """`count` records, made from the given ones or pieces by redrawing a tenth of the letters."""
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


def exit_codes(processes: Sequence[Process]) -> list[int | None]:
    """Wait for processes; return their exit codes, which are negative for a signal."""
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


if __name__ == "__main__":
    sys.exit(main())
