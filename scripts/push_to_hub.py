"""Upload a converted folder to the Hugging Face Hub.

python scripts/push_to_hub.py ernie-rna USER/NAME --dry-run
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ernie_rna.checkpoints.push import check_repo_id, files_to_push, push
from ernie_rna.checkpoints.verification import ExportError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "out_dir", type=Path, metavar="OUT_DIR", help="what convert_fairseq_checkpoint.py wrote"
    )
    parser.add_argument("repo_id", metavar="USER/NAME", help="the model repository")
    parser.add_argument("--dry-run", action="store_true", help="list what would go; no network")
    parser.add_argument("--private", action="store_true", help="if it is made, make it private")
    parser.add_argument("--revision", help="a branch other than main, made if need be")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    try:
        if arguments.dry_run:
            list_files(arguments)
            return 0
        address = push(arguments.out_dir, arguments.repo_id, arguments.private, arguments.revision)
    except (ExportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"uploaded: {address}")
    return 0


def list_files(arguments: argparse.Namespace) -> None:
    check_repo_id(arguments.repo_id)
    files = files_to_push(arguments.out_dir)
    access = "private" if arguments.private else "public"
    branch = arguments.revision or "main"
    print(f"would upload to {arguments.repo_id} ({access} if made, branch {branch}):")
    for name, size in files.items():
        print(f"  {size:>13,} bytes  {name}")
    print(f"  {sum(files.values()):>13,} bytes in {len(files)} files")


if __name__ == "__main__":
    sys.exit(main())
