"""Compare a converted folder with values that the authors' own code computed.

    python scripts/verify_parity.py ernie-rna
    python scripts/verify_parity.py ernie-rna --cls-embedding cls_embedding.npy

The first form needs the folder that the golden values belong to: the small checkpoint that this
repository ships, converted. The second is for the released checkpoint: it runs the authors' two
test sequences and compares with the file of their repository,
results/ernie_rna_representations/test_seqs/cls_embedding.npy. Exit code 1 says that a bar is
missed, 2 that nothing could be compared.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import transformers

from ernie_rna.parity.differences import Difference, compare_with_golden
from ernie_rna.parity.golden import GOLDEN_THREADS, ParityError
from ernie_rna.parity.models import Models
from ernie_rna.parity.published import compare_with_published
from ernie_rna.parity.table import format_parity, format_published
from ernie_rna.run.threads import use_threads

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "tiny_expected.safetensors"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model_dir", type=Path, metavar="MODEL_DIR", help="a converted folder")
    parser.add_argument(
        "golden",
        nargs="?",
        type=Path,
        default=GOLDEN,
        metavar="GOLDEN.safetensors",
        help="the authors' values (default: those of the checkpoint in tests/golden)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=GOLDEN_THREADS,
        help="how many to compute with; the default is what the golden values were made with, "
        "and another number rounds otherwise (default: %(default)s)",
    )
    parser.add_argument(
        "--cls-embedding",
        type=Path,
        metavar="PATH",
        help="compare with the authors' published cls_embedding.npy instead",
    )
    parser.add_argument("--json", action="store_true", help="print every difference as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    transformers.logging.disable_progress_bar()
    try:
        with use_threads(arguments.threads):
            differences = measure(arguments)
    except ParityError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps({**facts(arguments), "differences": [asdict(d) for d in differences]}))
    else:
        print(", ".join(f"{name} {value}" for name, value in facts(arguments).items()), end="\n\n")
        form = format_published if arguments.cls_embedding else format_parity
        print(form(differences))
    return int(any(difference.missed for difference in differences))


def measure(arguments: argparse.Namespace) -> list[Difference]:
    models = Models(arguments.model_dir)
    if arguments.cls_embedding:
        return compare_with_published(models, arguments.cls_embedding)
    return compare_with_golden(models, arguments.golden)


def facts(arguments: argparse.Namespace) -> dict[str, str | int]:
    """What the numbers depend on."""
    return {
        "folder": str(arguments.model_dir),
        "values": str(arguments.cls_embedding or arguments.golden),
        "threads": arguments.threads,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
    }


if __name__ == "__main__":
    sys.exit(main())
