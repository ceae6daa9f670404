"""Time, memory and precision of ERNIE-RNA: the tables of docs/benchmarks.md.

Every case runs all implementations, multimolecule's among them, by turns in one process and prints
medians; on a GPU its own events measure them. The floor is the model's floating-point operations at
the rate of a large product measured by the same turns; on a GPU it is the larger of that and of the
fewest passes over the attention scores at the rate of a copy. Peak memory is above the loaded
weights; on a CPU that of a fresh process. Weights are random: time does not depend on them. CPUs
without instructions for bfloat16 take several times as long with it as without, so there its rows
are left out unless named.

    python -m scripts.benchmark
    python -m scripts.benchmark --long               # up to 16384 tokens, timed once each
    python -m scripts.benchmark --train              # a training step
    python -m scripts.benchmark --device cuda        # in bfloat16
    python -m scripts.benchmark --fasta rna.fasta --sequences 96
    python -m scripts.benchmark --fasta rna.fasta --sequences 64 --precision

With --fasta evenly spaced sequences of a file become mean vectors, on a CPU: by `embed`, whose
batches are of like lengths, also in bfloat16 where the CPU computes in it; by our model one by one
with eager attention, as the authors' scripts do; by multimolecule, where it is installed, in padded
batches of 8 in the order of the file, and one by one with its eager attention.

With --precision they show what each precision costs. The error of a layer is the root mean square
of its difference from the same weights in float64, over that of the values themselves. The cosine
is that of mean vectors of the last layer, special tokens left out; the least of all sequences.
"""

import argparse
import contextlib
import copy
import gc
import importlib
import importlib.util
import statistics
import sys
import timeit
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
import transformers

from ernie_rna import ErnieRnaConfig, ErnieRnaTokenizer, embed
from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.model import attention_ernie_rna
from ernie_rna.run.loading import load_model, quantize_layers, tokenize
from ernie_rna.sequences.chunks import Plan, count_padding, nucleotide_limit, resolve_batch_tokens
from ernie_rna.sequences.fasta import FastaRecord, read_fasta
from scripts.measuring import evenly, print_table, processor, run_anew

CASES = {
    "cpu": "8x128 1x512 4x512 1x1024 4x1024",
    "long": "1x2048 1x4096 1x8192 1x16384",
    "cuda": "8x128 256x128 64x512 16x1024 1x4096",
}
LAYERS, HEADS, HIDDEN, INTERMEDIATE = 12, 12, 768, 3072
PEER, PEER_BATCH = "multimolecule", 8

Step = Callable[[], Any]
Context = Callable[[], AbstractContextManager[Any]]
once = partial(timeit.timeit, number=1)  # the seconds that a step takes


