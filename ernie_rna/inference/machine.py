"""What of a machine can decide the last bits of the numbers; `make portability` measures it."""

from __future__ import annotations

import os
from typing import Any

import torch

# With these, MKL and oneDNN are kept from instructions that the CPU has.
_VARIABLES = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What must be equal where a run goes on, by name; values for JSON.

    On a CPU: threads, by whose number sums are cut; the instructions that torch's own code uses,
    by which the model also chooses between MKL and oneDNN; and what holds those two back. On a
    GPU: its name.
    """
    if device.type == "cuda":
        return {"gpu": torch.cuda.get_device_name(device)}
    if device.type != "cpu":
        return {}
    return {
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "onednn": bool(torch.backends.mkldnn.enabled),
        **{name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }
