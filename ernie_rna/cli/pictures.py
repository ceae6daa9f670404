"""`ernie-rna plot` and `ernie-rna serve`: pictures in files, and on a web page."""

from __future__ import annotations

import argparse
from typing import Any

from ernie_rna.cli.arguments import add_command, add_fasta, add_model, add_options, read_options
from ernie_rna.options import MODEL_HELP, PlotOptions, ServeOptions

_PLOT = """\
Draw what the model makes of a sequence, by matplotlib (pip install "ernie-rna[plot]").

  map     what structures are read off: the logits of the model's head for structures, or, without
          one or with --layer or --head, the symmetric scores of a layer and head; circles below
          the diagonal mark the base pairs that `ernie-rna fold` finds in it
  heads   the symmetric scores of all heads of a layer, with --head framed
  arcs    the structure that `ernie-rna fold` finds, an arc for each base pair; with --reference
          the known one below it
  layout  the structure that `ernie-rna fold` finds, with its stems and loops, each base coloured
          by its reliability as `ernie-rna fold --bases` writes it (needs the extra vienna as well)
  closeness      the probabilities of two bases to be near one another in space, by a model with a
                 head for that, as `ernie-rna closeness` writes them
  substitutions  the effects of all substitutions, as `ernie-rna mutate` writes them

The extension of OUT names the format: .png, .svg or .pdf. Positions count from 1.
"""
_PLOT_EXAMPLES = """\
  ernie-rna plot rna.fasta -m MODEL --id tRNA --what map -o map.png
  ernie-rna plot rna.fasta -m MODEL --id tRNA --what heads --layer 6 -o heads.svg
  ernie-rna plot rna.fasta -m MODEL --id tRNA --what arcs --reference known.ct -o arcs.svg
  ernie-rna plot rna.fasta -m MODEL --id tRNA --what arcs --confidence -o arcs.svg
  ernie-rna plot rna.fasta -m MODEL --id tRNA --what layout -o drawing.svg
"""
_SERVE = """\
Show structures, pairing maps, substitutions and embeddings in a web browser (pip install
"ernie-rna[web]"). The page fetches nothing from elsewhere, and what visitors give it is in a
temporary folder for at most an hour.

Each request is computed in a process of its own that is limited in time and memory; the others
wait in a queue. Visitors choose among the models that -m names, and cannot name others.
"""
_SERVE_EXAMPLES = """\
  ernie-rna serve
  ernie-rna serve -m mini -m ./ERNIE-RNA --port 8080
  ernie-rna serve --host 0.0.0.0 --workers 2 --threads 4     for all who reach this machine
"""


def add_commands(subparsers: Any) -> None:
    """Add the commands to `ernie-rna`."""
    summary = "pictures of structures, pairing maps and substitutions"
    plot = add_command(subparsers, "plot", _plot, summary, _PLOT, _PLOT_EXAMPLES)
    add_fasta(plot)
    add_model(plot)
    plot.add_argument("-o", "--output", required=True, metavar="OUT", help="picture to write")
    add_options(plot, PlotOptions, leave_out=("matrix", "part", "vocabulary"))
    serve = add_command(subparsers, "serve", _serve, "the web page", _SERVE, _SERVE_EXAMPLES)
    models = f"{MODEL_HELP} (the default); may be given more than once"
    serve.add_argument(
        "-m", "--model", dest="models", action="append", metavar="MODEL", help=models
    )
    add_options(serve, ServeOptions)


def _plot(args: argparse.Namespace) -> int:
    from ernie_rna.plots.pictures import plot

    plot(args.input, args.model, args.output, options=read_options(PlotOptions, args))
    return 0


def _serve(args: argparse.Namespace) -> int:
    from ernie_rna.web.server import serve

    serve(args.models or ["mini"], options=read_options(ServeOptions, args))
    return 0
