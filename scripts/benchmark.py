"""Time and memory of ERNIE-RNA on a CPU, beside other implementations and the hardware.

Every case runs all implementations by turns in one process and prints medians, so that a noisy
machine hurts all alike. The floor is the model's floating-point operations at the rate of a
2048 x 768 x 3072 product measured by the same turns. Peak memory is that of a fresh process, above
the loaded weights. Weights are random: time does not depend on them. CPUs without instructions for
bfloat16 take several times as long with it as without, so there its rows are left out unless named.

    python scripts/benchmark.py                      # the table of the README
    python scripts/benchmark.py --long               # up to 16384 tokens, timed once each
    python scripts/benchmark.py --train              # a training step
    python scripts/benchmark.py --plot length.png    # time and memory against length
"""

import argparse
import contextlib
import gc
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

CASES = ("8x128", "1x512", "4x512", "1x1024", "4x1024")
LONG_CASES = ("1x2048", "1x4096", "1x8192", "1x16384")
PLOT_CASES = ("1x128", "1x256", "1x512", "1x1024", "1x2048")
MIB = 2**20


@dataclass
class Result:
    """One implementation in one case; times in seconds, memory in bytes above the weights.

    `speed_over` has the time of each implementation of others, and of our float32 sdpa, over its
    own.
    """

    case: str
    name: str
    seconds: float
    tokens_per_second: float
    of_floor: float
    peak_bytes: int | None
    speed_over: dict[str, float]


class Ours:
    """Our model: attention implementation, score memory and dtype, or autocast to bfloat16."""

    def __init__(
        self,
        attention: str,
        dtype: str = "float32",
        score_memory: str = "carry",
        onednn: bool = True,
    ):
        self.attention, self.dtype, self.score_memory = attention, dtype, score_memory
        self.onednn = onednn

    def build(self, train: bool) -> torch.nn.Module:
        from ernie_rna import ErnieRnaConfig, ErnieRnaForMaskedLM, ErnieRnaModel

        config = ErnieRnaConfig(score_memory=self.score_memory)
        model = (ErnieRnaForMaskedLM if train else ErnieRnaModel)(config)
        model.set_attn_implementation(self.attention)
        if self.dtype == "bfloat16":
            torch.nn.Module.to(model, torch.bfloat16)
        return model.train(train)

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        mkldnn: Any = torch.backends.mkldnn
        enabled = mkldnn.enabled
        mkldnn.enabled = enabled and self.onednn
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "autocast"):
            yield
        mkldnn.enabled = enabled


