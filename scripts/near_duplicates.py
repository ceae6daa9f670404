"""List training sequences that are at least 80 % identical to a test sequence, with CD-HIT.

    python -m scripts.near_duplicates rfam_seed.tsv.gz bprna_ts0.tsv rna.fasta -o left_out.txt

`cd-hit-est-2d` (Debian: apt-get install cd-hit; Fu et al., Bioinformatics 28:3150-3152, 2012)
counts identical bases relative to the length of the shorter of two sequences; their lengths may
differ. `train --leave-out` reads the ids.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.run.outputs import open_text
from ernie_rna.sequences.fasta import read_fasta
from recipes.pretraining.rnas import is_table, table_rows


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("train", type=Path, metavar="TRAIN", help="table: id, sequence, split (train)")
    add("test", type=Path, nargs="+", metavar="TEST", help="table: sequence; or FASTA")
    add("-o", "--output", required=True, metavar="FILE", help="file to write the ids to")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    if shutil.which("cd-hit-est-2d") is None:
        raise OSError("CD-HIT is not installed: there is no cd-hit-est-2d (apt-get install cd-hit)")
    rows = table_rows(args.train, ("id", "sequence", "split"))
    train = {row["id"]: row["sequence"] for row in rows if row["split"] == "train"}
    test: list[str] = []
    for path in args.test:
        if is_table(path):
            test += [row["sequence"] for row in table_rows(path, ("sequence",))]
        else:
            test += [record.sequence for record in read_fasta(path)]
    with tempfile.TemporaryDirectory() as folder:
        for name, sequences in (("test", test), ("train", train.values())):
            lines = (f">{i}\n{s.upper().replace('U', 'T')}\n" for i, s in enumerate(sequences))
            Path(folder, name).write_text("".join(lines))
        # -n 5: CD-HIT requires words of 5 bases for an identity threshold of 0.8.
        command = "cd-hit-est-2d -i test -i2 train -o kept -c 0.8 -n 5 -s2 0 -r 0 -M 0 -T 1"
        subprocess.run(shlex.split(command), cwd=folder, check=True, stdout=subprocess.DEVNULL)
        text = Path(folder, "kept").read_text()
    kept = {int(line[1:]) for line in text.splitlines() if line.startswith(">")}
    # CD-HIT omits sequences with at most 10 bases, which are not duplicates.
    duplicates = [name for i, name in enumerate(train) if i not in kept and len(train[name]) > 10]
    with open_text(args.output) as file:
        file.writelines(f"{name}\n" for name in duplicates)
    print(f"{len(duplicates)} of {len(train)} are 80% identical to one of {len(test)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
