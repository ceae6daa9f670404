"""A long run of `embed` under attack: what it needs, and that its output is always the same.

Real sequences, repeated with every tenth letter drawn anew, go through a model again and again:

    undisturbed          once whole, and once a hundredth of it: peak memory, open files
    killed               by SIGKILL at random moments, each time resumed
    two processes        both killed once, resumed by two, or by one
    disk full            no file may be larger than half the output; then it may
    Ray                  two tasks, one of them killed in the middle (extra `ray`)

Every output must have the bytes of the undisturbed run, and nothing may be left beside it.

    python scripts/long_run.py --sequences 100000
    python scripts/long_run.py --sequences 10000 --kills 20 --attacks killed
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from ernie_rna import ErnieRnaConfig, ErnieRnaModel
from ernie_rna.data import examples
from ernie_rna.embeddings.embed import embed
from ernie_rna.extras import import_extra
from ernie_rna.run.find_model import find_model
from ernie_rna.run.on_ray import on_ray
from ernie_rna.run.outputs import OutputError
from ernie_rna.run.store import partial_folder
from ernie_rna.sequences.fasta import FastaRecord, read_fasta, write_fasta

# How much more memory all sequences may take than a hundredth of them, in bytes. The hundredth is
# at least so many sequences that batches are as large as they get.
MORE_MEMORY = 50e6
FEW = 1000
# The latest that a run is killed at, as a share of its output: it must not have ended before.
MOST_KILLED_AT = 0.6
REFUSED = 3  # what a process ends with that found the disk full
ATTACKS = ("killed", "two-processes", "disk-full", "ray")

Process = multiprocessing.context.ForkProcess
Row = tuple[str, bool, str]  # name of a run, whether its output is as it should be, what it took


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--sequences", type=int, default=100_000, metavar="N", help="how many (100000)")
    add("--kills", type=int, default=20, metavar="N", help="kills of the one process (20)")
    add("--fasta", type=Path, help="where they come from; default: the example RNAs")
    add("--longest", type=int, metavar="N", help="take pieces of N/2 to N nucleotides (whole)")
    add("--attacks", nargs="*", choices=ATTACKS, default=ATTACKS, help="only these, or none (all)")
    add("-m", "--model", help="folder, Hub id or mini; default: a tiny one of random weights")
    add("--pooling", default="mean", help="as for ernie-rna embed, which of them (mean)")
    add("--seed", type=int, default=0, help="of the letters and of the moments (0)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # Processes that are forked must not inherit a pool of threads.
    with tempfile.TemporaryDirectory() as folder:
        attack = Attack(args, Path(folder))
        print("| run | output | what it took |\n|---|---|---|", flush=True)
        passed = True
        for name, same, what in attack.rows():
            print(f"| {name} | {'the same' if same else 'DIFFERS'} | {what} |", flush=True)
            passed = passed and same
    return 0 if passed else 1


class Attack:
    """The runs, all in one folder."""

    def __init__(self, args: argparse.Namespace, folder: Path):
        self._args, self._folder = args, folder
        self._random = random.Random(args.seed)
        self._model = find_model(args.model) if args.model else save_tiny_model(folder / "model")
        self._many, self._few = folder / "many.fasta", folder / "few.fasta"
        records = list(read_fasta(args.fasta or examples() / "rna.fasta"))
        self._few_count = max(args.sequences // 100, min(args.sequences, FEW))
        for path, count in ((self._many, args.sequences), (self._few, self._few_count)):
            with open(path, "w", encoding="utf-8") as file:
                write_fasta(file, mutated(records, count, args.seed, args.longest))

    def rows(self) -> Iterator[Row]:
        """The undisturbed run first, whose bytes the others must have."""
        few, many = (self._measure(path) for path in (self._few, self._many))
        self._whole = self._many.with_suffix(".npz").read_bytes()
        self._seconds = many["seconds"]
        more, lost = many["peak"] - few["peak"], many["files"]
        yield (
            f"undisturbed, {self._args.sequences} sequences",
            more < MORE_MEMORY and lost <= 0,
            f"{many['seconds']:.0f} s, {many['peak'] / 1e6:.0f} MB at the peak, {more / 1e6:+.1f} "
            f"MB over {self._few_count} sequences; {lost:+d} open files",
        )
        attacks = {
            "killed": [self._killed],
            "two-processes": [lambda: self._two_processes(2), lambda: self._two_processes(1)],
            "disk-full": [self._disk_full],
            "ray": [self._ray],
        }
        for name in self._args.attacks:
            yield from (attack() for attack in attacks[name])

    def _measure(self, fasta: Path) -> dict[str, float]:
        report = self._folder / "report.json"

        def run() -> None:
            files, start = open_files(), time.monotonic()
            self._embed(fasta, fasta.with_suffix(".npz"))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            took = {"seconds": time.monotonic() - start, "peak": peak}
            report.write_text(json.dumps({**took, "files": open_files() - files}))

        ends([start(run)])
        found: dict[str, float] = json.loads(report.read_text())
        return found

    def _killed(self) -> Row:
        output, kills = self._folder / "killed.npz", self._args.kills
        cut_off = [
            self._kill(self._start(output), output, MOST_KILLED_AT * number / kills)
            for number in range(kills)
        ]
        same = all(cut_off) and ends(self._start(output)) == [0] and self._is_whole(output)
        return f"killed {kills} times", same, "resumed each time"

    def _two_processes(self, after: int) -> Row:
        output = self._folder / f"two{after}.npz"
        share = self._random.uniform(0, MOST_KILLED_AT)
        cut_off = self._kill(self._start(output, 2), output, share)
        codes = ends(self._start(output, after)) if cut_off else []
        same = set(codes) == {0} and self._is_whole(output)
        return "two processes, both killed", same, f"resumed by {after}"

    def _disk_full(self) -> Row:
        output = self._folder / "full.npz"
        limit = (len(self._whole) // 2,) * 2
        codes = ends(self._start(output, limit=limit)) + ends(self._start(output))
        same = codes == [REFUSED, 0] and self._is_whole(output)
        return "disk full", same, "refused, and resumed once there was room"

    def _ray(self) -> Row:
        folder, killed = self._folder / "ray", self._folder / "killed"
        output = folder / "many.npz"

        def run() -> None:
            ray = import_extra("ray", "ray", "the attack on Ray")
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
            threading.Thread(target=kill_task, args=(output, killed), daemon=True).start()
            try:
                on_ray(embed, self._many, folder, self._model, format=".npz", pooling=self._pooling)
            finally:
                ray.shutdown()  # What ends a fork would leave its processes.

        same = ends([start(run)]) == [0] and killed.exists() and self._is_whole(output)
        return "Ray, a task killed", same, "computed by another"

    @property
    def _pooling(self) -> list[str]:
        pooling: list[str] = self._args.pooling.split(",")
        return pooling

    def _start(
        self, output: Path, processes: int = 1, limit: tuple[int, int] | None = None
    ) -> list[Process]:
        """Start processes that share the whole run.

        Args:
            limit: of the size of a file.
        """

        def run(part: str) -> None:
            if limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            try:
                self._embed(self._many, output, part)
            except OutputError as error:
                sys.exit(REFUSED if "no room to write" in str(error) else 1)

        parts = [f"{number + 1}/{processes}" for number in range(processes)]
        return [start(run, part) for part in parts]

    def _embed(self, fasta: Path, output: Path, part: str = "1/1") -> None:
        embed(fasta, self._model, output, pooling=self._pooling, progress=False, part=part)

    def _kill(self, processes: Sequence[Process], output: Path, share: float) -> bool:
        """Kill processes soon after a share of the output is computed; whether it was cut off."""
        folder = partial_folder(output)
        while all(process.is_alive() for process in processes):
            parts = sum(part.stat().st_size for part in folder.glob("part-*.safetensors"))
            if parts >= share * len(self._whole):
                break
            time.sleep(0.01)
        time.sleep(self._random.uniform(0, self._seconds / 40))
        for process in processes:
            process.kill()
        ends(processes)
        return not output.exists()

    def _is_whole(self, output: Path) -> bool:
        same = output.exists() and output.read_bytes() == self._whole
        same = same and not partial_folder(output).exists()
        output.unlink(missing_ok=True)
        return same


def save_tiny_model(folder: Path) -> Path:
    torch.manual_seed(0)
    config = ErnieRnaConfig(hidden_size=48, num_hidden_layers=2, intermediate_size=96)
    ErnieRnaModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def mutated(
    records: Sequence[FastaRecord], count: int, seed: int, longest: int | None = None
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


def kill_task(output: Path, killed: Path) -> None:
    """Kill a process of Ray that computes once some of the output is, and write that down."""
    while not killed.exists():
        workers = [int(name) for name in os.listdir("/proc") if name.isdigit() and is_task(name)]
        if workers and any(partial_folder(output).glob("part-*")):
            os.kill(workers[0], signal.SIGKILL)
            killed.touch()
        time.sleep(0.02)


def is_task(process: str) -> bool:
    try:
        return b"ray::_call" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:  # It has ended.
        return False


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def start(*task: Any) -> Process:
    """Start a process that calls a function with arguments."""
    process = multiprocessing.get_context("fork").Process(target=task[0], args=task[1:])
    process.start()
    return process


def ends(processes: Sequence[Process]) -> list[int | None]:
    """Wait for processes; what they end with, negative for a signal."""
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


if __name__ == "__main__":
    sys.exit(main())
