"""What results depend on besides the input: settings, weights, versions, and the properties of the
machine that can change the last bits of the numbers (`make portability` measures them).
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

# These keep MKL and oneDNN from using instructions of the CPU, or allow a lower precision.
_CPU_VARIABLES = [
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
    *("ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE"),
]


def model_sha256(model: Any) -> str:
    """The digest of what results depend on in a model: weights (without the pooler) and config."""
    digest = hashlib.sha256()
    names = inspect.signature(type(model.config).__init__).parameters
    values = model.config.to_dict()
    fields = {name: values[name] for name in sorted(names) if name in values}
    digest.update(json.dumps(fields, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith("pooler.") or not isinstance(tensor, torch.Tensor | tuple):
            continue
        for weight in tensor if isinstance(tensor, tuple) else [tensor]:  # int8: weight and bias
            values = weight.int_repr() if weight.is_quantized else weight
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            flat = values.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def model_name(model: Any) -> str:
    """The folder or Hub id that the caller gave, or that a loaded model came from."""
    if isinstance(model, (str, PathLike)):
        return fspath(model)
    return str(model.config._name_or_path)


def versions() -> dict[str, str]:
    """The versions that results depend on, by package."""
    return {
        "ernie_rna": __version__,
        "torch": str(torch.__version__),  # Its own type compares as a version: 2.13 equals 2.13.0.
        "transformers": transformers.__version__,
    }


def describe_machine(device: torch.device, threads: int | None) -> dict[str, Any]:
    """The properties of the machine that must be equal to resume a run, by name; values for JSON.

    On a CPU: the most threads that are used, whose number decides how sums are divided; the
    instructions that torch's own code uses, by which the model also chooses between MKL and oneDNN;
    and what restricts those two. On a GPU: its name. On both: the precision of float32 products.
    """
    if device.type == "cuda":
        return {
            "gpu": torch.cuda.get_device_name(device),
            "float32_products": _float32_products(torch.backends.cuda),
            **_environment(["NVIDIA_TF32_OVERRIDE"]),
        }
    if device.type == "cpu":
        return {
            "threads": threads or torch.get_num_threads(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "onednn": bool(torch.backends.mkldnn.enabled),
            "float32_products": _float32_products(torch.backends.mkldnn),
            **_environment(_CPU_VARIABLES),
        }
    return {}


def _float32_products(backend: Any) -> str:
    """The precision of float32 products; torch before 2.9 has one setting for all backends."""
    precision = getattr(getattr(backend, "matmul", None), "fp32_precision", None)
    if precision is None:
        return torch.get_float32_matmul_precision()
    return "ieee" if precision == "none" else str(precision)


def _environment(names: list[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}
