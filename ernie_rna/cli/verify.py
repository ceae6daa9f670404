"""`ernie-rna verify`: is this converted folder the authors' model?"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ernie_rna.cli.checks import check_input
from ernie_rna.cli.options import new_parser

if TYPE_CHECKING:
    from ernie_rna.parity.differences import Difference

_DESCRIPTION = """\
Compare a converted folder with what the authors published or their code computed. At least one of:

  --checkpoint     its weights with those of the checkpoint that it was converted from: equal bit
                   for bit
  --cls-embedding  the released model with the embeddings beside the authors' code,
                   results/ernie_rna_representations/test_seqs/cls_embedding.npy
  --golden         every hidden state, score and logit with values of the authors' code in a
                   safetensors file (tests/golden/tiny_expected.safetensors of this project, for
                   the checkpoint beside it); tables of differences, with eager attention and sdpa,
                   alone and padded, and of what rounding alone does. Of a fine-tuned folder its
                   logits, contacts, .ct text, probabilities or predictions, with
                   tests/golden/tiny_heads_expected.safetensors
  --full-size      how far rounding takes the hidden states of a model of the released size from
                   float64, with each matrix product that runs here; random weights and the RNAs of
                   the package, so that it needs no folder

Exit code 1 says that something differs, or that it cannot be compared.
"""
_EXAMPLES = """\
  ernie-rna verify ERNIE-RNA --checkpoint ERNIE-RNA_pretrain.pt
  ernie-rna verify ERNIE-RNA --cls-embedding cls_embedding.npy
  ernie-rna verify --full-size
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = new_parser(
        subparsers, "verify", "compare a folder with the authors' model", _DESCRIPTION, _EXAMPLES
    )
    parser.add_argument(
        "folder", metavar="FOLDER", nargs="?", help="what `ernie-rna convert` wrote"
    )
    parser.add_argument("--checkpoint", metavar="PATH", help="where it was converted from")
    parser.add_argument("--cls-embedding", metavar="PATH.npy", help="published embeddings")
    parser.add_argument("--golden", metavar="PATH.safetensors", help="values of the authors' code")
    parser.add_argument("--full-size", action="store_true", help="rounding, by random weights")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare as the arguments say."""
    compares = args.checkpoint or args.cls_embedding or args.golden
    if not (compares or args.full_size):
        raise ValueError(
            "nothing to compare: give --checkpoint, --cls-embedding or --golden, or --full-size"
        )
    if compares and args.folder is None:
        raise ValueError("name the FOLDER to compare, what `ernie-rna convert` wrote")
    for path in filter(None, (args.cls_embedding, args.golden)):
        check_input(path)
    # From here on seconds pass.
    from transformers.utils import logging

    from ernie_rna.parity import differences, heads, models, published, table
    from ernie_rna.parity.golden import GOLDEN_THREADS
    from ernie_rna.run.threads import use_threads

    logging.disable_progress_bar()
    if args.full_size:
        _measure_full_size()
    if not compares:
        return 0
    task = heads.is_head_folder(args.folder)
    if task and args.cls_embedding:
        raise ValueError(f"--cls-embedding is of the pretrained model; {args.folder} is for {task}")
    equal = True
    if args.checkpoint:
        equal &= _compare_weights(args.folder, args.checkpoint)
    with use_threads(GOLDEN_THREADS):
        if task:
            found = heads.compare_head(args.folder, args.golden) if args.golden else []
            return 0 if equal & _show(found, table.format_heads) else 1
        pretrained = models.Models(args.folder)
        if args.cls_embedding:
            found = published.compare_with_published(pretrained, args.cls_embedding)
            equal &= _show(found, table.format_published)
        if args.golden:
            found = differences.compare_with_golden(pretrained, args.golden)
            equal &= _show(found, table.format_parity)
    return 0 if equal else 1


def _show(found: list[Difference], form: Callable[[list[Difference]], str]) -> bool:
    """Print what was compared; return whether every bar was kept."""
    if found:
        print(form(found))
    return not any(difference.missed for difference in found)


def _measure_full_size() -> None:
    from ernie_rna.data import examples
    from ernie_rna.parity.full_size import format_full_size, measure_full_size
    from ernie_rna.sequences.fasta import read_fasta

    records = read_fasta(examples() / "rna.fasta")
    print(format_full_size(measure_full_size(record.sequence for record in records)))


def _compare_weights(folder: str, checkpoint: str) -> bool:
    from ernie_rna.parity.models import belongs_to

    equal = belongs_to(folder, checkpoint)
    relation = "are those of" if equal else "differ from those of"
    print(f"the weights of {folder} {relation} {checkpoint}")
    return equal