@dataclass(frozen=True)
class Implementation:
    """A model of the published size with random weights, on which time does not depend.

    Attributes:
        peer: whether it is multimolecule's.
        context: what it runs in.
        compiled: mode of torch.compile; None does not compile.
        int8: whether its products are computed in int8, on a CPU.
    """

    attention: str = "sdpa"
    dtype: torch.dtype = torch.float32
    peer: bool = False
    score_memory: str = "carry"
    context: Context = contextlib.nullcontext
    compiled: str | None = None
    int8: bool = False

    def build(self, train: bool = False, device: str = "cpu") -> Any:
        """The model, with a language-model head if it is to be trained."""
        package = importlib.import_module(f"{PEER}.models.ernierna" if self.peer else "ernie_rna")
        own = {} if self.peer else {"score_memory": self.score_memory}
        config = package.ErnieRnaConfig(attn_implementation=self.attention, **own)
        kind = package.ErnieRnaForMaskedLM if train else package.ErnieRnaModel
        torch.manual_seed(0)
        with torch.device(device):
            model = kind._from_config(config, attn_implementation=self.attention)
        model = model.to(device, self.dtype).train(train)
        if self.int8:
            quantize_layers(model)
        if self.compiled is None:
            return model
        return torch.compile(model, dynamic=False, mode=self.compiled)

    def step(self, case: str, train: bool = False, device: str = "cpu") -> Step:
        """A function that runs the model once on unpadded RNA, or trains a step."""
        model = self.build(train, device)
        # Ids of letters in either vocabulary; which ones does not matter to the time.
        ids = torch.randint(6, 10, sizes(case), device=device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        inputs |= {"labels": ids} if train else {}

        def run() -> None:
            with torch.inference_mode(not train), self.context():
                output = model(**inputs)
            if train:
                output.loss.backward()
                model.zero_grad()

        return run


# What runs on a GPU without our kernels.
plain = partial(
    Implementation,
    context=partial(mock.patch.object, attention_ernie_rna, "DEVICE_TYPES", frozenset()),
)
PEERS = {f"{PEER} {name}": Implementation(name, peer=True) for name in ("eager", "sdpa")}
IMPLEMENTATIONS = {
    "cpu": {
        "sdpa": Implementation(),
        "sdpa without oneDNN": Implementation(context=partial(torch.backends.mkldnn.flags, False)),
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
# From FASTA to vectors; and the sequences of a batch, None for those of `embed`.
WAYS = {
    "embed": (Implementation(), None),
    "one by one, eager": (Implementation("eager"), 1),
    "embed, bfloat16": (Implementation(dtype=torch.bfloat16), None),
    # The attention that a user of its defaults gets, and eager.
    f"{PEER}, batches of {PEER_BATCH}": (PEERS[f"{PEER} sdpa"], PEER_BATCH),
    f"{PEER}, one by one": (PEERS[f"{PEER} eager"], 1),
}
# The dtype of the model, and what it runs in.
PRECISIONS: dict[str, tuple[torch.dtype, Context]] = {
    "float32": (torch.float32, contextlib.nullcontext),
    "bfloat16": (torch.bfloat16, contextlib.nullcontext),
    "autocast bfloat16": (torch.float32, partial(torch.autocast, "cpu", torch.bfloat16)),
    "int8": (torch.float32, contextlib.nullcontext),
}


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    names = "; ".join(f"{device}: {', '.join(some)}" for device, some in IMPLEMENTATIONS.items())
    add("--device", default="cpu", choices=IMPLEMENTATIONS, help="what computes (cpu)")
    add("--cases", nargs="+", metavar="BxT", help="batch x tokens")
    add("--only", nargs="+", metavar="NAME", help=names)
    add("--train", action="store_true", help="on a CPU, a training step, not inference")
    add("--runs", type=int, help="counted runs of each (5, on a GPU 11)")
    add("--threads", type=int, default=2, help="CPU threads (2)")
    add("--long", action="store_true", help="on a CPU, sequences up to 16384 tokens, once")
    add("--fasta", type=Path, metavar="FILE", help="from its sequences to mean vectors, on a CPU")
    add("--sequences", type=int, default=128, metavar="N", help="how many of the file (128)")
    add("--precision", action="store_true", help="what each precision costs, of these sequences")
    add("-m", "--model", help="of --precision; default: full size, random weights")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    known = IMPLEMENTATIONS[args.device]
    for name in set(args.only or ()) - known.keys():
        raise ValueError(f"--only: no {name!r} on {args.device}; choose {', '.join(known)}")
    torch.set_num_threads(args.threads)
    on = f"{processor()}, {args.threads} threads"
    if args.device == "cuda":
        if args.train or not torch.cuda.is_available():
            raise ValueError("--device: there is no CUDA device, or --train, which is for a CPU")
        on = f"{torch.cuda.get_device_name()}, bfloat16, TF32 off"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{on}; {versions}", flush=True)
    if args.fasta is not None:
        measure_fasta(args)
        return 0
    names = args.only or (["sdpa", "recompute"] if args.long else that_run(known))
    for case in args.cases or CASES["long" if args.long else args.device].split():
        measure(case, names, args)
    return 0


def that_run(names: Iterable[str]) -> list[str]:
    """Those that run well: multimolecule may not be installed, and the CPU may lack bfloat16."""
    odd = [] if importlib.util.find_spec(PEER) else [PEER]
    if "AVX512" not in torch.backends.cpu.get_cpu_capability():
        odd.append("bfloat16")
    return [name for name in names if not any(one in name for one in odd)]


def sizes(case: str) -> tuple[int, int]:
    """Batch and tokens of a case such as "8x128"."""
    batch, tokens = map(int, case.split("x"))
    return batch, tokens


def measure(case: str, names: Sequence[str], args: argparse.Namespace) -> None:
    """Print a table of time and peak memory of all implementations in one case."""
    on_gpu = args.device == "cuda"
    steps: dict[str, Step] = {}
    peaks: dict[str, int] = {}
    for name in () if args.long else names:
        if not on_gpu:
            steps[name] = IMPLEMENTATIONS["cpu"][name].step(case, args.train)
        elif found := warmed(name, case):
            steps[name], peaks[name] = found
    limits = work_of_limits(case, args)
    steps |= {name: step for name, (step, _) in limits.items()}
    times = alternate(steps, args.runs or (11 if on_gpu else 5), timed if on_gpu else once)
    floors = {name: times.pop(name) * often for name, (_, often) in limits.items()}
    steps.clear()
    gc.collect()
    for name in () if on_gpu else names:
        seconds, peaks[name] = run_anew(first_run, name, case, args.train, args.threads)
        times.setdefault(name, seconds)
    print_case(case, names, times, peaks, floors, "eager" if on_gpu else "sdpa")


def alternate(
    steps: Mapping[str, Step], runs: int, meter: Callable[[Step], float]
) -> dict[str, float]:
    """The median seconds of each step behind a warm-up, all by turns: a noisy machine hurts all."""
    turns = [{name: meter(step) for name, step in steps.items()} for _ in range(1 + runs)]
    return {name: statistics.median(turn[name] for turn in turns[1:]) for name in steps}


def work_of_limits(case: str, args: argparse.Namespace) -> dict[str, tuple[Step, float]]:
    """What the hardware can do at best: a function, and how often a case takes that at least."""
    batch, tokens = sizes(case)
    # Those of the matrix products of a forward pass; a backward pass has twice as many.
    linear = 2 * batch * tokens * (4 * HIDDEN**2 + 2 * HIDDEN * INTERMEDIATE)
    operations = LAYERS * (linear + 4 * batch * tokens**2 * HIDDEN) * (3 if args.train else 1)
    if args.device == "cpu":
        left, right = (torch.randn(rows, HIDDEN) for rows in (2048, INTERMEDIATE))
        often = operations / (2 * 2048 * HIDDEN * INTERMEDIATE)
        return {"products": (lambda: left @ right.T, often)}
    one, other = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in "ab")
    source, target = (torch.empty(2**29, device="cuda") for _ in "ab")
    # Bias 0 is written, each layer but the last reads and writes, the last reads: 2 bytes a score.
    bytes = 2 * LAYERS * batch * HEADS * tokens**2 * 2
    return {
        "products": (lambda: one @ other, operations / (2 * 8192**3)),
        "scores": (lambda: target.copy_(source), bytes / (2 * 4 * 2**29)),
    }


def print_case(
    case: str,
    names: Sequence[str],
    times: Mapping[str, float],
    peaks: Mapping[str, int],
    floors: Mapping[str, float],
    reference: str,
) -> None:
    """A table of implementations in one case; those without a time ran out of memory.

    Args:
        times, peaks: seconds, and bytes above the weights, by implementation.
        floors: seconds that the case takes at least, by what it is the floor of.
        reference: one of them, whose time over the others' is shown, as is multimolecule's.
    """
    (batch, tokens), floor = sizes(case), max(floors.values())
    told = ", ".join(f"{what} {1000 * seconds:.3g} ms" for what, seconds in floors.items())
    print(f"\nbatch {batch} x {tokens} tokens (floor of the {told})\n")
    others = [n for n in names if n in times and (n == reference or n.startswith(PEER))]
    titles = ["implementation", "ms", "tokens/s", "of the floor", "MiB"]
    titles += [f"speed over {other}" for other in others]

    def cells(name: str) -> list[str]:
        if name not in times:
            return ["out of memory", *[""] * (len(titles) - 2)]
        seconds = times[name]
        return [
            f"{1000 * seconds:.{0 if floor > 0.1 else 2}f}",
            f"{batch * tokens / seconds:.0f}",
            f"{seconds / floor:.2f}",
            f"{peaks[name] / 2**20:.0f}" if name in peaks else "",
            *(f"{times[other] / seconds:.2f}" for other in others),
        ]

    print_table(titles, ([name, *cells(name)] for name in names))


def first_run(name: str, case: str, train: bool, threads: int) -> tuple[float, int]:
    """Seconds of the first run, and its bytes above the loaded weights (gradients included)."""
    torch.set_num_threads(threads)
    function = IMPLEMENTATIONS["cpu"][name].step(case, train)
    with torch.inference_mode():  # Libraries take their own memory at their first call.
        F.scaled_dot_product_attention(*torch.randn(3, 1, 1, 8, 8))
        torch.randn(2048, HIDDEN) @ torch.randn(HIDDEN, INTERMEDIATE)
    return time_and_peak(function)


def time_and_peak(function: Step) -> tuple[float, int]:
    """Seconds of a function, and the most bytes of this process above those before (Linux)."""

    def resident(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))

    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # Start the high-water mark anew.
    before = resident("VmRSS")
    seconds = once(function)
    return seconds, resident("VmHWM") - before


def warmed(name: str, case: str) -> tuple[Step, int] | None:
    """A step in bfloat16 that has run once, and the bytes that a run allocates above what is there
    before it; None where the card lacks the memory."""
    gc.collect()
    torch.cuda.empty_cache()
    try:
        one = replace(IMPLEMENTATIONS["cuda"][name], dtype=torch.bfloat16)
        function = one.step(case, device="cuda")
        function()  # Kernels are compiled, and libraries take their memory.
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        timed(function)
        return function, torch.cuda.max_memory_allocated() - before
    except torch.cuda.OutOfMemoryError:
        return None


def timed(function: Step) -> float:
    """Seconds by the card's events."""
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def measure_fasta(args: argparse.Namespace) -> None:
    """Print what each way to the vectors takes and how much padding there is, or the precision."""
    limit = nucleotide_limit(ErnieRnaConfig())
    records = [record for record in read_fasta(args.fasta) if len(record.sequence) <= limit]
    sample = evenly(records, args.sequences)
    sequences = [one.sequence for one in sample]
    if args.precision:
        model = load_model(args.model, device="cpu") if args.model else Implementation().build()
        print(f"{len(sequences)} sequences, {sum(map(len, sequences))} nt\n")
        measure_precision(model, sequences)
        return
    for what, some in ((f"all up to {limit} nt", records), ("which are timed", sample)):
        ours, others = padding(some)
        print(
            f"{len(some)} sequences, {what}, {sum(len(one.sequence) for one in some)} nt: padding "
            f"is {ours:.1%} in embed, {others:.1%} in batches of {PEER_BATCH} in this order"
        )
    print(flush=True)
    steps = {name: way(*WAYS[name], sequences) for name in that_run(WAYS)}
    times = alternate(steps, args.runs or 5, once)
    rows = (
        [name, f"{taken:.1f}", f"{len(sample) / taken:.2f}", f"{taken / times['embed']:.2f}x"]
        for name, taken in times.items()
    )
    print_table(["implementation", "s", "sequences/s", "embed's speed over it"], rows)


def padding(records: Sequence[FastaRecord]) -> tuple[float, float]:
    """Shares of padding in the batches that `embed` makes, and in those of others."""
    plan = Plan(resolve_batch_tokens(None, torch.device("cpu")), HIDDEN)
    ours = [
        count_padding([piece.tokens for piece in chunk.pieces], chunk.batches)
        for chunk in plan.chunks(records)
    ]
    tokens, wasted = map(sum, zip(*ours, strict=True))
    lengths = [len(record.sequence) + 2 for record in records]
    others, others_wasted = count_padding(lengths, in_batches(range(len(lengths)), PEER_BATCH))
    return wasted / tokens, others_wasted / others


def in_batches(items: Sequence[Any], size: int) -> list[Any]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def way(one: Implementation, size: int | None, sequences: Sequence[str]) -> Step:
    """A function that computes the mean vectors of all sequences, in batches of a size."""
    model = one.build()
    if size is None:
        return lambda: list(embed(sequences, model, progress=False))
    kind: Any = importlib.import_module(PEER).RnaTokenizer if one.peer else ErnieRnaTokenizer
    tokenizer = kind()

    @torch.inference_mode()
    def run() -> list[torch.Tensor]:
        """The means over all tokens but padding, (batch, hidden): what a plain loop would do."""
        means = []
        for batch in in_batches(sequences, size):
            inputs = tokenizer(batch, return_tensors="pt", padding=True)
            ids, mask = inputs["input_ids"], inputs["attention_mask"]
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
            means.append((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
        return means

    return run


def measure_precision(model: Any, sequences: Sequence[str]) -> None:
    """Print the error of every layer against float64, and the least cosine of the embeddings."""
    exact = hidden_states(copy.deepcopy(model).double(), sequences)
    values = np.concatenate(exact, axis=1)
    columns = []
    for name, (dtype, under) in PRECISIONS.items():
        rounded = copy.deepcopy(model).to(dtype)
        if name == "int8":
            quantize_layers(rounded)
        with under():
            found = hidden_states(rounded, sequences)
        squares = np.square(np.concatenate(found, axis=1) - values).mean((1, 2))
        errors = np.sqrt(squares / np.square(values).mean((1, 2)))  # (layers + 1,)
        means = (
            (a[-1, 1:-1].mean(0), b[-1, 1:-1].mean(0)) for a, b in zip(found, exact, strict=True)
        )
        least = min(a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in means)
        columns.append([*(f"{error:.1e}" for error in errors), f"{least:.7f}"])
    print_table(["layer", *PRECISIONS], zip([*range(len(values)), "cosine"], *columns, strict=True))


@torch.inference_mode()
def hidden_states(model: Any, sequences: Sequence[str]) -> list[np.ndarray]:
    """Of each sequence (layers + 1, seq, hidden) in float64."""
    found = []
    for sequence in sequences:
        output = model(*tokenize([sequence], torch.device("cpu")), output_hidden_states=True)
        found.append(torch.cat(output.hidden_states).double().numpy())
    return found


if __name__ == "__main__":
    sys.exit(main())
