"""Print how far a conversion is from what the authors' own code computed: the tables of parity.

    python scripts/verify_parity.py
    python scripts/verify_parity.py --threads 1

The authors' small checkpoints of tests/golden are converted and compared with the values beside
them: every hidden state, score and logit, with eager attention and sdpa, alone and padded, and what
rounding alone does; then the three heads. Exit code 1 says that a bar is missed.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ernie_rna.run.threads import use_threads
from tests.golden import compare
from tests.golden_folder import head_checkpoint, write_golden_folder


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=compare.THREADS,
        help="how many to compute with; the default is what the authors' values were made with, "
        "and another number rounds otherwise (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    threads = build_parser().parse_args(argv).threads
    transformers.logging.disable_progress_bar()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, threads {threads}")
    print(f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}")
    with use_threads(threads), tempfile.TemporaryDirectory() as scratch:
        tables = list(measure(Path(scratch)))
    for title, differences in tables:
        print(f"\n{title}:\n\n{compare.format_table(differences)}")
    return int(any(one.missed for _, differences in tables for one in differences))


def measure(scratch: Path):
    """A title and the differences of each table."""
    (scratch / "pretrained").mkdir()
    models = compare.Models(write_golden_folder(scratch / "pretrained"))
    yield "Largest difference from the authors' values", compare.compare_with_authors(models)
    yield "What rounding alone does", compare.measure_rounding(models)
    for task in compare.HEADS:
        (scratch / task).mkdir()
        folder = write_golden_folder(scratch / task, head_checkpoint(task))
        yield f"The head for {task}", compare.compare_head(folder, task)


if __name__ == "__main__":
    sys.exit(main())
