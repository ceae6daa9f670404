"""A long run of `embed` under attack: what it needs, and that its output is always the same.

Real sequences, repeated with every tenth letter drawn anew, go through a model again and again:

    undisturbed          once whole, and once a hundredth of it: peak memory, open files
    killed               by SIGKILL at random moments, each time gone on with
    two processes        both killed once, gone on with by two, or by one
    disk full            no file may be larger than half the output; then it may
    Ray                  two workers, one of them killed in the middle (extra `ray`)

Every output must have the bytes of the undisturbed run, and nothing may be left beside it. Ray's
batches are others, so its vectors may differ by rounding.

    python scripts/long_run.py --sequences 100000 --attacks
    python scripts/long_run.py --sequences 10000 --kills 20
"""

import argparse
import json
import math
import os
import random
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from transformers.utils import logging

from ernie_rna import ErnieRnaConfig, ErnieRnaModel
from ernie_rna.data import examples, resolve_model
from ernie_rna.embeddings.embed import embed
from ernie_rna.embeddings.readers import read_embeddings
from ernie_rna.extras import import_extra
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
ROUNDING = 1e-5  # relative to the largest value of a vector


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


def main(argv: list[str] | None = None) -> int:
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
        self._model = folder / "model"
        if args.model:
            self._model = Path(resolve_model(args.model))
        else:
            save_tiny_model(self._model)
        self._many, self._few = folder / "many.fasta", folder / "few.fasta"
        records = list(read_fasta(args.fasta or examples() / "rna.fasta"))
        self._few_count = max(args.sequences // 100, min(args.sequences, FEW))
        for path, count in ((self._many, args.sequences), (self._few, self._few_count)):
            with open(path, "w", encoding="utf-8") as file:
                write_fasta(file, mutated(records, count, args.seed, args.longest))

    def rows(self) -> Iterator[tuple[str, bool, str]]:
        """Name of a run, whether its output is as it should be, and what it took."""
        few = self._measure(self._few, "few.npz")
        many = self._measure(self._many, "many.npz")
        self._whole = (self._folder / "many.npz").read_bytes()
        self._seconds = many["seconds"]
        more = many["peak"] - few["peak"]
        lost = many["files"][1] - many["files"][0]
        yield (
            f"undisturbed, {self._args.sequences} sequences",
            more < MORE_MEMORY and lost <= 0,
            f"{many['seconds']:.0f} s, {many['peak'] / 1e6:.0f} MB at the peak, {more / 1e6:+.1f} "
            f"MB over {self._few_count} sequences; {lost:+d} open files",
        )
        if "killed" in self._args.attacks:
            yield self._killed()
        if "two-processes" in self._args.attacks:
            yield self._two_processes(2)
            yield self._two_processes(1)
        if "disk-full" in self._args.attacks:
            yield self._disk_full()
        if "ray" in self._args.attacks:
            yield self._ray()

    def _measure(self, fasta: Path, name: str) -> dict:
        report = self._folder / "report.json"

        def run() -> None:
            files = [open_files()]
            start = time.monotonic()
            self._embed(fasta, self._folder / name)
            files.append(open_files())
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            took = {"seconds": time.monotonic() - start, "peak": peak, "files": files}
            report.write_text(json.dumps(took))

        ends([fork(run)])
        return json.loads(report.read_text())

    def _killed(self) -> tuple[str, bool, str]:
        output = self._folder / "killed.npz"
        run = self._run(output)
        kills = self._args.kills
        cut_off = [
            self._kill([fork(run)], output, MOST_KILLED_AT * number / kills)
            for number in range(kills)
        ]
        same = all(cut_off) and ends([fork(run)]) == [0] and self._is_whole(output)
        return f"killed {self._args.kills} times", same, "gone on with each time"

    def _two_processes(self, after: int) -> tuple[str, bool, str]:
        output = self._folder / f"two{after}.npz"
        processes = fork_world(2, self._run(output))
        cut_off = self._kill(processes, output, self._random.uniform(0, MOST_KILLED_AT))
        codes = ends(fork_world(after, self._run(output))) if cut_off else []
        same = set(codes) == {0} and self._is_whole(output)
        return "two processes, both killed", same, f"gone on with by {after}"

    def _disk_full(self) -> tuple[str, bool, str]:
        output = self._folder / "full.npz"
        run = self._run(output)

        def refused() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(self._whole) // 2,) * 2)
            run()

        codes = ends([fork(refused)]) + ends([fork(run)])
        same = codes == [REFUSED, 0] and self._is_whole(output)
        return "disk full", same, "refused, and gone on with once there was room"

    def _ray(self) -> tuple[str, bool, str]:
        output, report = self._folder / "ray", self._folder / "ray.json"

        def run() -> None:
            from ernie_rna.embeddings.on_ray import embed_on_ray

            ray = import_extra("ray", "ray", "the attack on Ray")
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
            killed: list[int] = []
            threading.Thread(target=kill_actor, args=(output, killed), daemon=True).start()
            pooling = self._args.pooling.split(",")
            try:
                embed_on_ray(self._many, output, self._model, pooling=pooling, cpus_per_actor=0.5)
            finally:
                ray.shutdown()  # os._exit, which ends a fork, would leave its processes.
            difference = largest_difference(output, self._folder / "many.npz")
            report.write_text(json.dumps({"killed": len(killed), "difference": difference}))

        if ends([fork(run)]) != [0]:
            return "Ray, a worker killed", False, "ended in an error"
        took = json.loads(report.read_text())
        same = took["killed"] == 1 and took["difference"] <= ROUNDING
        what = f"computed again; within {took['difference']:.1e} of a vector's largest value"
        return "Ray, a worker killed", same, what

    def _run(self, output: Path) -> Callable[[], None]:
        def run() -> None:
            try:
                self._embed(self._many, output)
            except OutputError as error:
                sys.exit(REFUSED if "no room to write" in str(error) else 1)

        return run

    def _embed(self, fasta: Path, output: Path) -> None:
        pooling = self._args.pooling.split(",")
        embed(fasta, self._model, output, pooling=pooling, progress=False)

    def _kill(self, processes: list[int], output: Path, share: float) -> bool:
        """Kill processes soon after a share of the output is computed; whether it was cut off."""
        folder = partial_folder(output)
        while not any(map(has_ended, processes)):
            parts = sum(part.stat().st_size for part in folder.glob("part-*.safetensors"))
            if parts >= share * len(self._whole):
                break
            time.sleep(0.01)
        time.sleep(self._random.uniform(0, self._seconds / 40))
        for process in processes:
            os.kill(process, signal.SIGKILL)
        ends(processes)
        return not output.exists()

    def _is_whole(self, output: Path) -> bool:
        beside = output.with_name(f"{output.name}.partial")
        same = output.exists() and output.read_bytes() == self._whole and not beside.exists()
        output.unlink(missing_ok=True)
        return same


def save_tiny_model(folder: Path) -> None:
    torch.manual_seed(0)
    config = ErnieRnaConfig(hidden_size=48, num_hidden_layers=2, intermediate_size=96)
    ErnieRnaModel(config, add_pooling_layer=False).save_pretrained(folder)


def mutated(
    records: list[FastaRecord], count: int, seed: int, longest: int | None = None
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


def kill_actor(output: Path, killed: list[int]) -> None:
    """Kill a worker of Ray once some of the output is written, and add its id to `killed`."""
    while not killed:
        workers = [int(name) for name in os.listdir("/proc") if name.isdigit() and is_actor(name)]
        if workers and any(output.parent.glob(f".{output.name}.*/*.parquet")):
            os.kill(workers[0], signal.SIGKILL)
            killed.append(workers[0])
        time.sleep(0.02)


def is_actor(process: str) -> bool:
    try:
        return b"EmbedActor" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:  # It has ended.
        return False


def largest_difference(folder: Path, expected: Path) -> float:
    """Of vectors that Ray wrote from those of a file, relative to each vector's largest value.

    Infinite where ids or lengths are others, or in another order.
    """
    parquet = import_extra("pyarrow.parquet", "parquet", "what Ray writes")
    whole = read_embeddings(expected)
    largest = 0.0
    for file in sorted(folder.glob("*.parquet")):
        for row in parquet.read_table(file).to_pylist():
            embedding = next(whole, None)
            if embedding is None or (row["id"], row["length"]) != (embedding.id, embedding.length):
                return math.inf
            for name, vector in embedding.arrays.items():
                difference = np.abs(np.array(row[name], dtype=np.float32) - vector).max()
                largest = max(largest, float(difference / np.abs(vector).max()))
    return largest if next(whole, None) is None else math.inf


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def fork(task: Callable[[], None], **environment: str) -> int:
    """Start a process that does a task, and return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ.update(environment)
        task()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        os._exit(code)


def has_ended(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def fork_world(size: int, task: Callable[[], None]) -> list[int]:
    """Start processes that share a task, as torchrun does."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": str(size), "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    ranks = map(str, range(size))
    return [fork(task, RANK=rank, LOCAL_RANK=rank, **world) for rank in ranks]


def ends(processes: list[int]) -> list[int]:
    """Wait for processes; what they end with, negative for a signal."""
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


if __name__ == "__main__":
    sys.exit(main())
