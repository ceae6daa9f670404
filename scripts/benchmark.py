"""Time and memory of ERNIE-RNA on a CPU, beside other implementations and the hardware.

Every case runs all implementations by turns in one process and prints medians. The floor is the
model's floating-point operations at the rate of a 2048 x 768 x 3072 product measured by the same
turns. Peak memory is that of a fresh process, above the loaded weights. Weights are random: time
does not depend on them. CPUs without instructions for bfloat16 take several times as long with it
as without, so there its rows are left out unless named.

    python scripts/benchmark.py                      # the table of the README
    python scripts/benchmark.py --long               # up to 16384 tokens, timed once each
    python scripts/benchmark.py --train              # a training step
    python scripts/benchmark.py --plot length.png    # time and memory against length
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from scripts.measuring import (
    MIB,
    PEER,
    Implementation,
    Step,
    alternate,
    computes_bfloat16,
    flops,
    is_installed,
    print_case,
    processor,
    run_anew,
    sizes,
    time_and_peak,
    versions,
)

CASES = ("8x128", "1x512", "4x512", "1x1024", "4x1024")
LONG_CASES = ("1x2048", "1x4096", "1x8192", "1x16384")
PLOT_CASES = ("1x128", "1x256", "1x512", "1x1024", "1x2048")
# By implementation, seconds and peak bytes above the weights.
Results = tuple[dict[str, float], dict[str, int]]


@contextlib.contextmanager
def without_onednn() -> Iterator[None]:
    mkldnn: Any = torch.backends.mkldnn
    enabled, mkldnn.enabled = mkldnn.enabled, False
    yield
    mkldnn.enabled = enabled


OURS = "sdpa"
IMPLEMENTATIONS = {
    OURS: Implementation(),
    "sdpa without oneDNN": Implementation(context=without_onednn),
    "eager": Implementation("eager"),
    "recompute": Implementation(score_memory="recompute"),
    "bfloat16": Implementation(dtype=torch.bfloat16),
    "autocast bfloat16": Implementation(context=partial(torch.autocast, "cpu", torch.bfloat16)),
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
    add("--long", action="store_true", help="sequences up to 16384 tokens, once")
    add("--train", action="store_true", help="a training step, not inference")
    add("--runs", type=int, default=5, help="counted runs of each (5)")
    add("--threads", type=int, default=2, help="CPU threads (2)")
    add("--no-memory", action="store_true", help="leave out the peak memory")
    add("--plot", type=Path, metavar="FILE", help="plot against length, PNG or SVG")
    add("--peak", nargs=2, metavar=("NAME", "BxT"), help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.peak:
        print(json.dumps(first_run(*args.peak, train=args.train)))
        return 0
    print(f"{processor()}, {args.threads} threads; {versions()}", flush=True)
    names = args.only or ([OURS, "recompute"] if args.long else default_names())
    cases = args.cases or (LONG_CASES if args.long else PLOT_CASES if args.plot else CASES)
    results = {case: measure(case, names, args) for case in cases}
    if args.plot:
        plot(results, args.plot)
    return 0


def default_names() -> list[str]:
    """Those that can run: multimolecule may not be installed, or the CPU lack bfloat16."""
    return [
        name
        for name, one in IMPLEMENTATIONS.items()
        if (is_installed(PEER) or not one.peer) and (computes_bfloat16() or "bfloat16" not in name)
    ]


def measure(case: str, names: Sequence[str], args: argparse.Namespace) -> Results:
    """All implementations in one case, printed as a table."""
    steps = {}
    if not args.long:
        steps = {name: IMPLEMENTATIONS[name].step(case, args.train) for name in names}
    times = alternate({**steps, "floor": product()}, args.runs)
    operations = flops(case) * (3 if args.train else 1)
    floor = times.pop("floor") / (2 * 2048 * 768 * 3072) * operations
    del steps
    gc.collect()
    peaks: dict[str, int] = {}
    for name in names if args.long or not args.no_memory else ():
        train = ["--train"] if args.train else []
        command = ["--peak", name, case, "--threads", str(args.threads), *train]
        seconds, peaks[name] = json.loads(run_anew(__file__, *command))
        times.setdefault(name, seconds)
    batch, tokens = sizes(case)
    print(f"\nbatch {batch} x {tokens} tokens (floor {1000 * floor:.0f} ms)\n")
    print_case(case, names, times, peaks, floor, OURS)
    return times, peaks


def product() -> Step:
    left, right = (torch.randn(rows, 768) for rows in (2048, 3072))
    return lambda: left @ right.T


def first_run(name: str, case: str, train: bool) -> tuple[float, int]:
    """Seconds of the first run, and its bytes above the loaded weights (gradients included)."""
    function = IMPLEMENTATIONS[name].step(case, train)
    with torch.inference_mode():  # Libraries take their own memory at their first call.
        F.scaled_dot_product_attention(*torch.randn(3, 1, 1, 8, 8)), product()()
    return time_and_peak(function)


def plot(results: Mapping[str, Results], path: Path) -> None:
    """Time and peak memory of each implementation against the tokens of the case."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    tokens = [sizes(case)[1] for case in results]
    for name in next(iter(results.values()))[0]:
        style = "--" if IMPLEMENTATIONS[name].peer else "-"
        seconds = [times[name] for times, _ in results.values()]
        memory = [peaks.get(name, 0) / MIB for _, peaks in results.values()]
        left.plot(tokens, seconds, style, marker="o", label=name)
        right.plot(tokens, memory, style, marker="o", label=name)
    for axes, label in ((left, "seconds"), (right, "peak MiB above the weights")):
        axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label)
        axes.set_xticks(tokens, labels=map(str, tokens), minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    left.legend(fontsize=8, frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
