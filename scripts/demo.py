"""What a model says about real RNAs whose structures are known, and that conversion is exact.

    python -m scripts.demo                            the model mini, which comes with this package
    python -m scripts.demo multimolecule/ernierna     the released weights, from the Hub
    python -m scripts.demo ERNIE-RNA_pretrain.pt      the same from the authors' file

Lines that begin with `$` are commands of this package, to be run again as they stand. mini is too
small to have learned to fill in a masked base, so that this is shown of released weights alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ernie_rna
from ernie_rna.cli import main as cli
from ernie_rna.cli.arguments import program_parser
from ernie_rna.data import MINI, examples, mini
from ernie_rna.scoring.mutate import NUCLEOTIDES, LetterScores
from ernie_rna.sequences.fasta import read_fasta
from ernie_rna.structures.evaluation import mfe_structure, score_pairs
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.structures.formats.structure import Structure
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
    draw(model, out_dir)
    embed(model, out_dir)
    change_a_stem(model)
    if args.checkpoint is not None:
        ask_the_language_model(model)
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


def known_structures() -> dict[str, Structure]:
    return {one.id: one for one in read_structures(examples() / "rna.dbn")}


def fold(model: str, out_dir: Path) -> None:
    """Fold the examples; print what is predicted, by ViennaRNA too, beside what is known."""
    step("Fold real RNAs with known structures")
    known = known_structures()
    shown = {"predicted": predict(model, out_dir / "rna.dbn")}
    if importlib.util.find_spec("RNA") is None:
        print('\nWith ViennaRNA (pip install "ernie-rna[vienna]") its structures are beside these.')
    else:
        config = (mini() if model == MINI else Path(model)) / "config.json"
        if json.loads(config.read_text(encoding="utf-8")).get("pair_prior"):
            with_prior = predict(model, out_dir / "with_vienna.dbn", "--prior", "vienna")
            shown["with prior"] = with_prior
        shown["MFE"] = {id: mfe_structure(one.sequence, id) for id, one in known.items()}
    f1 = {
        label: {id: score_pairs(found[id].pairs, one.pairs).f1 for id, one in known.items()}
        for label, found in shown.items()
    }
    for id, one in known.items():
        print(f"\n{id}, {len(one.sequence)} nt\n{'':<12}{one.sequence}")
        for label, found in shown.items():
            print(f"{label:<12}{found[id].dot_bracket}  F1 {f1[label][id]:.2f}")
        print(f"{'known':<12}{one.dot_bracket}")
    print()
    for label, values in f1.items():
        print(f"{label:<12}mean F1 {np.mean([*values.values()]):.3f}")
    if "MFE" in shown:
        print(
            '"with prior" adds ViennaRNA\'s probabilities to the model; "MFE" is ViennaRNA alone.'
        )
        print("14 RNAs do not say which is best: docs/for-biologists.md has sets of hundreds.")


def predict(model: str, output: Path, *prior: str) -> dict[str, Structure]:
    """The structures of the examples by id, evaluated as well."""
    command("fold", examples() / "rna.fasta", "-m", model, *prior, "-o", output, "--quiet")
    command("evaluate", output, examples() / "rna.dbn", "-o", output.with_suffix(".tsv"))
    return {one.id: one for one in read_structures(output)}


def draw(model: str, out_dir: Path) -> None:
    step("Draw arcs (predicted above, known below) and the map that the pairs are read off")
    rnas, known = examples() / "rna.fasta", examples() / "rna.dbn"
    for name in DRAWN:
        for what in ("arcs", "map"):
            which = ("-m", model, "--id", name, "--what", what, "--reference", known)
            command("plot", rnas, *which, "-o", out_dir / f"{name}-{what}.png")


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


def change_a_stem(model: str) -> None:
    """Print what breaks the pairs of a known stem, and what makes up for it."""
    rna = known_structures()[CHANGED]
    step(f"Change a stem of {CHANGED}: one base of a pair, which breaks it, then the other as well")
    print("The mean probability of the stem's five pairs, as `fold --pairs` writes it:\n")
    print_changes(rna, fold_changes(model, rna), "as it is", "broken", "made up for")


def print_changes(rna: Structure, rows: Sequence[Sequence[float]], *titles: str) -> None:
    """A row for each pair of the stem, and the means."""
    names = [f"{rna.sequence[i]}{i + 1}-{rna.sequence[j]}{j + 1}" for i, j in rna.pairs[STEM]]
    print(f"{'pair':<10}" + "".join(f"{title:>14}" for title in titles))
    for name, values in zip([*names, "mean"], [*rows, np.mean(rows, axis=0)], strict=True):
        print(f"{name:<10}" + "".join(f"{value:>14.2f}" for value in values))


def changed(rna: Structure) -> dict[str, str]:
    """The sequence as it is, and with one base of a pair, or both, in place of the other."""
    sequences = {"as-it-is": rna.sequence}
    for i, j in rna.pairs[STEM]:
        # In place of C-G it breaks the pair to G-G, then makes up for it by G-C.
        sequences[f"{i}-left"] = left = replaced(rna.sequence, i, rna.sequence[j])
        sequences[f"{i}-right"] = replaced(rna.sequence, j, rna.sequence[i])
        sequences[f"{i}-both"] = replaced(left, j, rna.sequence[i])
    return sequences


def replaced(sequence: str, position: int, letter: str) -> str:
    return sequence[:position] + letter + sequence[position + 1 :]


def fold_changes(model: str, rna: Structure) -> list[tuple[float, float, float]]:
    """The mean probability of the stem's pairs: as it is, with a pair broken, and made up for.

    A pair that is broken counts as 0, so that four of five are left at best.
    """
    seen = {}
    for folded in ernie_rna.fold(changed(rna), model, matrix="probabilities", progress=False):
        assert folded.matrix is not None
        seen[folded.id] = float(np.mean([folded.matrix[pair] for pair in rna.pairs[STEM]]))
    return [
        (seen["as-it-is"], (seen[f"{i}-left"] + seen[f"{i}-right"]) / 2, seen[f"{i}-both"])
        for i, _ in rna.pairs[STEM]
    ]


def ask_the_language_model(model: str) -> None:
    """Print what the language model makes of the changes, and of a masked base."""
    rna = known_structures()[CHANGED]
    step("The same changes by the language model: log-odds, the mean of both orders")
    found: Any = ernie_rna.mutate(changed(rna), model, progress=False)
    scores = {one.id: one for one in found}
    rows = [score_pair(scores, rna.sequence, i, j) for i, j in rna.pairs[STEM]]
    print_changes(rna, rows, "broken", "made up for")
    step(f"Fill a mask of {CHANGED}")
    i, j = rna.pairs[STEM][0]
    print(f"{replaced(rna.sequence, i, '<mask>')}\n")
    print(f"At {i + 1} there was {rna.sequence[i]}, which pairs with {rna.sequence[j]} at {j + 1}.")
    shares = np.exp(scores["as-it-is"].log_probabilities[i]).tolist()
    for base, share in sorted(zip(NUCLEOTIDES, shares, strict=True), key=lambda one: -one[1]):
        print(f"{base}  {share:6.1%}  {'#' * round(40 * share)}")


def score_pair(
    scores: Mapping[str, LetterScores], sequence: str, i: int, j: int
) -> tuple[float, float]:
    """What one base in place of its partner's letter costs, and both together.

    The model is asked about one base at a time, given all others: log P(new) - log P(old) of the
    first base changed; then the same of the other base, given the first one's change. The means
    are over which of the two is changed first.
    """
    broken, made_up = [], []
    for first, second, side in ((i, j, "left"), (j, i, "right")):
        new, old = (NUCLEOTIDES.index(sequence[base]) for base in (second, first))
        broken.append(float(scores["as-it-is"].effects[first, new]))
        made_up.append(broken[-1] + float(scores[f"{i}-{side}"].effects[second, old]))
    return sum(broken) / 2, sum(made_up) / 2


if __name__ == "__main__":
    sys.exit(main())
