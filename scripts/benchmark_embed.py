"""Sequences a second from FASTA to mean vectors, beside other ways to the same.

Evenly spaced sequences of a FASTA file go through each implementation by turns in one process,
all with the full-size model (random weights: time does not depend on them):

    embed                            ours, batches of like lengths
    embed, bfloat16                  the same with a bfloat16 model, where the CPU computes in it
    one by one, eager                ours, one sequence at a time, as the authors' scripts do
    multimolecule, batches of 8      in the order of the file, padded; only if it is installed
    multimolecule, one by one        likewise, with its eager attention

    python scripts/benchmark_embed.py rna.fasta --sequences 128
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ernie_rna import ErnieRnaConfig, ErnieRnaTokenizer, embed
from ernie_rna.sequences.chunks import Plan, count_padding, nucleotide_limit, resolve_batch_tokens
from ernie_rna.sequences.fasta import FastaRecord, read_fasta
from scripts.measuring import (
    PEER,
    Implementation,
    Step,
    alternate,
    computes_bfloat16,
    evenly,
    is_installed,
    print_table,
    processor,
    versions,
)

LIMIT = nucleotide_limit(ErnieRnaConfig())
OTHERS_BATCH = 8


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("fasta", type=Path, metavar="IN.fasta")
    add("--sequences", type=int, default=128, metavar="N", help="how many of the file (128)")
    add("--runs", type=int, default=5, help="counted runs of each (5)")
    add("--threads", type=int, default=2, help="CPU threads (2)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    records = [record for record in read_fasta(args.fasta) if len(record.sequence) <= LIMIT]
    sample = evenly(records, args.sequences)
    print(f"{processor()}, {args.threads} threads; {versions()}")
    print(
        f"{len(records)} of the file's sequences have at most {LIMIT} nt; padding is "
        f"{padding(records)[0]:.1%} of what embed computes for them\n"
        f"timed: {len(sample)} of them, {sum(len(r.sequence) for r in sample)} nt; padding is "
        "{:.1%} in embed, {:.1%} in batches of ".format(*padding(sample))
        + f"{OTHERS_BATCH} in the order of the file\n",
        flush=True,
    )
    times = alternate(implementations(sample), args.runs)
    rows = (
        [name, f"{taken:.1f}", f"{len(sample) / taken:.2f}", f"{taken / times['embed']:.2f}x"]
        for name, taken in times.items()
    )
    print_table(["implementation", "s", "sequences/s", "embed's speed over it"], rows)
    return 0


def padding(records: Sequence[FastaRecord]) -> tuple[float, float]:
    """Shares of padding in the batches that `embed` makes, and in those of others."""
    plan = Plan(resolve_batch_tokens(None, torch.device("cpu")), ErnieRnaConfig().hidden_size)
    ours = [
        count_padding([piece.tokens for piece in chunk.pieces], chunk.batches)
        for chunk in plan.chunks(records)
    ]
    tokens, wasted = map(sum, zip(*ours, strict=True))
    lengths = [len(record.sequence) + 2 for record in records]
    others, others_wasted = count_padding(lengths, in_batches(range(len(lengths)), OTHERS_BATCH))
    return wasted / tokens, others_wasted / others


def in_batches(items: Sequence[Any], size: int) -> list[Any]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def implementations(sample: Sequence[FastaRecord]) -> dict[str, Step]:
    """Functions that compute the mean vectors of all sequences."""
    sequences = [record.sequence for record in sample]

    def embeds(model: Any) -> Step:
        return lambda: list(embed(sequences, model, progress=False))

    def loops(model: Any, tokenizer: Any, size: int) -> Step:
        batches = in_batches(sequences, size)
        return lambda: [mean_vectors(model, tokenizer, batch) for batch in batches]

    result = {
        "embed": embeds(Implementation().build()),
        "one by one, eager": loops(Implementation("eager").build(), ErnieRnaTokenizer(), 1),
    }
    if computes_bfloat16():
        result["embed, bfloat16"] = embeds(Implementation(dtype=torch.bfloat16).build())
    if is_installed(PEER):
        from multimolecule import RnaTokenizer

        # The attention that a user of its defaults gets, and eager.
        sdpa, eager = (Implementation(name, peer=True).build() for name in ("sdpa", "eager"))
        tokenizer = RnaTokenizer()
        result[f"{PEER}, batches of {OTHERS_BATCH}"] = loops(sdpa, tokenizer, OTHERS_BATCH)
        result[f"{PEER}, one by one"] = loops(eager, tokenizer, 1)
    return result


@torch.inference_mode()
def mean_vectors(model: Any, tokenizer: Any, sequences: list[str]) -> torch.Tensor:
    """The mean over all tokens but padding, (batch, hidden): what a plain loop would do."""
    batch = tokenizer(sequences, return_tensors="pt", padding=True)
    mask = batch["attention_mask"][..., None]
    hidden = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    means: torch.Tensor = (hidden.last_hidden_state * mask).sum(1) / mask.sum(1)
    return means


if __name__ == "__main__":
    sys.exit(main())
