"""Measure time, memory and precision of ERNIE-RNA: the tables of docs/benchmarks.md.

In each case all implementations, multimolecule's included, take turns in one process, and the
script prints medians, on a GPU of times from its own events. The floor is the time of the model's
floating-point operations at the rate of a large matrix product, measured in the same turns; on a
GPU also that of the fewest passes over the attention scores at the rate of a copy, if it is larger.
Peak memory excludes the loaded weights; on a CPU it is that of a fresh process. Weights are random:
time does not depend on them. CPUs without bfloat16 instructions take several times as long with
bfloat16 as without, so its rows are left out there unless they are named.

    python -m scripts.benchmark
    python -m scripts.benchmark --long               # up to 16384 tokens, timed once each
    python -m scripts.benchmark --train              # a training step
    python -m scripts.benchmark --device cuda        # in bfloat16
    python -m scripts.benchmark --fasta rna.fasta --sequences 96
    python -m scripts.benchmark --fasta rna.fasta --sequences 64 --precision

With --fasta, mean vectors of evenly spaced sequences of a file are computed on a CPU: by `embed`,
which batches sequences of similar length, also in bfloat16 if the CPU supports it; by our model one
by one with eager attention, like the authors' scripts; and by multimolecule, if it is installed, in
padded batches of 8 in the order of the file, and one by one with its eager attention.

With --precision, the script prints the error of each precision on these sequences. The error of a
layer is the root mean square of its difference from the same weights in float64, divided by that of
the values. The cosine is the least over all sequences, of mean vectors of the last layer without
special tokens.
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
once = partial(timeit.timeit, number=1)  # returns the seconds that a step takes


@dataclass(frozen=True)
class Implementation:
    """A model of the published size with random weights, which do not affect time.

    Attributes:
        peer: whether it is multimolecule's.
        context: the context manager that it runs in.
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
        """The model, with a language-model head for training."""
        package = importlib.import_module(f"{PEER}.models.ernierna" if self.peer else "ernie_rna")
        options = {} if self.peer else {"score_memory": self.score_memory}
        config = package.ErnieRnaConfig(attn_implementation=self.attention, **options)
        model_class = package.ErnieRnaForMaskedLM if train else package.ErnieRnaModel
        torch.manual_seed(0)
        with torch.device(device):
            model = model_class._from_config(config, attn_implementation=self.attention)
        model = model.to(device, self.dtype).train(train)
        if self.int8:
            quantize_layers(model)
        if self.compiled is None:
            return model
        return torch.compile(model, dynamic=False, mode=self.compiled)

    def step(self, case: str, train: bool = False, device: str = "cpu") -> Step:
        """A function that runs the model once, or a training step, on unpadded RNA."""
        model = self.build(train, device)
        # Ids that are letters in both vocabularies; which letters does not affect time.
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


