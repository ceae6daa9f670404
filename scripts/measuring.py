"""What the benchmarks share: the models compared, turns and medians, peaks of memory, tables."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers

PEER = "multimolecule"

Step = Callable[[], Any]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Implementation:
    """A model of the published size with random weights, on which time does not depend.

    Attributes:
        attention: name of its attention.
        dtype: of its weights.
        peer: whether it is multimolecule's.
        score_memory: of ours, see ErnieRnaConfig.
        context: what it runs in.
        compiled: mode of torch.compile; None does not compile.
        int8: whether its products are computed in int8, on a CPU.
    """

    attention: str = "sdpa"
    dtype: torch.dtype = torch.float32
    peer: bool = False
    score_memory: str = "carry"
    context: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
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
            importlib.import_module("ernie_rna.run.loading").quantize_layers(model)
        if self.compiled is None:
            return model
        return torch.compile(model, dynamic=False, mode=self.compiled)

    def step(self, case: str, train: bool = False, device: str = "cpu") -> Step:
        """A function that runs the model once on unpadded RNA, or trains a step."""
        model = self.build(train, device)
        # Ids of letters in either vocabulary; which ones does not matter to the time.
        ids = torch.randint(6, 10, sizes(case), device=device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

        def infer() -> None:
            with torch.inference_mode(), self.context():
                model(**inputs)

        def learn() -> None:
            model.zero_grad()
            with self.context():
                loss = model(**inputs, labels=ids).loss
            loss.backward()

        return learn if train else infer


def sizes(case: str) -> tuple[int, int]:
    """Batch and tokens of a case such as "8x128"."""
    batch, tokens = map(int, case.split("x"))
    return batch, tokens


def flops(case: str, layers: int = 12, hidden: int = 768, intermediate: int = 3072) -> int:
    """Floating-point operations of the matrix products of one forward pass."""
    batch, tokens = sizes(case)
    linear = 2 * batch * tokens * (4 * hidden**2 + 2 * hidden * intermediate)
    return layers * (linear + 4 * batch * tokens**2 * hidden)


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def computes_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16, without which it is slow."""
    return "AVX512" in torch.backends.cpu.get_cpu_capability()


def versions() -> str:
    """Those that figures depend on."""
    return f"torch {torch.__version__}, transformers {transformers.__version__}"


def processor() -> str:
    """The name of the CPU, where the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def evenly(items: Sequence[Item], count: int | None) -> Sequence[Item]:
    """So many of the items, or all, evenly spaced."""
    return items if count is None else items[:: max(1, len(items) // count)][:count]


def elapsed(function: Step) -> float:
    """Seconds that a function takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def alternate(
    steps: Mapping[str, Step], runs: int, timed: Callable[[Step], float] = elapsed
) -> dict[str, float]:
    """The median seconds of each step behind a warm-up, all by turns: a noisy machine hurts all.

    Args:
        runs: of each that count.
        timed: measures a run.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(1 + runs):
        for name, function in steps.items():
            seconds[name].append(timed(function))
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def run_anew(script: str, *arguments: str, **environment: str) -> bytes:
    """What a script prints in a process of its own."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, script, *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        check=True,
        stdout=subprocess.PIPE,
    )
    return done.stdout


def time_and_peak(function: Step) -> tuple[float, int]:
    """Seconds of a function, and the most bytes of this process above those before (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # Start the high-water mark anew.
    before = _resident("VmRSS")
    seconds = elapsed(function)
    return seconds, _resident("VmHWM") - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def print_table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table in Markdown, line by line as the rows come."""
    print(f"| {' | '.join(titles)} |\n|---|{'--:|' * (len(titles) - 1)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)
