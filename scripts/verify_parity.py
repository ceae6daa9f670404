"""Print the differences between converted models and the authors' own code: the parity tables.

    python -m scripts.verify_parity
    python -m scripts.verify_parity --threads 1

The authors' small checkpoints in tests/golden are converted and compared with the values stored
beside them: every hidden state, score and logit, with eager attention and sdpa, alone and padded;
the effect of rounding alone; then the three heads. Exit code 1 means that a tolerance is exceeded.
"""

import argparse
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers

from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.run.loading import use_threads
from tests.golden import compare
from tests.golden_folder import CHECKPOINT, head_checkpoint, write_golden_folder


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    help = "CPU threads; a number other than the authors' rounds differently (%(default)s)"
    add("--threads", type=int, default=compare.THREADS, metavar="N", help=help)
    add("--short", action="store_true", help="only the largest differences, in a few lines")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    transformers.logging.disable_progress_bar()
    with use_threads(args.threads), tempfile.TemporaryDirectory() as scratch:
        tables = dict(measure(Path(scratch), args.short))
    if not args.short:
        versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
        print(f"{versions}, threads {args.threads}")
        print(f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}")
    for title, differences in tables.items():
        shown = compare.summarize(differences) if args.short else differences
        print(f"\n{title}:\n\n{compare.format_table(shown)}")
    return int(any(row.missed for differences in tables.values() for row in differences))


def measure(scratch: Path, short: bool) -> Iterator[tuple[str, list[compare.Difference]]]:
    """The title and the differences of each table."""
    models = compare.Models(write_golden_folder(scratch / "pretrained", CHECKPOINT))
    yield "Largest difference from the authors' values", compare.compare_with_authors(models)
    if not short:
        yield "What rounding alone does", compare.measure_rounding(models)
        for task in compare.HEADS:
            folder = write_golden_folder(scratch / task, head_checkpoint(task))
            yield f"The head for {task}", compare.compare_head(folder, task)


if __name__ == "__main__":
    sys.exit(main())