# On a GPU, our model without our kernels.
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
# Ways from FASTA to vectors: implementation, and sequences per batch (None: chosen by `embed`).
WAYS = {
    "embed": (Implementation(), None),
    "one by one, eager": (Implementation("eager"), 1),
    "embed, bfloat16": (Implementation(dtype=torch.bfloat16), None),
    # With its default attention, and with eager attention.
    f"{PEER}, batches of {PEER_BATCH}": (PEERS[f"{PEER} sdpa"], PEER_BATCH),
    f"{PEER}, one by one": (PEERS[f"{PEER} eager"], 1),
}
# Name -> the dtype of the model, and the context that it runs in.
PRECISIONS: dict[str, tuple[torch.dtype, Context]] = {
    "float32": (torch.float32, contextlib.nullcontext),
    "bfloat16": (torch.bfloat16, contextlib.nullcontext),
    "autocast bfloat16": (torch.float32, partial(torch.autocast, "cpu", torch.bfloat16)),
    "int8": (torch.float32, contextlib.nullcontext),
}


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    names = "; ".join(f"{device}: {', '.join(known)}" for device, known in IMPLEMENTATIONS.items())
    add("--device", default="cpu", choices=IMPLEMENTATIONS, help="device to compute on (cpu)")
    add("--cases", nargs="+", metavar="BxT", help="batch x tokens")
    add("--only", nargs="+", metavar="NAME", help=names)
    add("--train", action="store_true", help="time a training step, not inference, on a CPU")
    add("--runs", type=int, help="counted runs of each (5, on a GPU 11)")
    add("--threads", type=int, default=2, help="CPU threads (2)")
    add("--long", action="store_true", help="time sequences up to 16384 tokens once, on a CPU")
    add("--fasta", type=Path, metavar="FILE", help="time mean vectors of its sequences, on a CPU")
    add("--sequences", type=int, default=128, metavar="N", help="how many of the file (128)")
    add("--precision", action="store_true", help="measure precision on these sequences instead")
    add("-m", "--model", help="model for --precision; default: full size, random weights")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    known = IMPLEMENTATIONS[args.device]
    for name in set(args.only or ()) - known.keys():
        raise ValueError(f"--only: no {name!r} on {args.device}; choose {', '.join(known)}")
    torch.set_num_threads(args.threads)
    machine = f"{processor()}, {args.threads} threads"
    if args.device == "cuda":
        if args.train or not torch.cuda.is_available():
            raise ValueError("--device cuda needs a CUDA device and cannot be used with --train")
        machine = f"{torch.cuda.get_device_name()}, bfloat16, TF32 off"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{machine}; {versions}", flush=True)
    if args.fasta is not None:
        measure_fasta(args)
        return 0
    names = args.only or (["sdpa", "recompute"] if args.long else that_run(known))
    for case in args.cases or CASES["long" if args.long else args.device].split():
        measure(case, names, args)
    return 0


def that_run(names: Iterable[str]) -> list[str]:
    """Those without multimolecule if it is not installed, or bfloat16 if the CPU lacks it."""
    unsupported = [] if importlib.util.find_spec(PEER) else [PEER]
    if "AVX512" not in torch.backends.cpu.get_cpu_capability():
        unsupported.append("bfloat16")
    return [name for name in names if not any(word in name for word in unsupported)]


def sizes(case: str) -> tuple[int, int]:
    """Batch size and number of tokens of a case such as "8x128"."""
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
        elif step_and_peak := warmed(name, case):
            steps[name], peaks[name] = step_and_peak
    limits = work_of_limits(case, args)
    steps |= {name: step for name, (step, _) in limits.items()}
    times = alternate(steps, args.runs or (11 if on_gpu else 5), timed if on_gpu else once)
    floors = {name: times.pop(name) * factor for name, (_, factor) in limits.items()}
    steps.clear()
    gc.collect()
    for name in () if on_gpu else names:
        seconds, peaks[name] = run_anew(first_run, name, case, args.train, args.threads)
        times.setdefault(name, seconds)
    print_case(case, names, times, peaks, floors, "eager" if on_gpu else "sdpa")


def alternate(
    steps: Mapping[str, Step], runs: int, meter: Callable[[Step], float]
) -> dict[str, float]:
    """The median seconds of each step after a warm-up; they take turns, so noise affects all."""
    turns = [{name: meter(step) for name, step in steps.items()} for _ in range(1 + runs)]
    return {name: statistics.median(turn[name] for turn in turns[1:]) for name in steps}


