"""How far the numbers move with threads, oneDNN and the CPU's instructions, against float64.

    python -m scripts.measure_portability
    python -m scripts.measure_portability --settings "1 thread" "ATen default"

Each setting runs in a process of its own, since torch, oneDNN and MKL choose their code when they
are loaded. Two models: the authors' small checkpoint of tests/golden, and one of middle size with
random weights; hidden states of all layers and logits, with eager attention and with sdpa, of five
RNAs in one padded batch. An error is the largest absolute difference from the same weights in
float64 at a real token. The bound is the rule of this repository: twice the error of eager
attention in the reference setting (two threads, all else as torch has it), and 1e-6. "same" bits
are those of the reference. Exit code 1 says that a bound is missed.
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
LONGEST = 400  # nucleotides of an RNA for that model
ATTENTIONS = ("eager", "sdpa")
OUTPUTS = ("hidden states", "logits")

Models = Mapping[Path, Sequence[str]]  # folder -> RNAs
# Hidden states of all layers and logits of RNAs in one padded batch, 0 at padding, with each of the
# attentions: (..., batch, seq, width).
Values = list[np.ndarray]
# Variables of the environment of a process. ONEDNN is our own: whether the model's products are
# oneDNN's; without it that is left to the model, which takes them on CPUs with AVX-512.
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
    **{f"ATen {one}": {"ATEN_CPU_CAPABILITY": one} for one in ("default", "avx2", "avx512")},
    **{
        f"oneDNN {one}": {"ONEDNN": "1", "ONEDNN_MAX_CPU_ISA": one}
        for one in ("SSE41", "AVX", "AVX2", "AVX512_CORE")
    },
    **{f"MKL {one}": {"MKL_ENABLE_INSTRUCTIONS": one} for one in ("SSE4_2", "AVX2", "AVX512")},
    **{f"MKL CBWR {one}": {"MKL_CBWR": one} for one in ("COMPATIBLE", "AVX2", "AVX512")},
    "ATen default, MKL CBWR COMPATIBLE": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
    },
}


def can_run(name: str) -> bool:
    """Whether the CPU has the instructions that a setting is about."""
    has = torch.backends.cpu.get_cpu_capability()
    return {"AVX512": "none", "AVX2": "AVX512"}.get(has, "AVX") not in name.upper()


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("--settings", nargs="+", choices=SETTINGS, metavar="NAME", help="only these (all)")
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
    """A model whose scores are of the size of a trained one's, so that attention is not uniform."""
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
    """Print the errors of models under each setting, the reference first, with two threads unless
    it says otherwise; whether a bound is missed."""
    exact = compute(models, torch.float64)
    found = (
        (name, run_anew(compute, models, torch.float32, **{"OMP_NUM_THREADS": "2", **how}))
        for name, how in settings.items()
    )
    _, reference = first = next(found)
    bounds = 2 * errors(reference, exact)[:, 0] + 1e-6  # (models, outputs)
    table, missed = [("bound", bounds, [""] * len(models))], False
    for name, values in chain([first], found):
        off = errors(values, exact).max(axis=1)
        missed |= not (off <= bounds).all()  # NaN misses
        alike = (all(map(np.array_equal, *pair)) for pair in zip(values, reference, strict=True))
        table.append((name, off, ["same" if one else "other" for one in alike]))
    titles = [f"{folder.name}: {what}" for folder in models for what in (*OUTPUTS, "bits")]
    rows = (
        [name, *(f"{a:.1e} | {b:.1e} | {same}" for (a, b), same in zip(off, bits, strict=True))]
        for name, off, bits in table
    )
    print_table(["setting", *titles], rows)
    return missed


def errors(found: Sequence[Values], exact: Sequence[Values]) -> np.ndarray:
    """The largest absolute differences, (models, attentions, outputs); NaN if there is one."""
    off = [
        [np.abs(a - b).max() for a, b in zip(one, other, strict=True)]
        for one, other in zip(found, exact, strict=True)
    ]
    return np.reshape(off, (len(found), len(ATTENTIONS), len(OUTPUTS)))


def compute(models: Models, dtype: torch.dtype) -> list[Values]:
    """The values of each model."""
    if "ONEDNN" in os.environ:
        # The model's own list of what oneDNN multiplies better on this CPU.
        layers_ernie_rna._ONEDNN_DTYPES = (torch.float32,) * int(os.environ["ONEDNN"])
    logging.disable_progress_bar()
    computed = []
    for folder, texts in models.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # That the weights are random is known here.
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
