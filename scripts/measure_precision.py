"""What each precision costs: error of every layer against float64, and cosine of the embeddings.

    python -m scripts.measure_precision rna.fasta --model ERNIE-RNA
    python -m scripts.measure_precision rna.fasta        # full size, random weights

The error of a layer is the root mean square of its difference from the same weights in float64,
over that of the values themselves. The cosine is that of mean vectors of the last layer, special
tokens left out; the least of all sequences.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.run.loading import load_model, quantize_layers, tokenize
from ernie_rna.sequences.chunks import nucleotide_limit
from ernie_rna.sequences.fasta import read_fasta
from scripts.benchmark import Implementation
from scripts.measuring import evenly, print_table

# Name: the dtype of the model, and whether it runs under autocast to bfloat16.
PRECISIONS = {
    "float32": (torch.float32, False),
    "bfloat16": (torch.bfloat16, False),
    "autocast bfloat16": (torch.float32, True),
    "int8": (torch.float32, False),
}


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    parser.add_argument("fasta", type=Path, metavar="IN.fasta")
    parser.add_argument("-m", "--model", help="default: full size, random weights")
    parser.add_argument("--sequences", type=int, default=64, metavar="N", help="how many (64)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    model = load_model(args.model, device="cpu") if args.model else Implementation().build()
    limit = nucleotide_limit(model.config)
    fitting = [r.sequence for r in read_fasta(args.fasta) if len(r.sequence) <= limit]
    sequences = evenly(fitting, args.sequences)
    double = copy.deepcopy(model).double()
    exact = [hidden_states(double, sequence) for sequence in sequences]
    values = np.concatenate(exact, axis=1)
    columns = []
    for name, (dtype, autocast) in PRECISIONS.items():
        rounded: Any = copy.deepcopy(model)
        rounded.to(dtype)
        if name == "int8":
            quantize_layers(rounded)
        found = [hidden_states(rounded, sequence, autocast) for sequence in sequences]
        squares = np.square(np.concatenate(found, axis=1) - values).mean((1, 2))
        errors = np.sqrt(squares / np.square(values).mean((1, 2)))  # (layers + 1,)
        least = min(map(cosine, found, exact))
        columns.append([*(f"{error:.1e}" for error in errors), f"{least:.7f}"])
    print(f"{len(sequences)} sequences, {sum(map(len, sequences))} nt\n")
    print_table(["layer", *PRECISIONS], zip([*range(len(values)), "cosine"], *columns, strict=True))
    return 0


def hidden_states(model: Any, sequence: str, autocast: bool = False) -> np.ndarray:
    """(layers + 1, seq, hidden) in float64."""
    inputs = tokenize([sequence], torch.device("cpu"))
    under = torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext()
    with torch.inference_mode(), under:
        return torch.cat(model(*inputs, output_hidden_states=True).hidden_states).double().numpy()


def cosine(found: np.ndarray, exact: np.ndarray) -> float:
    one, two = (states[-1, 1:-1].mean(0) for states in (found, exact))
    return float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))


if __name__ == "__main__":
    sys.exit(main())