def work_of_limits(case: str, args: argparse.Namespace) -> dict[str, tuple[Step, float]]:
    """Reference steps, and the multiple of each step's time that a case takes at least."""
    batch, tokens = sizes(case)
    # Operations of the matrix products of a forward pass; a backward pass has twice as many.
    linear = 2 * batch * tokens * (4 * HIDDEN**2 + 2 * HIDDEN * INTERMEDIATE)
    operations = LAYERS * (linear + 4 * batch * tokens**2 * HIDDEN) * (3 if args.train else 1)
    if args.device == "cpu":
        left, right = (torch.randn(rows, HIDDEN) for rows in (2048, INTERMEDIATE))
        factor = operations / (2 * 2048 * HIDDEN * INTERMEDIATE)
        return {"products": (lambda: left @ right.T, factor)}
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    source, target = (torch.empty(2**29, device="cuda") for _ in range(2))
    # Bias 0 is written, layers read and write, the last one only reads: scores of 2 bytes each.
    bytes = 2 * LAYERS * batch * HEADS * tokens**2 * 2
    return {
        "products": (lambda: left @ right, operations / (2 * 8192**3)),
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
    """Print a table of implementations in one case; those without a time ran out of memory.

    Args:
        times, peaks: seconds, and bytes above the weights, by implementation.
        floors: seconds that the case takes at least, by what limits it.
        reference: the implementation that others are compared with, as they are with multimolecule.
    """
    (batch, tokens), floor = sizes(case), max(floors.values())
    limits = ", ".join(f"{what} {1000 * seconds:.3g} ms" for what, seconds in floors.items())
    print(f"\nbatch {batch} x {tokens} tokens (floor of the {limits})\n")
    compared = [n for n in names if n in times and (n == reference or n.startswith(PEER))]
    titles = ["implementation", "ms", "tokens/s", "of the floor", "MiB"]
    titles += [f"speed over {other}" for other in compared]

    def cells(name: str) -> list[str]:
        if name not in times:
            return ["out of memory", *[""] * (len(titles) - 2)]
        seconds = times[name]
        return [
            f"{1000 * seconds:.{0 if floor > 0.1 else 2}f}",
            f"{batch * tokens / seconds:.0f}",
            f"{seconds / floor:.2f}",
            f"{peaks[name] / 2**20:.0f}" if name in peaks else "",
            *(f"{times[other] / seconds:.2f}" for other in compared),
        ]

    print_table(titles, ([name, *cells(name)] for name in names))


def first_run(name: str, case: str, train: bool, threads: int) -> tuple[float, int]:
    """Seconds of the first run, and its peak bytes above the loaded weights (with gradients)."""
    torch.set_num_threads(threads)
    function = IMPLEMENTATIONS["cpu"][name].step(case, train)
    with torch.inference_mode():  # Libraries allocate their own memory at the first call.
        F.scaled_dot_product_attention(*torch.randn(3, 1, 1, 8, 8))
        torch.randn(2048, HIDDEN) @ torch.randn(HIDDEN, INTERMEDIATE)
    return time_and_peak(function)


def time_and_peak(function: Step) -> tuple[float, int]:
    """Seconds of a function, and by how many bytes it raises the peak of this process (Linux)."""

    def resident(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))

    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # Reset the high-water mark.
    before = resident("VmRSS")
    seconds = once(function)
    return seconds, resident("VmHWM") - before


def warmed(name: str, case: str) -> tuple[Step, int] | None:
    """A bfloat16 step that has run once, and the bytes it allocates; None if out of memory."""
    gc.collect()
    torch.cuda.empty_cache()
    try:
        implementation = replace(IMPLEMENTATIONS["cuda"][name], dtype=torch.bfloat16)
        function = implementation.step(case, device="cuda")
        function()  # This compiles kernels, and libraries allocate their memory.
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        timed(function)
        return function, torch.cuda.max_memory_allocated() - before
    except torch.cuda.OutOfMemoryError:
        return None


