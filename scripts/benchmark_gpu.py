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
import importlib.util
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import transformers
from benchmark import flops

CASES = ("8x128", "256x128", "64x512", "16x1024", "1x4096")
TRAINING_CASES = ("64x128", "16x512", "4x1024")
MIB = 2**20
LAYERS, HEADS = 12, 12
PEER = "multimolecule"
# Attention implementation, score memory, whether our kernels run, mode of torch.compile.
OURS = {
    "fused": ("sdpa", "carry", True, None),
    "fused recompute": ("sdpa", "recompute", True, None),
    "sdpa": ("sdpa", "carry", False, None),
    "eager": ("eager", "carry", False, None),
    "recompute": ("sdpa", "recompute", False, None),
    "compiled": ("sdpa", "carry", False, "default"),
    "compiled graphs": ("sdpa", "carry", False, "reduce-overhead"),
}
PEERS = {"multimolecule eager": "eager", "multimolecule sdpa": "sdpa"}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*OURS, *PEERS]
    parser.add_argument("--cases", nargs="+", metavar="BxT", help="batch x tokens")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--train", action="store_true", help="a training step, not inference")
    parser.add_argument("--runs", type=int, default=11, help="counted runs of each (default 11)")
    parser.add_argument("--longest", action="store_true", help="double the tokens until it fails")
    parser.add_argument("--profile", nargs=2, metavar=("NAME", "BxT"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if not torch.cuda.is_available():
        sys.exit("benchmark_gpu: no CUDA device; scripts/benchmark.py is for CPUs")
    dtype = getattr(torch, args.dtype)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{torch.cuda.get_device_name()}; {versions}; {args.dtype}, TF32 off", flush=True)
    if args.profile:
        name, case = args.profile
        profile(name, case, dtype, args.train)
        return 0
    names = args.only or [name for name in (*OURS, *PEERS) if installed(name)]
    if args.longest:
        longest(names, dtype, args.train)
        return 0
    rates = matrix_rate(dtype), copy_rate()
    print(f"matrix product {rates[0] / 1e12:.0f} TFLOP/s, copy {rates[1] / 1e12:.2f} TB/s")
    for case in args.cases or (TRAINING_CASES if args.train else CASES):
        measure(case, names, dtype, args.train, args.runs, rates)
    return 0


def installed(name: str) -> bool:
    return name in OURS or importlib.util.find_spec(PEER) is not None


def build(name: str, dtype: torch.dtype, train: bool) -> Any:
    """A model of the published size on the card."""
    with torch.device("cuda"):
        model = (_ours if name in OURS else _peer)(name, train)
    model = model.to("cuda", dtype).train(train)
    mode = OURS[name][3] if name in OURS else None
    return torch.compile(model, dynamic=False, mode=mode) if mode else model


def _ours(name: str, train: bool) -> torch.nn.Module:
    from ernie_rna import ErnieRnaConfig, ErnieRnaForMaskedLM, ErnieRnaModel

    attention, memory, _, _ = OURS[name]
    config = ErnieRnaConfig(score_memory=memory)
    model: Any = (ErnieRnaForMaskedLM if train else ErnieRnaModel)(config)
    model.set_attn_implementation(attention)
    return model


def _peer(name: str, train: bool) -> torch.nn.Module:
    from multimolecule.models import ernierna

    config = ernierna.ErnieRnaConfig(attn_implementation=PEERS[name])
    kind = ernierna.ErnieRnaForMaskedLM if train else ernierna.ErnieRnaModel
    return kind._from_config(config, attn_implementation=PEERS[name])


@contextlib.contextmanager
def kernels_of(name: str) -> Iterator[None]:
    """Have our kernels run for this implementation, or not."""
    from ernie_rna.model import fused_ernie_rna

    types = fused_ernie_rna.DEVICE_TYPES
    if name in PEERS or OURS[name][2]:
        yield
        return
    types.discard("cuda")
    try:
        yield
    finally:
        types.add("cuda")


def step(name: str, case: str, dtype: torch.dtype, train: bool) -> Callable[[], None]:
    """A function that runs an implementation once on unpadded RNA."""
    batch, tokens = map(int, case.split("x"))
    model = build(name, dtype, train)
    # Ids of letters in either vocabulary; which ones does not matter to the time.
    ids = torch.randint(6, 10, (batch, tokens), device="cuda")
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def infer() -> None:
        with kernels_of(name), torch.inference_mode():
            model(**inputs)

    def learn() -> None:
        model.zero_grad()
        with kernels_of(name):
            model(**inputs, labels=ids).loss.backward()

    return learn if train else infer


def measure(case, names, dtype, train, runs, rates) -> None:
    """Time and peak memory of all implementations in one case, printed as a table."""
    batch, tokens = map(int, case.split("x"))
    steps: dict[str, Callable[[], None]] = {}
    peaks: dict[str, int] = {}
    for name in names:
        try:
            function = step(name, case, dtype, train)
            function()  # Kernels are compiled, and libraries take their memory.
            peaks[name] = peak(function)
            steps[name] = function
        except torch.cuda.OutOfMemoryError:
            function = None  # type: ignore[assignment]
        gc.collect()
        torch.cuda.empty_cache()
    times = alternate(steps, runs)
    products = flops(batch, tokens) * (3 if train else 1) / rates[0]
    # Bias 0 is written, each layer but the last reads and writes, the last reads; backward, each
    # layer reads its scores and their gradient and writes that of the layer before.
    passes = 2 * LAYERS + (3 * LAYERS if train else 0)
    size = torch.finfo(dtype).bits // 8
    scores = passes * batch * HEADS * tokens**2 * size / rates[1]
    kind = "training step" if train else "inference"
    print(
        f"\n{kind}, {batch} x {tokens} tokens: floor of the products {1000 * products:.2f} ms, "
        f"of the scores {1000 * scores:.2f} ms\n"
    )
    others = [name for name in ("eager", *PEERS) if name in times]
    titles = ["implementation", "ms", "tokens/s", "of the larger floor", "MiB"]
    titles += [f"speed over {other}" for other in others]
    print(f"| {' | '.join(titles)} |\n|---|{'--:|' * (len(titles) - 1)}")
    for name in names:
        if name not in times:
            print(f"| {name} | out of memory |{' |' * (len(titles) - 2)}")
            continue
        seconds = times[name]
        cells = [
            name,
            f"{1000 * seconds:.2f}",
            f"{batch * tokens / seconds:.0f}",
            f"{seconds / max(products, scores):.2f}",
            f"{peaks[name] / MIB:.0f}",
            *(f"{times[other] / seconds:.2f}" for other in others),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def alternate(steps: Mapping[str, Callable[[], Any]], runs: int) -> dict[str, float]:
    """The median seconds of each step by the card's events, all by turns, behind two warm-ups."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for run in range(runs + 2):
        for name, function in steps.items():
            taken = timed(function)
            if run >= 2:
                seconds[name].append(taken)
    return {name: statistics.median(values) for name, values in seconds.items()}


def timed(function: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def peak(function: Callable[[], None]) -> int:
    """Bytes that a run allocates above what is there before it, gradients included."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def matrix_rate(dtype: torch.dtype) -> float:
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
    return 2 * 8192**3 / alternate({"product": lambda: left @ right}, 7)["product"]


def copy_rate() -> float:
    source = torch.randn(2**29, device="cuda")
    target = torch.empty_like(source)
    return 2 * 4 * 2**29 / alternate({"copy": lambda: target.copy_(source)}, 7)["copy"]


def longest(names: Sequence[str], dtype: torch.dtype, train: bool) -> None:
    """The longest single sequence, in powers of two, that each implementation survives."""
    print("\n| implementation | longest | seconds | MiB | fails at |\n|---|--:|--:|--:|--:|")
    for name in names:
        cells, tokens = ["", "", ""], 2048
        while tokens <= 65536:
            try:
                function = step(name, f"1x{tokens}", dtype, train)
                function()
                taken, memory = timed(function), peak(function)
            except torch.cuda.OutOfMemoryError:
                break
            finally:
                function = None  # type: ignore[assignment]
                gc.collect()
                torch.cuda.empty_cache()
            cells = [str(tokens), f"{taken:.3f}", f"{memory / MIB:.0f}"]
            tokens *= 2
        fails = str(tokens) if tokens <= 65536 else "not tried further"
        print(f"| {' | '.join([name, *cells, fails])} |", flush=True)


def profile(name: str, case: str, dtype: torch.dtype, train: bool) -> None:
    """The kernels that take the most of the card's time."""
    from torch.profiler import ProfilerActivity

    function = step(name, case, dtype, train)
    function()
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as profiler:
        function()
        torch.cuda.synchronize()
    table = profiler.key_averages().table(
        sort_by="self_cuda_time_total", row_limit=15, max_name_column_width=60
    )
    print(table)


if __name__ == "__main__":
    sys.exit(main())
