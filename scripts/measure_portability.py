"""Measure how threads, oneDNN and CPU instructions change the results, against float64.

    python -m scripts.measure_portability
    python -m scripts.measure_portability --settings "1 thread" "ATen default"

Each setting runs in a separate process, since torch, oneDNN and MKL choose their code when they are
loaded. The models are the authors' small checkpoint in tests/golden and a larger one with random
weights; compared are hidden states of all layers and logits, with eager attention and with sdpa, of
five RNAs in one padded batch. An error is the largest absolute difference from the same weights in
float64 at a real token. The bound is the rule of this repository: twice the error of eager
attention in the reference setting (two threads, otherwise torch's defaults) plus 1e-6. Bits are
"same" if they equal the reference's. Exit code 1 means that a bound is exceeded.
"""

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from ernie_rna import ErnieRnaConfig, ErnieRnaForMaskedLM, load_masked_lm
from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.model import layers_ernie_rna
from ernie_rna.run.loading import tokenize
from scripts.measuring import print_table, processor, run_anew
from tests.golden_folder import write_golden_folder

MIDDLE: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
LONGEST = 400  # nucleotides of the longest RNA for that model
ATTENTIONS = ("eager", "sdpa")
OUTPUTS = ("hidden states", "logits")

Models = Mapping[Path, Sequence[str]]  # folder -> RNAs
# For each attention the hidden states of all layers, and the logits, of the RNAs in one padded
# batch, with 0 at padding: (..., batch, seq, width).
Values = list[np.ndarray]
# Environment variables of a process. ONEDNN is our own: whether oneDNN computes the model's
# products. By default the model decides, and uses oneDNN on CPUs with AVX-512.
Setting = dict[str, str]

REFERENCE = "reference: 2 threads"
SETTINGS: dict[str, Setting] = {
    REFERENCE: {},
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "4 threads": {"OMP_NUM_THREADS": "4"},
    **{
        f"{count} thread{'s' * (count > 1)}, {name}": {"OMP_NUM_THREADS": str(count), "ONEDNN": use}
        for use, name in (("1", "oneDNN"), ("0", "no oneDNN"))
        for count in (1, 2, 4)
    },
    **{f"ATen {isa}": {"ATEN_CPU_CAPABILITY": isa} for isa in ("default", "avx2", "avx512")},
    **{
        f"oneDNN {isa}": {"ONEDNN": "1", "ONEDNN_MAX_CPU_ISA": isa}
        for isa in ("SSE41", "AVX", "AVX2", "AVX512_CORE")
    },
    **{f"MKL {isa}": {"MKL_ENABLE_INSTRUCTIONS": isa} for isa in ("SSE4_2", "AVX2", "AVX512")},
    **{f"MKL CBWR {isa}": {"MKL_CBWR": isa} for isa in ("COMPATIBLE", "AVX2", "AVX512")},
    "ATen default, MKL CBWR COMPATIBLE": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
    },
}


def can_run(name: str) -> bool:
    """Whether the CPU has the instructions that a setting needs."""
    capability = torch.backends.cpu.get_cpu_capability()
    return {"AVX512": "none", "AVX2": "AVX512"}.get(capability, "AVX") not in name.upper()


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("--settings", nargs="+", choices=SETTINGS, metavar="NAME", help="settings to run (all)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    logging.disable_progress_bar()
    names = filter(can_run, args.settings or SETTINGS)
    chosen = {name: SETTINGS[name] for name in (REFERENCE, *names)}
    with tempfile.TemporaryDirectory() as scratch:
        golden, middle = write_golden_folder(Path(scratch, "golden")), Path(scratch, "middle")
        write_random(middle)
        capability = torch.backends.cpu.get_cpu_capability()
        print(f"{processor()}, {capability}, torch {torch.__version__}")
        return int(measure({golden: draw_rnas(200), middle: draw_rnas(LONGEST)}, chosen))


def write_random(folder: Path) -> None:
    """Save a random model with scores as large as a trained model's; attention is not uniform."""
    torch.manual_seed(0)
    model = ErnieRnaForMaskedLM(ErnieRnaConfig(**MIDDLE))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter.mul_(5)
    model.save_pretrained(folder)


def draw_rnas(length: int) -> list[str]:
    """Five random RNAs, the longest of `length` nucleotides."""
    generator = torch.Generator().manual_seed(0)
    lengths = [max(1, length * share // 8) for share in (8, 6, 4, 2, 1)]
    letters = [torch.randint(4, (n,), generator=generator).tolist() for n in lengths]
    return ["".join("ACGU"[letter] for letter in rna) for rna in letters]


def measure(models: Models, settings: Mapping[str, Setting]) -> bool:
    """Print the errors under each setting, the reference first, with two threads unless the setting
    says otherwise; return whether a bound is exceeded."""
    exact = compute(models, torch.float64)
    results = (
        (name, run_anew(compute, models, torch.float32, **{"OMP_NUM_THREADS": "2", **setting}))
        for name, setting in settings.items()
    )
    _, reference = first = next(results)
    bounds = 2 * errors(reference, exact)[:, 0] + 1e-6  # (models, outputs)
    table, missed = [("bound", bounds, [""] * len(models))], False
    for name, values in chain([first], results):
        largest = errors(values, exact).max(axis=1)
        missed |= not (largest <= bounds).all()  # NaN exceeds the bound
        equal = (all(map(np.array_equal, *pair)) for pair in zip(values, reference, strict=True))
        table.append((name, largest, ["same" if is_equal else "other" for is_equal in equal]))
    titles = [f"{folder.name}: {what}" for folder in models for what in (*OUTPUTS, "bits")]
    rows = (
        [name, *(f"{a:.1e} | {b:.1e} | {bit}" for (a, b), bit in zip(largest, bits, strict=True))]
        for name, largest, bits in table
    )
    print_table(["setting", *titles], rows)
    return missed


def errors(results: Sequence[Values], exact: Sequence[Values]) -> np.ndarray:
    """The largest absolute differences, (models, attentions, outputs); NaN if a value is NaN."""
    largest = [
        [np.abs(a - b).max() for a, b in zip(values, exact_values, strict=True)]
        for values, exact_values in zip(results, exact, strict=True)
    ]
    return np.reshape(largest, (len(results), len(ATTENTIONS), len(OUTPUTS)))


def compute(models: Models, dtype: torch.dtype) -> list[Values]:
    """The hidden states and logits of each model, see `Values`."""
    if "ONEDNN" in os.environ:
        # The model's list of the dtypes that oneDNN multiplies faster on this CPU.
        layers_ernie_rna._ONEDNN_DTYPES = (torch.float32,) * int(os.environ["ONEDNN"])
    logging.disable_progress_bar()
    computed = []
    for folder, texts in models.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Random weights are expected here.
            model: Any = load_masked_lm(folder, device="cpu")
        model.to(dtype)
        ids, mask = tokenize(list(texts), torch.device("cpu"))
        values = []
        for attention in ATTENTIONS:
            model.set_attn_implementation(attention)
            with torch.inference_mode():
                output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            values += [torch.stack(output.hidden_states), output.logits]
        computed.append([(value * mask[..., None]).numpy() for value in values])
    return computed


if __name__ == "__main__":
    sys.exit(main())
