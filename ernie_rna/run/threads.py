"""What of a machine can decide the last bits of the numbers; `make portability` measures it.

And how many threads torch takes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

MOST_THREADS = 1024
# With these, MKL and oneDNN are kept from instructions that the CPU has, or let off precision.
_CPU_VARIABLES = (
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
    *("ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE"),
)
_GPU_VARIABLES = ("NVIDIA_TF32_OVERRIDE",)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What must be equal where a run goes on, by name; values for JSON.

    On a CPU: threads, by whose number sums are cut; the instructions that torch's own code uses,
    by which the model also chooses between MKL and oneDNN; and what holds those two back. On a
    GPU: its name. On both: whether float32 products may be computed in less.
    """
    if device.type == "cuda":
        return {
            "gpu": torch.cuda.get_device_name(device),
            "float32_products": _float32_products(torch.backends.cuda),
            **_set(_GPU_VARIABLES),
        }
    if device.type == "cpu":
        return {
            "threads": torch.get_num_threads(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "onednn": bool(torch.backends.mkldnn.enabled),
            "float32_products": _float32_products(torch.backends.mkldnn),
            **_set(_CPU_VARIABLES),
        }
    return {}


def _float32_products(backend: Any) -> str:
    """What float32 products are computed in; torch before 2.9 has one word for all backends."""
    precision = getattr(getattr(backend, "matmul", None), "fp32_precision", None)
    if precision is None:
        return torch.get_float32_matmul_precision()
    return "ieee" if precision == "none" else str(precision)


def _set(names: tuple[str, ...]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


@contextlib.contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Have torch use so many threads for a while.

    Raises:
        ValueError: the number is below 1, or beyond what systems start.
    """
    if count is not None and not 1 <= count <= MOST_THREADS:
        raise ValueError(f"threads must be 1 to {MOST_THREADS}; got {count}")
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)
