"""Convert a checkpoint of ERNIE-RNA into a folder for transformers and the Hub.

    python scripts/convert_fairseq_checkpoint.py ERNIE-RNA_pretrain.pt ernie-rna

The checkpoint is the authors' (pretrained or fine-tuned), or multimolecule/ernierna.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ernie_rna.checkpoints.export import convert
from ernie_rna.checkpoints.pickles import CheckpointError
from ernie_rna.checkpoints.verification import ExportError
from ernie_rna.cli.convert import print_report


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="a .pt file, a .safetensors file, or a folder with model.safetensors",
    )
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="the folder to write")
    parser.add_argument(
        "--force", action="store_true", help="replace a folder that an earlier run wrote"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    try:
        written = convert(arguments.checkpoint, arguments.out_dir, arguments.force)
    except (CheckpointError, ExportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    print_report(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
