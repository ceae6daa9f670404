"""List the training sequences that are 80 % identical to sequences of a test, by CD-HIT.

    python scripts/list_near_duplicates.py rfam_seed.tsv.gz bprna_ts0.tsv demo.fasta \\
        -o left_out.txt

`cd-hit-est-2d` (Debian: apt-get install cd-hit; Fu et al., Bioinformatics 28:3150-3152, 2012)
counts identical bases over the length of the shorter of two sequences; their lengths may differ.
The ids go to `scripts/pretrain.py --leave-out`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ernie_rna.sequences.fasta import read_fasta
from recipes.pretraining.data import is_table, table_rows


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path, metavar="TRAIN", help="TSV: id, sequence, split")
    parser.add_argument("test", type=Path, nargs="+", metavar="TEST", help="TSV or FASTA")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--split", default="train", metavar="VALUE", help="rows of TRAIN")
    parser.add_argument("--identity", type=float, default=0.8)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    rows = table_rows(args.train, ("id", "sequence", "split"))
    train = {row["id"]: row["sequence"] for row in rows if row["split"] == args.split}
    test = [sequence for path in args.test for sequence in _sequences(path)]
    found = near_duplicates(train, test, args.identity)
    args.out.write_text("".join(f"{name}\n" for name in found))
    print(f"{len(found)} of {len(train)} are {args.identity:.0%} identical to one of {len(test)}")
    return 0


def _sequences(path: Path) -> Iterator[str]:
    if is_table(path):
        return (row["sequence"] for row in table_rows(path, ("sequence",)))
    return (record.sequence for record in read_fasta(path))


def near_duplicates(train: dict[str, str], test: Sequence[str], identity: float) -> list[str]:
    """Ids of training sequences, in order, that CD-HIT puts with a test sequence.

    Args:
        train: sequences by id.
        identity: at least 0.8, for words of 5 bases.
    """
    names = list(train)
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "test.fasta"), Path(folder, "train.fasta")
        _write(first, test)
        _write(second, train.values())
        out = Path(folder, "kept.fasta")
        limits = ["-c", str(identity), "-n", "5", "-s2", "0", "-r", "0", "-M", "0", "-T", "1"]
        command = ["cd-hit-est-2d", "-i", first, "-i2", second, "-o", out, *limits]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        kept = {int(line[1:]) for line in out.read_text().splitlines() if line.startswith(">")}
    kept |= {i for i, name in enumerate(names) if len(train[name]) <= _SHORTEST}
    return [name for i, name in enumerate(names) if i not in kept]


# CD-HIT leaves out what is no longer than this.
_SHORTEST = 10


def _write(path: Path, sequences: object) -> None:
    text = (f">{i}\n{s.upper().replace('U', 'T')}\n" for i, s in enumerate(sequences))  # type: ignore[arg-type,var-annotated]
    path.write_text("".join(text))


if __name__ == "__main__":
    sys.exit(main())
