"""Generate sequences and predict their structures with ViennaRNA, to add variety to known ones.

    python -m recipes.pretraining.predict_structures rfam_seed.tsv.gz predicted.tsv.gz

Each sequence is derived from an RNA of the split; families are drawn as for training. Either all
its bases are permuted, or pairs among pairs and unpaired bases among unpaired bases. The structure
has minimum free energy (Turner 2004 parameters; Lorenz et al., Algorithms for Molecular Biology
6:26, 2011) and no lone pairs. `train --predicted` trains on the table and on known structures.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.extras import import_extra
from ernie_rna.run.outputs import replacing
from ernie_rna.sequences.fasta import InputError
from ernie_rna.sequences.tables import format_row
from recipes.pretraining.rnas import COLUMNS, Rna, cut_batches, drawn, permute, read_ids, read_table


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("rnas", type=Path, metavar="TABLE", help="as for train")
    add("out", type=Path, metavar="OUT", help="a .tsv or .tsv.gz")
    add("--count", type=int, default=100_000, metavar="N", help="sequences to generate (100000)")
    add("--max-length", type=int, default=160, metavar="NT", help="of an RNA (160)")
    add("--split", default="train", metavar="VALUE", help="rows of TABLE to use (train)")
    add("--leave-out", type=Path, metavar="FILE", help="ids of RNAs not to use")
    add("--family-power", type=float, default=0.5, metavar="P", help="as in a config (0.5)")
    add("--processes", type=int, default=2, metavar="N", help="predicting processes (2)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    import_extra("RNA", "vienna", "the structure of minimum free energy")
    rnas = list(read_table(args.rnas, args.split, read_ids(args.leave_out)))
    rnas = [rna for rna in rnas if len(rna.sequence) <= args.max_length]
    if not rnas:
        raise InputError(f"{args.rnas}: no sequence has at most {args.max_length} nucleotides")
    # With batches of one sequence, the order is reproducible.
    draws = cut_batches(drawn(rnas, args.family_power), seed=0)
    jobs = ((number, next(draws)[0]) for number in range(args.count))
    with replacing(args.out) as path, multiprocessing.Pool(args.processes) as pool:
        open_file = gzip.open if args.out.suffix == ".gz" else open
        with open_file(path, "wt", encoding="utf-8", newline="") as file:
            file.write(format_row(*COLUMNS))
            file.writelines(pool.imap(_line, jobs, chunksize=500))
    return 0


def _line(job: tuple[int, Rna]) -> str:
    """The row of an RNA with permuted bases, half of the time such that its pairs remain."""
    import RNA

    number, rna = job
    generator = np.random.default_rng(number)
    if generator.random() < 0.5:
        sequence = permute(rna, 1.0, generator).sequence
    else:
        sequence = "".join(generator.permutation(list(rna.sequence)))
    dot_bracket, _ = RNA.fold_compound(sequence, RNA.md(noLP=1)).mfe()  # no lone pairs
    return format_row(f"predicted-{number}", sequence, dot_bracket, "", "train")


if __name__ == "__main__":
    sys.exit(main())
