"""`ernie-rna finetune`: labelled sequences in, a trained model and its metrics out."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from ernie_rna.cli.arguments import RESUMES, add_command, add_model, add_options, read_options
from ernie_rna.training.options import FinetuneOptions

_DESCRIPTION = """\
Fine-tune a model on labelled sequences, by transformers' Trainer (pip install "ernie-rna[train]").

TRAIN is a CSV or TSV file with a header, also FASTA for masked-lm, and for structure .ct, .bpseq or
.dbn files or a folder of them. It is checked before any work begins. OUT is the folder of the
trained model with its tokenizer, code, card, metrics.json and log.jsonl; it loads with
trust_remote_code. Metrics are printed with those of the simplest guess and of k-mer counts; for
structures, with those of ViennaRNA.
"""
_EXAMPLES = """\
  ernie-rna finetune data.tsv -m MODEL -o OUT --task classification --label-column family \\
      --split-column split --eval-split test
  ernie-rna finetune train.csv -m MODEL -o OUT --task regression --label-column mrl \\
      --eval-file test.csv --eval-steps 100 --best r2 --patience 3
  ernie-rna finetune spreadsheet.csv -m mini -o OUT --task regression --split similar --folds 5
  ernie-rna finetune rnas.fasta -m MODEL -o OUT --task masked-lm --mask-pairing pretraining
  ernie-rna finetune known.tsv -m MODEL -o OUT --task structure --lora 8 --resume
  torchrun --nproc-per-node 2 -m ernie_rna finetune ct/ -m MODEL -o OUT --task structure --frozen
"""


def add_commands(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = add_command(
        subparsers,
        "finetune",
        _finetune,
        "train on labelled sequences",
        _DESCRIPTION,
        _EXAMPLES,
        shares_work=True,
    )
    parser.add_argument("train", metavar="TRAIN", help="table or other files, see above")
    add_model(parser)
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder to write")
    parser.add_argument("--json", action="store_true", help="print metrics and settings as JSON")
    add_options(parser, FinetuneOptions)


def _finetune(args: argparse.Namespace) -> int:
    from ernie_rna.training.finetune import finetune, leads
    from ernie_rna.training.metrics import format_metrics

    try:
        options = read_options(FinetuneOptions, args)
        args.interrupted = RESUMES if options.resume else "; a run without --resume starts anew"
        summary = finetune(args.train, args.model, args.output, options=options)
    except Exception:
        if _said_by_another():
            return 1
        raise
    if not leads():
        return 0
    for note in summary.notes:
        print(f"ernie-rna: note: {note}", file=sys.stderr)
    if options.progress is not False:
        print(summary.text, file=sys.stderr)
    if args.json or summary.metrics:
        print(summary.as_json() if args.json else format_metrics(summary.metrics))
    return 0


def _said_by_another() -> bool:
    """Whether the first process of this machine gives the same error: before all train together."""
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        return False
    import torch

    return not torch.distributed.is_initialized()
