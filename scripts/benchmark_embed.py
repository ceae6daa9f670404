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

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from benchmark import alternate, computes_bfloat16, machine

from ernie_rna import ErnieRnaConfig, ErnieRnaModel, ErnieRnaTokenizer
from ernie_rna.embeddings.embed import embed
from ernie_rna.sequences.batches import Plan, count_padding, resolve_batch_tokens
from ernie_rna.sequences.fasta import FastaRecord, read_fasta
from ernie_rna.sequences.long import nucleotide_limit

LIMIT = nucleotide_limit(ErnieRnaConfig())
OTHERS_BATCH = 8


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("fasta", type=Path, metavar="IN.fasta")
    parser.add_argument(
        "--sequences", type=int, default=128, metavar="N", help="how many of the file (128)"
    )
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    records = [record for record in read_fasta(args.fasta) if len(record.sequence) <= LIMIT]
    step = max(1, len(records) // args.sequences)
    sample = records[::step][: args.sequences]
    print(machine(args.threads))
    print(
        f"{len(records)} of the file's sequences have at most {LIMIT} nt; padding is "
        f"{padding(records):.1%} of what embed computes for them\n"
        f"timed: {len(sample)} of them, {sum(len(r.sequence) for r in sample)} nt; padding is "
        f"{padding(sample):.1%} in embed, {others_padding(sample):.1%} in batches of "
        f"{OTHERS_BATCH} in the order of the file\n",
        flush=True,
    )
    times = alternate(implementations(sample), args.runs)
    print("| implementation | s | sequences/s | embed's speed over it |\n|---|--:|--:|--:|")
    for name, seconds in times.items():
        ratio = seconds / times["embed"]
        print(f"| {name} | {seconds:.1f} | {len(sample) / seconds:.2f} | {ratio:.2f}x |")
    return 0


def padding(records: list[FastaRecord]) -> float:
    """Share of padding in the batches that `embed` makes."""
    total = wasted = 0
    for window in Plan(resolve_batch_tokens(None, torch.device("cpu")), LIMIT).windows(records):
        tokens, padded = count_padding([piece.tokens for piece in window.pieces], window.batches)
        total, wasted = total + tokens, wasted + padded
    return wasted / total


def others_padding(records: list[FastaRecord]) -> float:
    lengths = [len(record.sequence) + 2 for record in records]
    total, wasted = count_padding(lengths, chunks(range(len(lengths))))
    return wasted / total


def chunks(items) -> list:
    return [items[i : i + OTHERS_BATCH] for i in range(0, len(items), OTHERS_BATCH)]


def implementations(sample: list[FastaRecord]) -> dict[str, Callable]:
    """Functions that compute the mean vectors of all sequences."""
    model = ErnieRnaModel(ErnieRnaConfig(), add_pooling_layer=False).eval()
    eager = ErnieRnaModel(ErnieRnaConfig(), add_pooling_layer=False).eval()
    eager.set_attn_implementation("eager")
    tokenizer = ErnieRnaTokenizer()
    result: dict[str, Callable] = {
        "embed": lambda: list(embed(sample, model, progress=False)),
        "one by one, eager": lambda: [
            mean_vectors(eager, tokenizer, [record.sequence]) for record in sample
        ],
    }
    if computes_bfloat16():
        half = ErnieRnaModel(ErnieRnaConfig(), add_pooling_layer=False).eval().to(torch.bfloat16)
        result["embed, bfloat16"] = lambda: list(embed(sample, half, progress=False))
    try:
        from multimolecule import RnaTokenizer
        from multimolecule.models import ernierna
    except ImportError:
        return result
    # Its default configuration, and so the attention that a user of it gets.
    theirs = ernierna.ErnieRnaModel(ernierna.ErnieRnaConfig()).eval()
    their_config = ernierna.ErnieRnaConfig(attn_implementation="eager")
    their_eager = ernierna.ErnieRnaModel._from_config(their_config, attn_implementation="eager")
    their_eager.eval()
    their_tokenizer = RnaTokenizer()
    sequences = [record.sequence for record in sample]
    result[f"multimolecule, batches of {OTHERS_BATCH}"] = lambda: [
        mean_vectors(theirs, their_tokenizer, batch) for batch in chunks(sequences)
    ]
    result["multimolecule, one by one"] = lambda: [
        mean_vectors(their_eager, their_tokenizer, [sequence]) for sequence in sequences
    ]
    return result


@torch.inference_mode()
def mean_vectors(model, tokenizer, sequences: list[str]) -> torch.Tensor:
    """The mean over all tokens but padding, (batch, hidden): what a plain loop would do."""
    batch = tokenizer(sequences, return_tensors="pt", padding=True)
    mask = batch["attention_mask"][..., None]
    hidden = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return (hidden.last_hidden_state * mask).sum(1) / mask.sum(1)


if __name__ == "__main__":
    sys.exit(main())
