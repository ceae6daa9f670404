"""What a model says about real RNAs whose structures are known, and that conversion is exact.

    python -m scripts.demo                            the model mini, which comes with this package
    python -m scripts.demo multimolecule/ernierna     the released weights, from the Hub
    python -m scripts.demo ERNIE-RNA_pretrain.pt      the same from the authors' file

Lines that begin with `$` are commands of this package, to be run again as they stand. mini is too
small to have learned to fill in a masked base, so that this is drawn of released weights alone.
"""

import argparse
import importlib.util
import itertools
import os
import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import ernie_rna
from ernie_rna.cli import main as cli
from ernie_rna.cli.arguments import program_parser
from ernie_rna.conversion.folder import read_config_file
from ernie_rna.data import MINI, examples, mini
from ernie_rna.sequences.fasta import read_fasta
from ernie_rna.structures.evaluation import score_pairs
from ernie_rna.structures.formats.by_extension import read_structures
from scripts import verify_parity
from scripts.measuring import nearest

# Of these the map and the arcs are drawn; the second has a pseudoknot.
DRAWN = ("tRNA-Phe", "THF-1")
# The RNA whose stem is changed, and five pairs of the longest hairpin of its known structure.
CHANGED, STEM = "THF-1", slice(14, 19)


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    help = "what `ernie-rna convert` reads, to be shown in place of mini"
    add("checkpoint", nargs="?", metavar="CHECKPOINT", help=help)
    help = "where files and pictures go (build/demo)"
    add("--out-dir", type=Path, default=Path("build", "demo"), metavar="DIR", help=help)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    start, out_dir = time.monotonic(), args.out_dir
    out_dir.mkdir(parents=True, exist_ok=True)
    model = name_model(args.checkpoint, out_dir)
    fold(model, out_dir)
    step("Draw arcs (predicted above, known below) and the map that the pairs are read off")
    draw = partial(command, "plot", examples() / "rna.fasta", "-m", model)
    for name, what in itertools.product(DRAWN, ("arcs", "map")):
        which = "--id", name, "--what", what, "--reference", examples() / "rna.dbn"
        draw(*which, "-o", out_dir / f"{name}-{what}.png")
    embed(model, out_dir)
    change_a_stem(model)
    if args.checkpoint is not None:
        step(f"Draw what the language model makes of each substitution of {DRAWN[1]}")
        draw("--id", DRAWN[1], "--what", "substitutions", "-o", out_dir / "substitutions.png")
    step("Convert a checkpoint of the authors' code, and compare with what that code computed")
    code = verify_parity.main(["--short"])
    print("\nAll of it: python -m scripts.verify_parity")
    print(f"\nDone in {time.monotonic() - start:.0f} s. Files and pictures: {out_dir}")
    return code


def step(title: str) -> None:
    print(f"\n=== {title}\n", flush=True)


def command(*words: str | Path) -> None:
    """Run a command of the package, shown as it would be typed.

    Raises:
        ValueError: it did not succeed, and has said why.
    """
    texts = [os.path.relpath(word) if isinstance(word, Path) else word for word in words]
    texts.append("--force")
    print(f"$ ernie-rna {shlex.join(texts)}", flush=True)
    if cli.main(texts):
        raise ValueError(f"`ernie-rna {texts[0]}` did not succeed")


def name_model(checkpoint: str | None, out_dir: Path) -> str:
    """What to hand to `-m`: mini, or the folder that a checkpoint was converted into."""
    if checkpoint is None:
        mini()  # Raises if it is not here, before anything else is done.
        print("The model is mini, a small ERNIE-RNA of this project, not the authors'.")
        return MINI
    name = Path(checkpoint).stem
    step(f"Convert {name}")
    # transformers 4.x cannot load code from a folder with a dot in its name.
    folder = out_dir / name.replace(".", "_")
    command("convert", checkpoint, folder)
    return str(folder)


