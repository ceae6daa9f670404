"""Make sequences up and predict their structures by ViennaRNA: variety that no database has.

    python scripts/predict_structures.py rfam_seed.tsv.gz predicted.tsv.gz --count 100000

Each sequence is that of an RNA of the split, families drawn as for training, whose bases, or whose
pairs and whose unpaired bases, change places. The structure is that of minimum free energy (Turner
2004 parameters; Lorenz et al., Algorithms for Molecular Biology 6:26, 2011) without lone pairs.
`ernie-rna pretrain --predicted` trains on the table beside known structures.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from ernie_rna.extras import import_extra
from recipes.pretraining.data import COLUMNS, Limit, Rna, Sampler, permute, read_ids, read_table

_CHUNK = 500


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rnas", type=Path, metavar="TABLE", help="as for ernie-rna pretrain")
    parser.add_argument("out", type=Path, metavar="OUT", help="a .tsv or .tsv.gz")
    parser.add_argument("--count", type=int, default=100_000, metavar="N", help="sequences")
    parser.add_argument("--max-length", type=int, default=160, metavar="NT")
    parser.add_argument("--split", default="train", metavar="VALUE")
    parser.add_argument("--leave-out", type=Path, metavar="FILE", help="ids not to begin with")
    parser.add_argument("--family-power", type=float, default=0.5, metavar="P")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    import_extra("RNA", "vienna", "the structure of minimum free energy")
    rnas = [
        rna
        for rna in read_table(args.rnas, args.split, read_ids(args.leave_out))
        if len(rna.sequence) <= args.max_length
    ]
    # Batches of one sequence: the order is that of the draws, and the same each time.
    draws = Sampler(rnas, args.family_power, Limit(1, 1, 1), seed=0).batches()
    jobs = ((number, next(draws)[0]) for number in range(args.count))
    with _open(args.out) as file, multiprocessing.Pool(args.processes) as pool:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in pool.imap(_row, jobs, chunksize=_CHUNK):
            writer.writerow(row)
    return 0


def _open(path: Path) -> IO[str]:
    return gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w")


def _row(job: tuple[int, Rna]) -> tuple[str, ...]:
    number, rna = job
    sequence = new_sequence(rna, np.random.default_rng(number))
    return f"predicted-{number}", sequence, minimum_free_energy(sequence), "", "train"


def new_sequence(rna: Rna, generator: np.random.Generator) -> str:
    """The bases of an RNA in another order; for one of two its pairs stay such."""
    if generator.random() < 0.5:
        return permute(rna, 1.0, generator).sequence
    return "".join(generator.permutation(list(rna.sequence)))


def minimum_free_energy(sequence: str) -> str:
    """The dot-bracket of the structure of minimum free energy, without lone pairs."""
    import RNA

    details = RNA.md()
    details.noLP = 1
    return RNA.fold_compound(sequence, details).mfe()[0]


if __name__ == "__main__":
    sys.exit(main())
