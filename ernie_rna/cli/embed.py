"""`ernie-rna embed`: a FASTA file in, a file of vectors out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ernie_rna.cli.checks import check_input, check_model
from ernie_rna.cli.options import (
    add_computing,
    add_fasta,
    add_model,
    add_resumable_output,
    add_unknown,
    new_parser,
    write_output,
)

_DESCRIPTION = """\
Embed the sequences of a FASTA file.

Each sequence gives, for each layer asked for, its mean vector over the nucleotides, the vector
of <cls>, or a vector for each nucleotide. Special tokens are never part of a mean or of the
token vectors. The output is in input order and says with what model and settings it was made.

output formats, by extension:
  .safetensors  arrays by name, rows one after the other; shards and an index if large
  .h5 .hdf5     the same arrays in HDF5                (pip install "ernie-rna[hdf5]")
  .npz          the same arrays for numpy.load
  .parquet      a row a sequence, no token vectors     (pip install "ernie-rna[parquet]")
Arrays are called mean_layer12, cls_layer12, token_layer12. The nucleotides of sequence i are rows
offsets[i] to offsets[i+1] of a token array. Values are float16 for --dtype float16, else float32.
`ernie_rna.embeddings.readers.read_embeddings` reads them all.

A run that was killed goes on where it stopped if the same command is run again, and the output
is the same. Until it is complete, what has been computed is in OUT.partial.

The input is read through once before the model starts: empty records, ids that occur twice,
letters that are no nucleotide codes (proteins!), gaps and control characters are errors. The id
is the first word of the header. T is read as U; N and the other IUPAC codes have tokens of their
own.
"""
_EXAMPLES = """\
  ernie-rna embed rna.fasta -m MODEL -o rna.h5
  ernie-rna embed rna.fa.gz -m MODEL -o rna.npz --pooling token,mean --layers 6,12
  zcat rna.fa.gz | ernie-rna embed - -m MODEL -o rna.parquet --device cuda --dtype bfloat16
  torchrun --nproc-per-node 4 -m ernie_rna.cli embed rna.fasta -m MODEL -o rna.safetensors
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = new_parser(
        subparsers,
        "embed",
        "vectors of sequences: per nucleotide, <cls> or mean, of any layers",
        _DESCRIPTION,
        _EXAMPLES,
    )
    add_fasta(parser)
    add_model(parser)
    add_resumable_output(parser, "OUT", required=True, help="file to write, see above")
    _add_what(parser.add_argument_group("what is written"))
    add_computing(parser)
    parser.set_defaults(run=run)


def _add_what(group: Any) -> None:
    group.add_argument(
        "--layers",
        type=_layers,
        default=(-1,),
        metavar="L,L",
        help="0 is the embedding output, -1 the last layer (the default), all is every one; "
        "write --layers=-1,-2 if it begins with a minus",
    )
    group.add_argument(
        "--pooling",
        type=_names,
        default=("mean",),
        metavar="P,P",
        help="any of token, cls and mean (the default)",
    )
    group.add_argument(
        "--long",
        choices=("error", "window", "full"),
        default="error",
        help="sequences over 1022 nt: refuse them (the default), take them by overlapping "
        "windows (each nucleotide from the window where it is farthest from an edge; <cls> is "
        "the windows' mean), or compute them whole, beyond what the model is made for",
    )
    group.add_argument(
        "--overlap",
        type=int,
        default=256,
        metavar="NT",
        help="nucleotides that windows share at least (256)",
    )
    add_unknown(group)


def _layers(text: str) -> tuple[int, ...] | None:
    if text == "all":
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither all nor numbers with commas between them"
        ) from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def run(args: argparse.Namespace) -> int:
    """Embed as the arguments say."""
    from ernie_rna.embeddings.embedding import check_pooling
    from ernie_rna.embeddings.writers import check_output, existing_files
    from ernie_rna.run.store import check_place

    output = Path(args.output)
    check_output(output, check_pooling(args.pooling))
    check_place(output, existing_files(output), args.force)
    check_input(args.input)
    check_model(args.model, args.revision)
    # From here on seconds pass.
    from transformers.utils import logging

    from ernie_rna.embeddings.embed import embed

    logging.disable_progress_bar()  # Ours is enough.
    what = {"layers": args.layers, "pooling": args.pooling, "overlap": args.overlap}
    return write_output(args, embed, **what)