def fold(model: str, out_dir: Path) -> None:
    """Fold the examples; print what is predicted beside what is known, and the means of F1."""
    step("Fold real RNAs with known structures")
    output, reference = out_dir / "rna.dbn", examples() / "rna.dbn"
    command("fold", examples() / "rna.fasta", "-m", model, "-o", output, "--quiet")
    predicted = {one.id: one for one in read_structures(output)}
    for known in read_structures(reference):
        found = predicted[known.id]
        print(f"\n{known.id}, {len(known.sequence)} nt\n{'':<12}{known.sequence}")
        f1 = score_pairs(found.pairs, known.pairs).f1
        print(f"{'predicted':<12}{found.dot_bracket}  F1 {f1:.2f}")
        print(f"{'known':<12}{known.dot_bracket}")
    print()
    beside = []
    if importlib.util.find_spec("RNA") is None:
        print('ViennaRNA (pip install "ernie-rna[vienna]") would be scored beside the model.')
    else:  # alone, and its probabilities added to the model
        has_prior = read_config_file(mini() if model == MINI else Path(model)).get("pair_prior")
        beside = ["--with-mfe", *(["--with-prior", model] if has_prior else [])]
    command("evaluate", output, reference, *beside, "-o", out_dir / "scores.tsv")
    print("14 RNAs do not say which is best: docs/for-biologists.md has sets of hundreds.")


def change_a_stem(model: str) -> None:
    """Print how likely a known stem is as it is, with a pair broken, and with it made up for."""
    (rna,) = (one for one in read_structures(examples() / "rna.dbn") if one.id == CHANGED)
    stem = rna.pairs[STEM]
    step(f"Change a stem of {CHANGED}: one base of a pair, which breaks it, then the other as well")
    sequence, changed = rna.sequence, list[str]()
    for i, j in stem:
        left, right = sequence[i], sequence[j]
        changed += [
            sequence[:i] + one + sequence[i + 1 : j] + other + sequence[j + 1 :]
            for one, other in ((left, right), (right, right), (left, left), (right, left))
        ]
    folds: Any = ernie_rna.fold(changed, model, matrix="probabilities", progress=False)
    # A pair that is broken counts as 0, so that four of five are left at best.
    means = np.reshape([np.mean([one.matrix[pair] for pair in stem]) for one in folds], (-1, 4))
    rows = np.stack([means[:, 0], means[:, 1:3].mean(axis=1), means[:, 3]], axis=1)
    names = [f"{sequence[i]}{i + 1}-{sequence[j]}{j + 1}" for i, j in stem]
    print("The mean probability of the stem's five pairs, as `fold --pairs` writes it:\n")
    print(f"{'pair':<10}{'as it is':>14}{'broken':>14}{'made up for':>14}")
    for name, values in zip([*names, "mean"], [*rows, rows.mean(axis=0)], strict=True):
        print(f"{name:<10}" + "".join(f"{value:>14.2f}" for value in values))


def embed(model: str, out_dir: Path) -> None:
    """Print the nearest neighbour of each RNA that has one of its family among the examples."""
    step("Embed: does the nearest of the other RNAs belong to the same family?")
    vectors = out_dir / "vectors.npz"
    command("embed", examples() / "rna.fasta", "-m", model, "-o", vectors, "--quiet")
    means = np.stack([one["mean"] for one in ernie_rna.read_embeddings(vectors)])
    records = list(read_fasta(examples() / "rna.fasta"))
    families = [one.description.split()[-1] for one in records]  # of Rfam
    print()
    same = []
    for record, family, other, cosine in zip(records, families, *nearest(means), strict=True):
        if families.count(family) > 1:
            same.append(families[other] == family)
            verdict = "same family" if same[-1] else families[other]
            found = f"nearest {records[other].id:<12} cosine {cosine:5.2f}  {verdict}"
            print(f"{record.id:<12}{family:<10} {found}")
    print(f"\n{sum(same)} of {len(same)}; by chance one in {len(means) - 1} would be")


if __name__ == "__main__":
    sys.exit(main())
