"""`ernie-rna push`: a folder of a model in, a model on the Hugging Face Hub out."""

from __future__ import annotations

import argparse
from typing import Any

from ernie_rna.cli.options import new_parser

_DESCRIPTION = """\
Upload a model to the Hugging Face Hub, after `hf auth login` or with HF_TOKEN set: what `ernie-rna
convert` or `ernie-rna finetune` wrote, or save_pretrained of model and tokenizer. A folder that
lacks something, or holds anything else, is refused.
"""
_EXAMPLES = """\
  ernie-rna push ERNIE-RNA USER/NAME --dry-run
  ernie-rna push ERNIE-RNA USER/NAME --private
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = new_parser(
        subparsers, "push", "a model to the Hugging Face Hub", _DESCRIPTION, _EXAMPLES
    )
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="the model with its code and tokenizer")
    add("repo_id", metavar="USER/NAME", help="the model repository, made if need be")
    add("--dry-run", action="store_true", help="list what would go; no network")
    add("--private", action="store_true", help="if it is made, make it private")
    add("--revision", help="a branch other than main, made if need be")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Upload, or list, as the arguments say."""
    from ernie_rna.convert.folder import push

    if args.dry_run:
        _list_files(args)
    else:
        print(f"uploaded: {push(args.folder, args.repo_id, args.private, args.revision)}")
    return 0


def _list_files(args: argparse.Namespace) -> None:
    from ernie_rna.convert.folder import check_repo_id, files_to_push

    check_repo_id(args.repo_id)
    files = files_to_push(args.folder)
    access = "private" if args.private else "public"
    branch = args.revision or "main"
    print(f"would upload to {args.repo_id} ({access} if made, branch {branch}):")
    for name, size in files.items():
        print(f"  {size:>13,} bytes  {name}")
    print(f"  {sum(files.values()):>13,} bytes in {len(files)} files")
