"""List the training sequences that are 80 % identical to sequences of a test, by CD-HIT.

    python -m scripts.near_duplicates rfam_seed.tsv.gz bprna_ts0.tsv rna.fasta -o left_out.txt

`cd-hit-est-2d` (Debian: apt-get install cd-hit; Fu et al., Bioinformatics 28:3150-3152, 2012)
counts identical bases over the length of the shorter of two sequences; their lengths may differ.
The ids go to `train --leave-out`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.run.outputs import open_text
from ernie_rna.sequences.fasta import read_fasta
from recipes.pretraining.rnas import is_table, table_rows

# CD-HIT leaves out what is no longer than this.
_SHORTEST = 10


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("train", type=Path, metavar="TRAIN", help="table: id, sequence, split")
    add("test", type=Path, nargs="+", metavar="TEST", help="table: sequence; or FASTA")
    add("-o", "--output", required=True, metavar="FILE", help="for the ids")
    add("--split", default="train", metavar="VALUE", help="rows of TRAIN (train)")
    add("--identity", type=float, default=0.8, help="at least 0.8, the default")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    rows = table_rows(args.train, ("id", "sequence", "split"))
    train = {row["id"]: row["sequence"] for row in rows if row["split"] == args.split}
    test: list[str] = []
    for path in args.test:
        if is_table(path):
            test += [row["sequence"] for row in table_rows(path, ("sequence",))]
        else:
            test += [record.sequence for record in read_fasta(path)]
    found = near_duplicates(train, test, args.identity)
    with open_text(args.output) as file:
        file.writelines(f"{name}\n" for name in found)
    print(f"{len(found)} of {len(train)} are {args.identity:.0%} identical to one of {len(test)}")
    return 0


def near_duplicates(train: Mapping[str, str], test: Iterable[str], identity: float) -> list[str]:
    """Ids of training sequences, in order, that CD-HIT puts with a test sequence.

    Args:
        train: sequences by id.
        identity: at least 0.8, for words of 5 bases.
    """
    if shutil.which("cd-hit-est-2d") is None:
        raise OSError("CD-HIT is not installed: there is no cd-hit-est-2d (apt-get install cd-hit)")
    with tempfile.TemporaryDirectory() as folder:
        for name, sequences in (("test", test), ("train", train.values())):
            lines = (f">{i}\n{s.upper().replace('U', 'T')}\n" for i, s in enumerate(sequences))
            Path(folder, name).write_text("".join(lines))
        options = f"-i test -i2 train -o kept -c {identity} -n 5 -s2 0 -r 0 -M 0 -T 1".split()
        command = ["cd-hit-est-2d", *options]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        text = Path(folder, "kept").read_text()
    kept = {int(line[1:]) for line in text.splitlines() if line.startswith(">")}
    names = [(i, name) for i, name in enumerate(train) if len(train[name]) > _SHORTEST]
    return [name for i, name in names if i not in kept]


if __name__ == "__main__":
    sys.exit(main())
