"""What a model says about real RNAs whose structures are known, and that conversion is exact.

    python scripts/demo.py                            the model mini, which comes with this package
    python scripts/demo.py multimolecule/ernierna     the released weights, from the Hub
    python scripts/demo.py ERNIE-RNA_pretrain.pt      the same from the authors' file

Lines that begin with `$` are commands of this package, to be run again as they stand. mini is too
small to have learned to fill in a masked base, so that this is shown of released weights alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

import ernie_rna
from ernie_rna.cli import main as cli
from ernie_rna.data import MINI, examples, mini
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM
from ernie_rna.run.loading import load_masked_lm, tokenize
from ernie_rna.scoring.mutate import NUCLEOTIDES
from ernie_rna.sequences.fasta import read_fasta
from ernie_rna.sequences.tables import read_rows
from ernie_rna.structures.evaluation import mfe_structure
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.structures.formats.structure import Structure

ROOT = Path(__file__).resolve().parents[1]
GOLDEN_CHECKPOINT = ROOT / "tests" / "golden" / "tiny_fairseq_cfg.pt"

# Of these the map and the arcs are drawn; the second has a pseudoknot.
DRAWN = ("tRNA-Phe", "THF-1")
# The RNA whose stem is changed, and five pairs of the longest hairpin of its known structure.
CHANGED, STEM = "THF-1", slice(14, 19)


class DemoError(RuntimeError):
    """The demo did not succeed; a command has said why."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    help = "what `ernie-rna convert` reads, to be shown in place of mini"
    add("checkpoint", nargs="?", metavar="CHECKPOINT", help=help)
    help = "where files and pictures go (build/demo)"
    add("--out-dir", type=Path, default=Path("build", "demo"), metavar="DIR", help=help)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    out_dir: Path = arguments.out_dir
    out_dir.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    try:
        model = name_model(arguments.checkpoint, out_dir)
        fold(model, out_dir)
        draw(model, out_dir)
        embed(model, out_dir)
        change_a_stem(model)
        if arguments.checkpoint is not None:
            ask_the_language_model(model)
        good = compare_with_the_authors(out_dir)
    except (DemoError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\nDone in {time.monotonic() - start:.0f} s. Files and pictures: {out_dir}")
    return 0 if good else 1


def step(title: str) -> None:
    print(f"\n=== {title}\n", flush=True)


def command(*words: str | Path) -> None:
    """Run a command of the package, shown as it would be typed."""
    texts = [os.path.relpath(word) if isinstance(word, Path) else word for word in words]
    texts.append("--force")
    print(f"$ ernie-rna {shlex.join(texts)}", flush=True)
    if cli.main(texts):
        raise DemoError(f"`ernie-rna {texts[0]}` did not succeed")


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
    has_vienna = importlib.util.find_spec("RNA") is not None
    beside = ["--with-mfe"] if has_vienna else []
    rows = fold_and_score(model, out_dir / "rna.dbn", beside=beside)
    shown = {"predicted": {id: (one, float(row["f1"])) for id, (one, row) in rows.items()}}
    config = (mini() if model == MINI else Path(model)) / "config.json"
    if not has_vienna:
        print('\nWith ViennaRNA (pip install "ernie-rna[vienna]") its structures are beside these.')
    elif json.loads(config.read_text(encoding="utf-8")).get("pair_prior"):
        with_prior = fold_and_score(model, out_dir / "with_vienna.dbn", ["--prior", "vienna"])
        shown["with prior"] = {id: (one, float(row["f1"])) for id, (one, row) in with_prior.items()}
    if has_vienna:
        shown["MFE"] = {
            id: (mfe_structure(one.sequence, id), float(row["mfe_f1"]))
            for id, (one, row) in rows.items()
        }
    for id, known in known_structures().items():
        print(f"\n{id}, {len(known.sequence)} nt\n{'':<12}{known.sequence}")
        for label, found in shown.items():
            structure, f1 = found[id]
            print(f"{label:<12}{structure.dot_bracket}  F1 {f1:.2f}")
        print(f"{'known':<12}{known.dot_bracket}")
    print()
    for label, found in shown.items():
        print(f"{label:<12}mean F1 {np.mean([f1 for _, f1 in found.values()]):.3f}")
    if has_vienna:
        print(
            '"with prior" adds ViennaRNA\'s probabilities to the model; "MFE" is ViennaRNA alone.'
        )
        print("14 RNAs do not say which is best: docs/for-biologists.md has sets of hundreds.")


def fold_and_score(
    model: str, predicted: Path, prior: Sequence[str] = (), beside: Sequence[str] = ()
) -> dict[str, tuple[Structure, Mapping[str, str]]]:
    """The structures of the examples by id, each with its row of `evaluate`'s table."""
    scores = predicted.with_name(f"{predicted.stem}_scores.tsv")
    command("fold", examples() / "rna.fasta", "-m", model, *prior, "-o", predicted, "--quiet")
    command("evaluate", predicted, examples() / "rna.dbn", *beside, "-o", scores)
    rows = {row["id"]: row for _, row in read_rows(scores)}
    return {one.id: (one, rows[one.id]) for one in read_structures(predicted)}


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
    means = {one.id: one["mean"] for one in ernie_rna.read_embeddings(vectors)}
    records = read_fasta(examples() / "rna.fasta")
    families = {one.id: one.description.split()[-1] for one in records}  # of Rfam
    pairs = nearest(means)
    several = [name for name in pairs if list(families.values()).count(families[name]) > 1]
    print()
    for name in several:
        other, cosine = pairs[name]
        verdict = "same family" if families[other] == families[name] else families[other]
        print(f"{name:<12}{families[name]:<10} nearest {other:<12} cosine {cosine:5.2f}  {verdict}")
    right = sum(families[pairs[name][0]] == families[name] for name in several)
    print(f"\n{right} of {len(several)}; by chance one in {len(means) - 1} would be")


def nearest(means: Mapping[str, np.ndarray]) -> dict[str, tuple[str, float]]:
    """The nearest of the others and its cosine, once what all have in common is taken off."""
    names = list(means)
    vectors = np.stack([means[name] for name in names])  # (RNAs, hidden)
    vectors = vectors - vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    rows = zip(names, cosines, strict=True)
    return {name: (names[row.argmax()], float(row.max())) for name, row in rows}


def change_a_stem(model: str) -> None:
    """Print what breaks the pairs of a known stem, and what makes up for it."""
    rna = known_structures()[CHANGED]
    step(f"Change a stem of {CHANGED}: one base of a pair, which breaks it, then the other as well")
    print("The mean probability of the stem's five pairs, as `fold --pairs` writes it:\n")
    print_changes(rna, fold_changes(model, rna), ["as it is", "broken", "made up for"])


def print_changes(rna: Structure, rows: Sequence[Sequence[float]], titles: Sequence[str]) -> None:
    """A row for each pair of the stem, and the means."""
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    names = [f"{rna.sequence[i]}{i + 1}-{rna.sequence[j]}{j + 1}" for i, j in rna.pairs[STEM]]
    print(f"{'pair':<10}" + "".join(f"{title:>14}" for title in titles))
    for name, values in zip([*names, "mean"], [*rows, means], strict=True):
        print(f"{name:<10}" + "".join(f"{value:>14.2f}" for value in values))


def fold_changes(model: str, rna: Structure) -> list[tuple[float, float, float]]:
    """The mean probability of the stem's pairs: as it is, with a pair broken, and made up for.

    A pair that is broken counts as 0, so that four of five are left at best.
    """
    changes = {"as-it-is": rna.sequence}
    for i, j in rna.pairs[STEM]:
        left = replaced(rna.sequence, i, rna.sequence[j])
        changes[f"{i}-left"] = left
        changes[f"{i}-right"] = replaced(rna.sequence, j, rna.sequence[i])
        changes[f"{i}-both"] = replaced(left, j, rna.sequence[i])
    seen = {}
    for folded in ernie_rna.fold(changes, model, matrix="probabilities", progress=False):
        matrix = folded.matrix
        assert matrix is not None
        seen[folded.structure.id] = sum(float(matrix[i, j]) for i, j in rna.pairs[STEM]) / 5
    return [
        (seen["as-it-is"], (seen[f"{i}-left"] + seen[f"{i}-right"]) / 2, seen[f"{i}-both"])
        for i, _ in rna.pairs[STEM]
    ]


def replaced(sequence: str, position: int, letter: str) -> str:
    return sequence[:position] + letter + sequence[position + 1 :]


def ask_the_language_model(model: str) -> None:
    """Print what the language model makes of the changes, and of a masked base."""
    rna, masked_lm = known_structures()[CHANGED], load_masked_lm(model)
    step("The same changes by the language model: log-odds, the mean of both orders")
    rows = [score_pair(masked_lm, rna.sequence, i, j) for i, j in rna.pairs[STEM]]
    print_changes(rna, rows, ["broken", "made up for"])
    step(f"Fill a mask of {CHANGED}")
    i, j = rna.pairs[STEM][0]
    print(f"{replaced(rna.sequence, i, '<mask>')}\n")
    print(f"At {i + 1} there was {rna.sequence[i]}, which pairs with {rna.sequence[j]} at {j + 1}.")
    values = likelihoods(masked_lm, rna.sequence, i)
    for base in sorted(values, key=lambda base: -values[base]):
        share = math.exp(values[base])
        print(f"{base}  {share:6.1%}  {'#' * round(40 * share)}")


def score_pair(
    masked_lm: ErnieRnaForMaskedLM, sequence: str, i: int, j: int
) -> tuple[float, float]:
    """What one base in place of its partner's letter costs, and both together.

    The model is asked about one base at a time, given all others: log P(new) - log P(old) of the
    first base changed; then the same of the other base, given the first one's change. The means
    are over which of the two is changed first.
    """
    broken, made_up = [], []
    for first, second in ((i, j), (j, i)):
        # In place of C-G it breaks the pair to G-G, then makes up for it by G-C.
        new, old = sequence[second], sequence[first]
        alone = likelihoods(masked_lm, sequence, first)
        then = likelihoods(masked_lm, replaced(sequence, first, new), second)
        broken.append(alone[new] - alone[old])
        made_up.append(broken[-1] + then[old] - then[new])
    return sum(broken) / 2, sum(made_up) / 2


@torch.no_grad()
def likelihoods(masked_lm: ErnieRnaForMaskedLM, sequence: str, position: int) -> dict[str, float]:
    """log P of each nucleotide at a position (from 0), which is masked."""
    ids, mask = tokenize([replaced(sequence, position, "N")], masked_lm.device)
    ids[0, position + 1] = masked_lm.config.mask_token_id
    logits = masked_lm(ids, attention_mask=mask).logits[0, position + 1]  # (vocab,)
    letters, _ = tokenize([NUCLEOTIDES], masked_lm.device)
    values = logits[letters[0, 1:-1]].log_softmax(0)
    return dict(zip(NUCLEOTIDES, values.tolist(), strict=True))


def compare_with_the_authors(out_dir: Path) -> bool:
    """Convert the authors' small checkpoint and compare with what their code computed."""
    sys.path.insert(0, str(ROOT))
    from ernie_rna.run.threads import use_threads
    from tests.golden import compare

    step("Convert a checkpoint of the authors' code, and compare with what that code computed")
    folder = out_dir / "converted"
    command("convert", GOLDEN_CHECKPOINT, folder)
    with use_threads(compare.THREADS):
        differences = compare.compare_with_authors(compare.Models(folder))
    print("\nLargest absolute difference, float32, of every layer, alone and padded:\n")
    print(compare.format_table(compare.summarize(differences)))
    print("\nAll of it: python scripts/verify_parity.py")
    return not any(difference.missed for difference in differences)


if __name__ == "__main__":
    sys.exit(main())