class Multimolecule:
    """multimolecule's model, one attention implementation."""

    def __init__(self, attention: str):
        self.attention = attention

    def build(self, train: bool) -> torch.nn.Module:
        from multimolecule.models import ernierna

        config = ernierna.ErnieRnaConfig(attn_implementation=self.attention)
        kind = ernierna.ErnieRnaForMaskedLM if train else ernierna.ErnieRnaModel
        model = kind._from_config(config, attn_implementation=self.attention)
        return model.train(train)

    def context(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


IMPLEMENTATIONS: dict[str, Ours | Multimolecule] = {
    "sdpa": Ours("sdpa"),
    "sdpa without oneDNN": Ours("sdpa", onednn=False),
    "eager": Ours("eager"),
    "recompute": Ours("sdpa", score_memory="recompute"),
    "bfloat16": Ours("sdpa", "bfloat16"),
    "autocast bfloat16": Ours("sdpa", "autocast"),
    "recompute bfloat16": Ours("sdpa", "bfloat16", "recompute"),
    "multimolecule eager": Multimolecule("eager"),
    "multimolecule sdpa": Multimolecule("sdpa"),
}
PEER = "multimolecule"
OURS = "sdpa"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", metavar="BxT", help="batch x tokens")
    parser.add_argument("--only", nargs="+", choices=IMPLEMENTATIONS, help="implementations")
    parser.add_argument("--long", action="store_true", help="sequences up to 16384 tokens, once")
    parser.add_argument("--train", action="store_true", help="a training step, not inference")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here as well")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="plot against length, PNG or SVG")
    parser.add_argument("--peak", nargs=2, metavar=("NAME", "BxT"), help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.peak:
        name, case = args.peak
        print(json.dumps(time_and_peak(name, case, args.train)))
        return 0
    names = args.only or [name for name in default_names(args) if runs_here(name)]
    cases = args.cases or (LONG_CASES if args.long else PLOT_CASES if args.plot else CASES)
    print(machine(args.threads), flush=True)
    results = [result for case in cases for result in measure(case, names, args)]
    if args.json:
        record = {"machine": machine(args.threads), "results": list(map(asdict, results))}
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    if args.plot:
        plot(results, args.plot)
    return 0


def default_names(args: argparse.Namespace) -> list[str]:
    if args.long:
        return ["sdpa", "recompute"]
    return [name for name in IMPLEMENTATIONS if name != "recompute bfloat16"]


def runs_here(name: str) -> bool:
    """Whether multimolecule is installed, or the CPU computes in bfloat16, if that is needed."""
    if name.startswith(PEER):
        return importlib.util.find_spec(PEER) is not None
    return "bfloat16" not in name or computes_bfloat16()


def computes_bfloat16() -> bool:
    return "AVX512" in torch.backends.cpu.get_cpu_capability()


def machine(threads: int) -> str:
    """What the figures were measured on."""
    import transformers

    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{processor()}, {threads} threads; {versions}"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def measure(case: str, names: list[str], args: argparse.Namespace) -> list[Result]:
    """All implementations in one case, printed as a table."""
    batch, tokens = map(int, case.split("x"))
    steps = {}
    if not args.long:
        steps = {name: step(name, batch, tokens, args.train) for name in names}
    floating_point = flops(batch, tokens) * (3 if args.train else 1)
    times = alternate({**steps, "floor": product()}, args.runs)
    floor = times.pop("floor") / (2 * 2048 * 768 * 3072) * floating_point
    del steps
    gc.collect()
    peaks: dict[str, int | None] = dict.fromkeys(names)
    for name in names if args.long or not args.no_memory else ():
        seconds, peaks[name] = fresh(name, case, args)
        times.setdefault(name, seconds)
    others = {name: times[name] for name in names if name == OURS or name.startswith(PEER)}
    results = []
    for name in names:
        seconds = times[name]
        ratios = {other: others[other] / seconds for other in others}
        rate = batch * tokens / seconds
        results.append(Result(case, name, seconds, rate, seconds / floor, peaks[name], ratios))
    print_table(case, results, floor)
    return results


def step(name: str, batch: int, tokens: int, train: bool) -> Callable:
    """A function that runs an implementation once on unpadded RNA."""
    implementation = IMPLEMENTATIONS[name]
    torch.manual_seed(0)
    model = implementation.build(train)
    # Ids of letters in either vocabulary; which ones does not matter to the time.
    ids = torch.randint(6, 10, (batch, tokens))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def infer():
        with torch.inference_mode(), implementation.context():
            model(**inputs)

    def learn():
        model.zero_grad()
        with implementation.context():
            loss = model(**inputs, labels=ids).loss
        loss.backward()

    return learn if train else infer


def product() -> Callable:
    left, right = (torch.randn(rows, 768) for rows in (2048, 3072))
    return lambda: left @ right.T


def flops(batch: int, tokens: int, layers=12, hidden=768, intermediate=3072) -> int:
    """Floating-point operations of the matrix products of one forward pass."""
    linear = 2 * batch * tokens * (4 * hidden**2 + 2 * hidden * intermediate)
    return layers * (linear + 4 * batch * tokens**2 * hidden)


def alternate(steps: dict[str, Callable], runs: int) -> dict[str, float]:
    """The median seconds of each step, all by turns, behind a warm-up; 0 `runs` time that one."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for run in range(runs + 1):
        for name, function in steps.items():
            start = time.perf_counter()
            function()
            if run or not runs:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def fresh(name: str, case: str, args: argparse.Namespace) -> tuple[float, int]:
    """`time_and_peak` in a fresh process."""
    command = [sys.executable, __file__, "--peak", name, case]
    command += ["--threads", str(args.threads), *(["--train"] if args.train else [])]
    seconds, peak = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return seconds, peak


def time_and_peak(name: str, case: str, train: bool) -> tuple[float, int]:
    """Seconds of the first run, and its bytes above the loaded weights (gradients included)."""
    batch, tokens = map(int, case.split("x"))
    function = step(name, batch, tokens, train)
    with torch.inference_mode():  # Libraries take their own memory at their first call.
        F.scaled_dot_product_attention(*torch.randn(3, 1, 1, 8, 8)), product()()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # Start the high-water mark anew.
    before = resident("VmRSS")
    seconds = alternate({name: function}, 0)[name]
    return seconds, resident("VmHWM") - before


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def print_table(case: str, results: list[Result], floor: float) -> None:
    batch, tokens = case.split("x")
    others = list(results[0].speed_over)
    print(f"\nbatch {batch} x {tokens} tokens (floor {1000 * floor:.0f} ms)\n")
    titles = ["implementation", "ms", "tokens/s", "of the floor", "MiB"]
    titles += [f"speed over {other}" for other in others]
    print(f"| {' | '.join(titles)} |\n|---|{'--:|' * (len(titles) - 1)}")
    for result in results:
        cells = [
            result.name,
            f"{1000 * result.seconds:.0f}",
            f"{result.tokens_per_second:.0f}",
            f"{result.of_floor:.2f}",
            "" if result.peak_bytes is None else f"{result.peak_bytes / MIB:.0f}",
            *(f"{result.speed_over[other]:.2f}" for other in others),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def plot(results: list[Result], path: Path) -> None:
    """Time and peak memory of each implementation against the tokens of the case."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in dict.fromkeys(result.name for result in results):
        own = [result for result in results if result.name == name]
        tokens = [int(result.case.split("x")[1]) for result in own]
        style = "--" if name.startswith(PEER) else "-"
        left.plot(tokens, [result.seconds for result in own], style, marker="o", label=name)
        memory = [(result.peak_bytes or 0) / MIB for result in own]
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
