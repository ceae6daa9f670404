"""Show a model's predictions for real RNAs with known structures, and that conversion is exact.

    python -m scripts.demo                            the model mini, which comes with this package
    python -m scripts.demo multimolecule/ernierna     the released weights, from the Hub
    python -m scripts.demo ERNIE-RNA_pretrain.pt      the same from the authors' file

Lines that start with `$` are commands of this package that can be run again. mini is too small to
predict masked bases, so substitutions are drawn only for the released weights.
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

# The RNAs whose map and arcs are drawn; the second has a pseudoknot.
DRAWN = ("tRNA-Phe", "THF-1")
# The RNA with a changed stem, and the five pairs, in the longest hairpin of its known structure.
CHANGED, STEM = "THF-1", slice(14, 19)


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    help = "a checkpoint that `ernie-rna convert` accepts, to show instead of mini"
    add("checkpoint", nargs="?", metavar="CHECKPOINT", help=help)
    help = "folder for files and pictures (build/demo)"
    add("--out-dir", type=Path, default=Path("build", "demo"), metavar="DIR", help=help)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    start, out_dir = time.monotonic(), args.out_dir
    out_dir.mkdir(parents=True, exist_ok=True)
    model = name_model(args.checkpoint, out_dir)
    fold(model, out_dir)
    step("Draw arcs (predicted above, known below) and the map that the pairs are predicted from")
    draw = partial(command, "plot", examples() / "rna.fasta", "-m", model)
    for name, what in itertools.product(DRAWN, ("arcs", "map")):
        which = "--id", name, "--what", what, "--reference", examples() / "rna.dbn"
        draw(*which, "-o", out_dir / f"{name}-{what}.png")
    embed(model, out_dir)
    change_a_stem(model)
    if args.checkpoint is not None:
        step(f"Draw the effect of each substitution of {DRAWN[1]} on the language model")
        draw("--id", DRAWN[1], "--what", "substitutions", "-o", out_dir / "substitutions.png")
    step("Convert a checkpoint of the authors' code, and compare with what that code computed")
    code = verify_parity.main(["--short"])
    print("\nAll differences: python -m scripts.verify_parity")
    print(f"\nDone in {time.monotonic() - start:.0f} s. Files and pictures: {out_dir}")
    return code


def step(title: str) -> None:
    print(f"\n=== {title}\n", flush=True)


def command(*words: str | Path) -> None:
    """Print a command of the package as a user would type it, and run it.

    Raises:
        ValueError: it failed; it has printed the reason.
    """
    texts = [os.path.relpath(word) if isinstance(word, Path) else word for word in words]
    texts.append("--force")
    print(f"$ ernie-rna {shlex.join(texts)}", flush=True)
    if cli.main(texts):
        raise ValueError(f"`ernie-rna {texts[0]}` did not succeed")


def name_model(checkpoint: str | None, out_dir: Path) -> str:
    """What to hand to `-m`: mini, or the folder that a checkpoint was converted into."""
    if checkpoint is None:
        mini()  # This raises at once if mini is missing.
        print("The model is mini, a small ERNIE-RNA of this project, not the authors'.")
        return MINI
    name = Path(checkpoint).stem
    step(f"Convert {name}")
    # transformers 4.x cannot load code from a folder with a dot in its name.
    folder = out_dir / name.replace(".", "_")
    command("convert", checkpoint, folder)
    return str(folder)


def fold(model: str, out_dir: Path) -> None:
    """Fold the examples; print predicted and known structures, and the mean F1."""
    step("Fold real RNAs with known structures")
    output, reference = out_dir / "rna.dbn", examples() / "rna.dbn"
    command("fold", examples() / "rna.fasta", "-m", model, "-o", output, "--quiet")
    predictions = {structure.id: structure for structure in read_structures(output)}
    for known in read_structures(reference):
        predicted = predictions[known.id]
        print(f"\n{known.id}, {len(known.sequence)} nt\n{'':<12}{known.sequence}")
        f1 = score_pairs(predicted.pairs, known.pairs).f1
        print(f"{'predicted':<12}{predicted.dot_bracket}  F1 {f1:.2f}")
        print(f"{'known':<12}{known.dot_bracket}")
    print()
    options = []
    if importlib.util.find_spec("RNA") is None:
        print('To score ViennaRNA beside the model: pip install "ernie-rna[vienna]"')
    else:  # ViennaRNA alone, and the model with ViennaRNA's probabilities added
        has_prior = read_config_file(mini() if model == MINI else Path(model)).get("pair_prior")
        options = ["--with-mfe", *(["--with-prior", model] if has_prior else [])]
    command("evaluate", output, reference, *options, "-o", out_dir / "scores.tsv")
    print("14 RNAs are too few for a comparison: docs/for-biologists.md has sets of hundreds.")


def change_a_stem(model: str) -> None:
    """Print how likely a known stem is: unchanged, with a pair broken, and with it restored."""
    (rna,) = (known for known in read_structures(examples() / "rna.dbn") if known.id == CHANGED)
    stem = rna.pairs[STEM]
    step(f"Change a stem of {CHANGED}: one base of a pair, which breaks it, then the other as well")
    sequence, changed = rna.sequence, list[str]()
    for i, j in stem:
        left, right = sequence[i], sequence[j]
        changed += [
            sequence[:i] + new_left + sequence[i + 1 : j] + new_right + sequence[j + 1 :]
            for new_left, new_right in ((left, right), (right, right), (left, left), (right, left))
        ]
    folds: Any = ernie_rna.fold(changed, model, matrix="probabilities", progress=False)
    # Columns: unchanged, either base changed, both changed. A broken pair counts as 0.
    means = np.reshape([np.mean([f.matrix[pair] for pair in stem]) for f in folds], (-1, 4))
    rows = np.stack([means[:, 0], means[:, 1:3].mean(axis=1), means[:, 3]], axis=1)
    names = [f"{sequence[i]}{i + 1}-{sequence[j]}{j + 1}" for i, j in stem]
    print("The mean probability of the stem's five pairs, as `fold --pairs` writes it:\n")
    print(f"{'pair':<10}{'unchanged':>14}{'broken':>14}{'restored':>14}")
    for name, values in zip([*names, "mean"], [*rows, rows.mean(axis=0)], strict=True):
        print(f"{name:<10}" + "".join(f"{value:>14.2f}" for value in values))


def embed(model: str, out_dir: Path) -> None:
    """Print the nearest neighbour of each RNA whose family has several of the examples."""
    step("Embed: does the nearest of the other RNAs belong to the same family?")
    vectors = out_dir / "vectors.npz"
    command("embed", examples() / "rna.fasta", "-m", model, "-o", vectors, "--quiet")
    means = np.stack([embedding["mean"] for embedding in ernie_rna.read_embeddings(vectors)])
    records = list(read_fasta(examples() / "rna.fasta"))
    families = [record.description.split()[-1] for record in records]  # of Rfam
    print()
    hits = []
    for record, family, other, cosine in zip(records, families, *nearest(means), strict=True):
        if families.count(family) > 1:
            hits.append(families[other] == family)
            verdict = "same family" if hits[-1] else families[other]
            neighbour = f"nearest {records[other].id:<12} cosine {cosine:5.2f}  {verdict}"
            print(f"{record.id:<12}{family:<10} {neighbour}")
    print(f"\n{sum(hits)} of {len(hits)}; by chance one in {len(means) - 1} would be")


if __name__ == "__main__":
    sys.exit(main())
