"""`ernie-rna examples`: the RNAs of this project's pages, copied to where you are."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from ernie_rna.cli.options import new_parser
from ernie_rna.data import EXAMPLE_FILES, examples
from ernie_rna.run.outputs import OutputError, replacing

_DESCRIPTION = """\
Copy the example RNAs into a folder: rna.fasta, 14 real RNAs of 61 to 180 nt, rna.dbn, their known
structures, and README.md, which names their origin (Rfam, CC0); and RNase-P.fasta, .dbn and .shape,
an RNA with the reactivities of an experiment (the Weeks Lab, MIT License). They are what the README
and the pages of the documentation work on.
"""
_EXAMPLES = """\
  ernie-rna examples
  ernie-rna fold examples/rna.fasta -m mini
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = new_parser(
        subparsers, "examples", "real RNAs with known structures to try", _DESCRIPTION, _EXAMPLES
    )
    parser.add_argument(
        "folder", nargs="?", default="examples", metavar="DIR", help="where to (examples)"
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Copy the files."""
    source, folder = examples(), Path(args.folder)
    there = [folder / name for name in EXAMPLE_FILES if (folder / name).exists()]
    if there and not args.force:
        raise OutputError(f"{there[0]} exists; --force replaces it")
    folder.mkdir(parents=True, exist_ok=True)
    for name in EXAMPLE_FILES:
        with replacing(folder / name) as path:
            shutil.copyfile(source / name, path)
        print(folder / name)
    return 0