def timed(function: Step) -> float:
    """Seconds of a function, measured by events of the GPU."""
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def measure_fasta(args: argparse.Namespace) -> None:
    """Print the time of each way to the vectors and the share of padding, or the precision."""
    limit = nucleotide_limit(ErnieRnaConfig())
    records = [record for record in read_fasta(args.fasta) if len(record.sequence) <= limit]
    sample = evenly(records, args.sequences)
    sequences = [record.sequence for record in sample]
    if args.precision:
        model = load_model(args.model, device="cpu") if args.model else Implementation().build()
        print(f"{len(sequences)} sequences, {sum(map(len, sequences))} nt\n")
        measure_precision(model, sequences)
        return
    for what, group in ((f"all up to {limit} nt", records), ("which are timed", sample)):
        by_embed, in_order = padding(group)
        nucleotides = sum(len(record.sequence) for record in group)
        print(
            f"{len(group)} sequences, {what}, {nucleotides} nt: padding is {by_embed:.1%} in "
            f"embed, {in_order:.1%} in batches of {PEER_BATCH} in this order"
        )
    print(flush=True)
    steps = {name: way(*WAYS[name], sequences) for name in that_run(WAYS)}
    times = alternate(steps, args.runs or 5, once)
    rows = (
        [name, f"{time:.1f}", f"{len(sample) / time:.2f}", f"{time / times['embed']:.2f}x"]
        for name, time in times.items()
    )
    print_table(["implementation", "s", "sequences/s", "embed's speed over it"], rows)


def padding(records: Sequence[FastaRecord]) -> tuple[float, float]:
    """Shares of padding in the batches that `embed` makes, and in those of PEER_BATCH in order."""
    plan = Plan(resolve_batch_tokens(None, torch.device("cpu")), HIDDEN)
    counts = [
        count_padding([piece.tokens for piece in chunk.pieces], chunk.batches)
        for chunk in plan.chunks(records)
    ]
    tokens, padded = map(sum, zip(*counts, strict=True))
    lengths = [len(record.sequence) + 2 for record in records]
    in_order, in_order_padded = count_padding(lengths, in_batches(range(len(lengths)), PEER_BATCH))
    return padded / tokens, in_order_padded / in_order


def in_batches(items: Sequence[Any], size: int) -> list[Any]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def way(implementation: Implementation, size: int | None, sequences: Sequence[str]) -> Step:
    """A function that computes mean vectors, in batches of `size` or, if it is None, by `embed`."""
    model = implementation.build()
    if size is None:
        return lambda: list(embed(sequences, model, progress=False))
    package: Any = importlib.import_module(PEER) if implementation.peer else None
    tokenizer = package.RnaTokenizer() if package else ErnieRnaTokenizer()

    @torch.inference_mode()
    def run() -> list[torch.Tensor]:
        """Means over all tokens except padding, (batch, hidden), in a simple loop."""
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
    for name, (dtype, context) in PRECISIONS.items():
        rounded = copy.deepcopy(model).to(dtype)
        if name == "int8":
            quantize_layers(rounded)
        with context():
            states = hidden_states(rounded, sequences)
        squares = np.square(np.concatenate(states, axis=1) - values).mean((1, 2))
        errors = np.sqrt(squares / np.square(values).mean((1, 2)))  # (layers + 1,)
        means = (
            (a[-1, 1:-1].mean(0), b[-1, 1:-1].mean(0)) for a, b in zip(states, exact, strict=True)
        )
        least = min(a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in means)
        columns.append([*(f"{error:.1e}" for error in errors), f"{least:.7f}"])
    print_table(["layer", *PRECISIONS], zip([*range(len(values)), "cosine"], *columns, strict=True))


@torch.inference_mode()
def hidden_states(model: Any, sequences: Sequence[str]) -> list[np.ndarray]:
    """The hidden states of each sequence, (layers + 1, seq, hidden) in float64."""
    inputs = (tokenize([sequence], torch.device("cpu")) for sequence in sequences)
    outputs = (model(*ids_and_mask, output_hidden_states=True) for ids_and_mask in inputs)
    return [torch.cat(output.hidden_states).double().numpy() for output in outputs]


if __name__ == "__main__":
    sys.exit(main())
