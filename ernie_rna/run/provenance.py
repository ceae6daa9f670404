"""What results depend on beside the input: settings, weights, versions, and of the machine what
can decide the last bits of the numbers (`make portability` measures it).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from os import PathLike, fspath
from typing import Any

import torch
import transformers

from ernie_rna import __version__

# With these, MKL and oneDNN are kept from instructions that the CPU has, or let off precision.
_CPU_VARIABLES = [
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
    *("ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE"),
]


def model_sha256(model: Any) -> str:
    """Digest of all that results depend on: the weights (the pooler left out), the config."""
    digest = hashlib.sha256()
    names = inspect.signature(type(model.config).__init__).parameters
    values = model.config.to_dict()
    fields = {name: values[name] for name in sorted(names) if name in values}
    digest.update(json.dumps(fields, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith("pooler.") or not isinstance(tensor, torch.Tensor | tuple):
            continue
        for one in tensor if isinstance(tensor, tuple) else [tensor]:  # int8: weight and bias
            values = one.int_repr() if one.is_quantized else one
            digest.update(f"{name} {one.dtype} {tuple(one.shape)}".encode())
            flat = values.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def model_name(model: Any) -> str:
    """The folder or Hub id that a caller gave, or that a model was loaded from."""
    if isinstance(model, (str, PathLike)):
        return fspath(model)
    return str(model.config._name_or_path)


def versions() -> dict[str, str]:
    """The versions that results depend on, by package."""
    return {
        "ernie_rna": __version__,
        "torch": str(torch.__version__),  # Its own type compares as versions do: 2.13 is 2.13.0.
        "transformers": transformers.__version__,
    }


def describe_machine(device: torch.device, threads: int | None) -> dict[str, Any]:
    """What must be equal where a run is resumed, by name; values for JSON.

    On a CPU: threads, the most that are used, by whose number sums are cut; the instructions that
    torch's own code uses, by which the model also chooses between MKL and oneDNN; and what holds
    those two back. On a GPU: its name. On both: whether float32 products may be computed in less.
    """
    if device.type == "cuda":
        return {
            "gpu": torch.cuda.get_device_name(device),
            "float32_products": _float32_products(torch.backends.cuda),
            **_set(["NVIDIA_TF32_OVERRIDE"]),
        }
    if device.type == "cpu":
        return {
            "threads": threads or torch.get_num_threads(),
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


def _set(names: list[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}
