"""List the training sequences that are 80 % identical to sequences of a test, by CD-HIT.

    python -m recipes.pretraining.near_duplicates rfam_seed.tsv.gz bprna_ts0.tsv rna.fasta \\
        -o left_out.txt

`cd-hit-est-2d` (Debian: apt-get install cd-hit; Fu et al., Bioinformatics 28:3150-3152, 2012)
counts identical bases over the length of the shorter of two sequences; their lengths may differ.
The ids go to `train --leave-out`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.run.outputs import open_text
from recipes.pretraining.rnas import is_table, read_fasta_file, table_rows

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
    test = [sequence for path in args.test for sequence in _sequences(path)]
    found = near_duplicates(train, test, args.identity)
    with open_text(args.output) as file:
        file.writelines(f"{name}\n" for name in found)
    print(f"{len(found)} of {len(train)} are {args.identity:.0%} identical to one of {len(test)}")
    return 0


def _sequences(path: Path) -> Iterable[str]:
    if is_table(path):
        return (row["sequence"] for row in table_rows(path, ("sequence",)))
    return (rna.sequence for rna in read_fasta_file(path))


def near_duplicates(train: Mapping[str, str], test: Iterable[str], identity: float) -> list[str]:
    """Ids of training sequences, in order, that CD-HIT puts with a test sequence.

    Args:
        train: sequences by id.
        identity: at least 0.8, for words of 5 bases.
    """
    with tempfile.TemporaryDirectory() as folder:
        first, second, out = (Path(folder, name) for name in ("test", "train", "kept"))
        _write(first, test)
        _write(second, train.values())
        limits = ["-c", str(identity), "-n", "5", "-s2", "0", "-r", "0", "-M", "0", "-T", "1"]
        command = ["cd-hit-est-2d", "-i", first, "-i2", second, "-o", out, *limits]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        kept = {int(line[1:]) for line in out.read_text().splitlines() if line.startswith(">")}
    names = [(i, name) for i, name in enumerate(train) if len(train[name]) > _SHORTEST]
    return [name for i, name in names if i not in kept]


def _write(path: Path, sequences: Iterable[str]) -> None:
    text = (f">{i}\n{s.upper().replace('U', 'T')}\n" for i, s in enumerate(sequences))
    path.write_text("".join(text))


if __name__ == "__main__":
    sys.exit(main())
