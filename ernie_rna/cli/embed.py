"""`ernie-rna embed`: a FASTA file in, a file of vectors out."""

from __future__ import annotations

import argparse
from typing import Any

from ernie_rna.cli.arguments import (
    RESUMES,
    add_command,
    add_fasta,
    add_model,
    add_options,
    read_options,
    report,
)
from ernie_rna.options import EmbedOptions

_DESCRIPTION = """\
Embed the sequences of a FASTA file.

Each sequence gives, for each layer asked for, its mean vector over the nucleotides, the vector
of <cls>, or a vector for each nucleotide. Special tokens are never part of a mean or of the
token vectors. The output is in input order and records the model and the settings.

output formats, by extension:
  .safetensors  arrays by name, concatenated rows; shards and an index if large
  .h5 .hdf5     the same arrays in HDF5                (pip install "ernie-rna[hdf5]")
  .npz          the same arrays for numpy.load
  .parquet      a row for each sequence                (pip install "ernie-rna[parquet]")
  .csv .tsv     a row for each sequence, for spreadsheets; no token vectors
Arrays are called mean_layer12, cls_layer12, token_layer12. The nucleotides of sequence i are rows
offsets[i] to offsets[i+1] of a token array. Values are float16 for --dtype float16, else float32.
`ernie_rna.read_embeddings` reads them all.

The same command resumes a run that was killed, with the same output. Results of an unfinished
run are kept in OUT.partial.

The whole input is checked before the model starts: empty records, duplicate ids, letters that are
not nucleotide codes (proteins!), gaps (unless --degap removes them) and control characters are
errors. The id is the first word of the header. T is read as U; N and the other
IUPAC codes have tokens of their own.
"""
_EXAMPLES = """\
  ernie-rna embed rna.fasta -m mini -o rna.csv
  ernie-rna embed rna.fasta -m MODEL -o rna.h5
  ernie-rna embed rna.fa.gz -m MODEL -o rna.npz --pooling token,mean --layers 6,12
  zcat rna.fa.gz | ernie-rna embed - -m MODEL -o rna.parquet --device cuda --dtype bfloat16
  torchrun --nproc-per-node 4 -m ernie_rna embed rna.fasta -m MODEL -o rna.safetensors
"""


def add_commands(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = add_command(
        subparsers,
        "embed",
        _embed,
        "vectors of sequences: per nucleotide, <cls> or mean, of any layers",
        _DESCRIPTION,
        _EXAMPLES,
        interrupted=RESUMES,
        shares_work=True,
    )
    add_fasta(parser)
    add_model(parser)
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="file to write, see above"
    )
    add_options(parser, EmbedOptions)


def _embed(args: argparse.Namespace) -> int:
    from ernie_rna.embeddings.embed import embed

    options = read_options(EmbedOptions, args)
    summary = embed(args.input, args.model, args.output, options=options)
    return report(summary, options.progress is False)
