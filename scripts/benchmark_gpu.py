"""Time and memory of ERNIE-RNA on a GPU, beside multimolecule and what the card can do at all.

All implementations run by turns in one process, timed by the device's own events; the medians are
printed. Two floors stand beside them, both at rates measured on this card: the floating-point
operations of the model's matrix products at the rate of an 8192 x 8192 x 8192 product, and the
fewest passes over the attention scores at the rate of a copy. Peak memory is above the weights.
Weights are random: time does not depend on them.

    python scripts/benchmark_gpu.py                            # inference in bfloat16
    python scripts/benchmark_gpu.py --train --dtype float32
    python scripts/benchmark_gpu.py --longest                  # how long a sequence may be
    python scripts/benchmark_gpu.py --profile fused 16x1024    # where the time goes
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch

from scripts.measuring import (
    MIB,
    PEER,
    Implementation,
    Step,
    alternate,
    flops,
    is_installed,
    print_case,
    print_table,
    sizes,
    versions,
)

CASES = ("8x128", "256x128", "64x512", "16x1024", "1x4096")
TRAINING_CASES = ("64x128", "16x512", "4x1024")
LONGEST = 65536  # tokens; more are not tried
LAYERS, HEADS = 12, 12


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Without our kernels."""
    from ernie_rna.model.fused_ernie_rna import DEVICE_TYPES

    DEVICE_TYPES.discard("cuda")
    try:
        yield
    finally:
        DEVICE_TYPES.add("cuda")


plain = partial(Implementation, context=without_kernels)
IMPLEMENTATIONS = {
    "fused": Implementation(),
    "fused recompute": Implementation(score_memory="recompute"),
    "sdpa": plain(),
    "eager": plain("eager"),
    "recompute": plain(score_memory="recompute"),
    "compiled": plain(compiled="default"),
    "compiled graphs": plain(compiled="reduce-overhead"),
    f"{PEER} eager": Implementation("eager", peer=True),
    f"{PEER} sdpa": Implementation("sdpa", peer=True),
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    names = ", ".join(IMPLEMENTATIONS)
    add("--cases", nargs="+", metavar="BxT", help="batch x tokens")
    add("--only", nargs="+", choices=IMPLEMENTATIONS, metavar="NAME", help=names)
    add("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    add("--train", action="store_true", help="a training step, not inference")
    add("--runs", type=int, default=11, help="counted runs of each (11)")
    add("--longest", action="store_true", help="double the tokens until it fails")
    add("--profile", nargs=2, metavar=("NAME", "BxT"), help="the kernels that take most time")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if not torch.cuda.is_available():
        sys.exit("benchmark_gpu: no CUDA device; scripts/benchmark.py is for CPUs")
    print(f"{torch.cuda.get_device_name()}; {versions()}; {args.dtype}, TF32 off", flush=True)
    bench = Bench(getattr(torch, args.dtype), args.train)
    names = args.only or [
        name for name, one in IMPLEMENTATIONS.items() if not one.peer or is_installed(PEER)
    ]
    if args.profile:
        bench.profile(*args.profile)
    elif args.longest:
        titles = ["implementation", "longest", "seconds", "MiB", "fails at"]
        print_table(titles, map(bench.longest, names))
    else:
        bench.find_rates()
        for case in args.cases or (TRAINING_CASES if args.train else CASES):
            bench.measure(case, names, args.runs)
    return 0


class Bench:
    """Measures with weights of one dtype.

    Args:
        train: a training step, not inference.
    """

    def __init__(self, dtype: torch.dtype, train: bool):
        self._dtype, self._train = dtype, train

    def step(self, name: str, case: str) -> Step:
        return replace(IMPLEMENTATIONS[name], dtype=self._dtype).step(case, self._train, "cuda")

    def find_rates(self) -> None:
        """The card's operations and bytes a second."""
        left, right = (torch.randn(8192, 8192, device="cuda", dtype=self._dtype) for _ in "ab")
        source = torch.randn(2**29, device="cuda")
        target = torch.empty_like(source)
        steps = {"product": lambda: left @ right, "copy": lambda: target.copy_(source)}
        seconds = alternate(steps, 7, timed)
        self._flops_rate = 2 * 8192**3 / seconds["product"]
        self._copy_rate = 2 * 4 * 2**29 / seconds["copy"]
        rates = f"{self._flops_rate / 1e12:.0f} TFLOP/s, copy {self._copy_rate / 1e12:.2f} TB/s"
        print(f"matrix product {rates}")

    def floors(self, case: str) -> tuple[float, float]:
        """Seconds that the products and the passes over the scores take at least."""
        batch, tokens = sizes(case)
        products = flops(case) * (3 if self._train else 1) / self._flops_rate
        # Bias 0 is written, each layer but the last reads and writes, the last reads; backward,
        # each layer reads its scores and their gradient and writes that of the layer before.
        passes = 2 * LAYERS + (3 * LAYERS if self._train else 0)
        size = torch.finfo(self._dtype).bits // 8
        return products, passes * batch * HEADS * tokens**2 * size / self._copy_rate

    def measure(self, case: str, names: Sequence[str], runs: int) -> None:
        """Time and peak memory of all implementations in one case, printed as a table."""
        steps: dict[str, Step] = {}
        peaks: dict[str, int] = {}
        for name in names:
            with contextlib.suppress(torch.cuda.OutOfMemoryError):
                function = self.step(name, case)
                function()  # Kernels are compiled, and libraries take their memory.
                peaks[name] = peak(function)
                steps[name] = function
            function = None  # type: ignore[assignment]
            clear()
        times = alternate(steps, runs, timed)
        products, scores = self.floors(case)
        batch, tokens = sizes(case)
        what = "training step" if self._train else "inference"
        print(
            f"\n{what}, {batch} x {tokens} tokens: floor of the products {1000 * products:.2f} ms, "
            f"of the scores {1000 * scores:.2f} ms\n"
        )
        print_case(case, names, times, peaks, max(products, scores), "eager")

    def longest(self, name: str) -> list[str]:
        """The longest single sequence, in powers of two, and what it takes: a row of a table."""
        cells, tokens = ["", "", ""], 2048
        while tokens <= LONGEST:
            try:
                function = self.step(name, f"1x{tokens}")
                function()
                taken, memory = timed(function), peak(function)
            except torch.cuda.OutOfMemoryError:
                break
            finally:
                function = None  # type: ignore[assignment]
                clear()
            cells = [str(tokens), f"{taken:.3f}", f"{memory / MIB:.0f}"]
            tokens *= 2
        return [name, *cells, str(tokens) if tokens <= LONGEST else "not tried further"]

    def profile(self, name: str, case: str) -> None:
        """Print the kernels that take the most of the card's time."""
        function = self.step(name, case)
        function()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            function()
            torch.cuda.synchronize()
        averages = profiler.key_averages()
        print(
            averages.table(sort_by="self_cuda_time_total", row_limit=15, max_name_column_width=60)
        )


def timed(function: Step) -> float:
    """Seconds by the card's events."""
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def peak(function: Step) -> int:
    """Bytes that a run allocates above what is there before it, gradients included."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def clear() -> None:
    gc.collect()
    torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
