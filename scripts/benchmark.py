"""Time and memory of ERNIE-RNA beside multimolecule and the hardware, on a CPU or a GPU.

Every case runs all implementations by turns in one process and prints medians; on a GPU its own
events measure them. The floor is the model's floating-point operations at the rate of a large
product measured by the same turns; on a GPU it is the larger of that and of the fewest passes over
the attention scores at the rate of a copy. Peak memory is above the loaded weights; on a CPU that
of a fresh process. Weights are random: time does not depend on them. CPUs without instructions for
bfloat16 take several times as long with it as without, so there its rows are left out unless named.

    python scripts/benchmark.py                      # the tables of docs/benchmarks.md
    python scripts/benchmark.py --long               # up to 16384 tokens, timed once each
    python scripts/benchmark.py --train              # a training step
    python scripts/benchmark.py --plot length.png    # time and memory against length
    python scripts/benchmark.py --device cuda --dtype bfloat16
    python scripts/benchmark.py --device cuda --longest        # how long a sequence may be
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ernie_rna.plots.drawings import plot_curves, save
from scripts.measuring import (
    PEER,
    Implementation,
    Step,
    alternate,
    computes_bfloat16,
    elapsed,
    flops,
    is_installed,
    print_table,
    processor,
    run_anew,
    sizes,
    time_and_peak,
    versions,
)

CASES = {
    "cpu": ("8x128", "1x512", "4x512", "1x1024", "4x1024"),
    "cpu long": ("1x2048", "1x4096", "1x8192", "1x16384"),
    "cpu plot": ("1x128", "1x256", "1x512", "1x1024", "1x2048"),
    "cuda": ("8x128", "256x128", "64x512", "16x1024", "1x4096"),
    "cuda train": ("64x128", "16x512", "4x1024"),
}
LONGEST = 65536  # tokens; more are not tried
LAYERS, HEADS = 12, 12
MIB = 2**20
# By implementation, seconds and peak bytes above the weights.
Results = tuple[dict[str, float], dict[str, int]]


@contextlib.contextmanager
def without_onednn() -> Iterator[None]:
    mkldnn: Any = torch.backends.mkldnn
    enabled, mkldnn.enabled = mkldnn.enabled, False
    yield
    mkldnn.enabled = enabled


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    from ernie_rna.model.fused_ernie_rna import DEVICE_TYPES

    DEVICE_TYPES.discard("cuda")
    try:
        yield
    finally:
        DEVICE_TYPES.add("cuda")


plain = partial(Implementation, context=without_kernels)
PEERS = {f"{PEER} {name}": Implementation(name, peer=True) for name in ("eager", "sdpa")}
IMPLEMENTATIONS = {
    "cpu": {
        "sdpa": Implementation(),
        "sdpa without oneDNN": Implementation(context=without_onednn),
        "eager": Implementation("eager"),
        "recompute": Implementation(score_memory="recompute"),
        "int8": Implementation(int8=True),
        "bfloat16": Implementation(dtype=torch.bfloat16),
        "autocast bfloat16": Implementation(context=partial(torch.autocast, "cpu", torch.bfloat16)),
        **PEERS,
    },
    "cuda": {
        "fused": Implementation(),
        "fused recompute": Implementation(score_memory="recompute"),
        "sdpa": plain(),
        "eager": plain("eager"),
        "recompute": plain(score_memory="recompute"),
        "compiled": plain(compiled="default"),
        "compiled graphs": plain(compiled="reduce-overhead"),
        **PEERS,
    },
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    names = "; ".join(f"{device}: {', '.join(some)}" for device, some in IMPLEMENTATIONS.items())
    add("--device", default="cpu", choices=IMPLEMENTATIONS, help="what computes (cpu)")
    add("--cases", nargs="+", metavar="BxT", help="batch x tokens")
    add("--only", nargs="+", metavar="NAME", help=names)
    add("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"), help="on a GPU")
    add("--train", action="store_true", help="a training step, not inference")
    add("--runs", type=int, help="counted runs of each (5, on a GPU 11)")
    add("--threads", type=int, default=2, help="CPU threads (2)")
    add("--long", action="store_true", help="on a CPU, sequences up to 16384 tokens, once")
    add("--no-memory", action="store_true", help="on a CPU, leave out the peak memory")
    add("--longest", action="store_true", help="on a GPU, double the tokens until it fails")
    add("--plot", type=Path, metavar="FILE", help="plot against length, PNG or SVG")
    add("--peak", nargs=2, metavar=("NAME", "BxT"), help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    known, on_gpu = IMPLEMENTATIONS[args.device], args.device == "cuda"
    for name in set(args.only or ()) - known.keys():
        parser.error(f"argument --only: no {name!r} on {args.device}; choose {', '.join(known)}")
    if on_gpu and not torch.cuda.is_available():
        parser.error("argument --device: there is no CUDA device")
    torch.set_num_threads(args.threads)
    if args.peak:
        print(json.dumps(first_run(args)))
        return 0
    on_cpu = f"{processor()}, {args.threads} threads"
    on = f"{torch.cuda.get_device_name()}, {args.dtype}, TF32 off" if on_gpu else on_cpu
    print(f"{on}; {versions()}", flush=True)
    names = args.only or ["sdpa", "recompute"] * args.long or names_that_run(args.device)
    if args.longest:
        titles = ["implementation", "longest", "seconds", "MiB", "fails at"]
        print_table(titles, (longest(name, args) for name in names))
        return 0
    kind = "long" if args.long else "plot" if args.plot else "train" if args.train else ""
    cases = args.cases or CASES.get(f"{args.device} {kind}", CASES[args.device])
    results = {case: measure(case, names, args) for case in cases}
    if args.plot:
        plot(results, args.plot)
    return 0


def names_that_run(device: str) -> list[str]:
    """multimolecule may not be installed, and the CPU may lack bfloat16."""
    return [
        name
        for name, one in IMPLEMENTATIONS[device].items()
        if (is_installed(PEER) or not one.peer)
        and (device == "cuda" or computes_bfloat16() or "bfloat16" not in name)
    ]


def step_of(name: str, case: str, args: argparse.Namespace) -> Step:
    one = IMPLEMENTATIONS[args.device][name]
    if args.device == "cuda":
        one = replace(one, dtype=getattr(torch, args.dtype))
    return one.step(case, args.train, args.device)


def measure(case: str, names: Sequence[str], args: argparse.Namespace) -> Results:
    """Time and peak memory of all implementations in one case, printed as a table."""
    on_gpu = args.device == "cuda"
    steps: dict[str, Step] = {}
    peaks: dict[str, int] = {}
    for name in () if args.long else names:
        with contextlib.suppress(torch.cuda.OutOfMemoryError):
            function = step_of(name, case, args)
            if on_gpu:
                function()  # Kernels are compiled, and libraries take their memory.
                peaks[name] = peak(function)
            steps[name] = function
        function = None  # type: ignore[assignment]
        clear()
    runs, meter = args.runs or (11 if on_gpu else 5), timed if on_gpu else elapsed
    limits = work_of_limits(case, args)
    rates = {name: step for name, (step, _) in limits.items()}
    times = alternate({**steps, **rates}, runs, meter)
    floors = {name: times.pop(name) * often for name, (_, often) in limits.items()}
    del steps
    clear()
    for name in () if on_gpu or (args.no_memory and not args.long) else names:
        train = ["--train"] if args.train else []
        command = ["--peak", name, case, "--threads", str(args.threads), *train]
        seconds, peaks[name] = json.loads(run_anew(__file__, *command))
        times.setdefault(name, seconds)
    print_case(case, names, (times, peaks), floors, "eager" if on_gpu else "sdpa")
    return times, peaks


def work_of_limits(case: str, args: argparse.Namespace) -> dict[str, tuple[Step, float]]:
    """What the hardware can do at best: a function, and how often a case takes that at least."""
    (batch, tokens), operations = sizes(case), flops(case) * (3 if args.train else 1)
    if args.device == "cpu":
        left, right = (torch.randn(rows, 768) for rows in (2048, 3072))
        return {"products": (lambda: left @ right.T, operations / (2 * 2048 * 768 * 3072))}
    dtype = getattr(torch, args.dtype)
    one, other = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in "ab")
    source, target = (torch.empty(2**29, device="cuda") for _ in "ab")
    # Bias 0 is written, each layer but the last reads and writes, the last reads; backward, each
    # layer reads its scores and their gradient and writes that of the layer before.
    passes = 2 * LAYERS + (3 * LAYERS if args.train else 0)
    bytes = passes * batch * HEADS * tokens**2 * torch.finfo(dtype).bits // 8
    return {
        "products": (lambda: one @ other, operations / (2 * 8192**3)),
        "scores": (lambda: target.copy_(source), bytes / (2 * 4 * 2**29)),
    }


def first_run(args: argparse.Namespace) -> tuple[float, int]:
    """Seconds of the first run, and its bytes above the loaded weights (gradients included)."""
    name, case = args.peak
    function = step_of(name, case, args)
    with torch.inference_mode():  # Libraries take their own memory at their first call.
        F.scaled_dot_product_attention(*torch.randn(3, 1, 1, 8, 8))
        torch.randn(2048, 768) @ torch.randn(768, 3072)
    return time_and_peak(function)


def longest(name: str, args: argparse.Namespace) -> list[str]:
    """The longest single sequence, in powers of two, and what it takes: a row of a table."""
    cells, tokens = ["", "", ""], 2048
    while tokens <= LONGEST:
        try:
            function = step_of(name, f"1x{tokens}", args)
            function()
            cells = [str(tokens), f"{timed(function):.3f}", f"{peak(function) / MIB:.0f}"]
        except torch.cuda.OutOfMemoryError:
            break
        finally:
            function = None  # type: ignore[assignment]
            clear()
        tokens *= 2
    return [name, *cells, str(tokens) if tokens <= LONGEST else "not tried further"]


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
    """Bytes that a run allocates on the card above what is there before it, gradients included."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def clear() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def print_case(
    case: str, names: Sequence[str], results: Results, floors: Mapping[str, float], reference: str
) -> None:
    """A table of implementations in one case; those without a time ran out of memory.

    Args:
        floors: seconds that the case takes at least, by what it is the floor of.
        reference: one of them, whose time over the others' is shown, as is multimolecule's.
    """
    (batch, tokens), (times, peaks), floor = sizes(case), results, max(floors.values())
    told = ", ".join(f"{what} {1000 * seconds:.3g} ms" for what, seconds in floors.items())
    print(f"\nbatch {batch} x {tokens} tokens (floor of the {told})\n")
    others = [n for n in names if n in times and (n == reference or n.startswith(PEER))]
    titles = ["implementation", "ms", "tokens/s", "of the floor", "MiB"]
    titles += [f"speed over {other}" for other in others]
    rows = [
        [
            name,
            f"{1000 * times[name]:.{0 if floor > 0.1 else 2}f}",
            f"{batch * tokens / times[name]:.0f}",
            f"{times[name] / floor:.2f}",
            f"{peaks[name] / MIB:.0f}" if name in peaks else "",
            *(f"{times[other] / times[name]:.2f}" for other in others),
        ]
        if name in times
        else [name, "out of memory", *[""] * (len(titles) - 2)]
        for name in names
    ]
    print_table(titles, rows)


def plot(results: Mapping[str, Results], path: Path) -> None:
    """Time and peak memory of each implementation against the tokens of the case."""
    tokens = [sizes(case)[1] for case in results]
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for kind, (title, unit) in enumerate({"seconds": 1, "peak MiB above the weights": MIB}.items()):
        for at, found in zip(tokens, results.values(), strict=True):
            for name, value in found[kind].items():
                curves = panels.setdefault(title, {})
                curves.setdefault(name, []).append((at, value / unit))
    figure = plot_curves(panels, "tokens")
    for axes in figure.axes:
        axes.set(xscale="log", yscale="log")
        axes.set_xticks(tokens, labels=map(str, tokens), minor=False)
        axes.minorticks_off()
    save(figure, path)


if __name__ == "__main__":
    sys.exit(main())
