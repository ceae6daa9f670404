"""`ernie-rna plot` and `ernie-rna serve`: pictures in files, and on a web page."""

from __future__ import annotations

import argparse
import sys
import textwrap
from dataclasses import fields
from typing import Any

from ernie_rna.cli.arguments import add_command, add_fasta, add_model, add_options, read_options
from ernie_rna.options import MODEL_HELP, PLOTS, PlotOptions, ProbingOptions, ServeOptions

_PLOT = """\
Draw the model's output for a sequence or for all, with matplotlib (pip install "ernie-rna[plot]").
The extension of OUT chooses the format: .png, .svg or .pdf. Positions count from 1.

"""
_PLOT_EXAMPLES = """\
  ernie-rna plot rna.fasta -m mini --id tRNA --what map -o map.png
  ernie-rna plot rna.fasta -m MODEL --id tRNA --what heads --layer 6 -o heads.svg
  ernie-rna plot rna.fasta -m MODEL --id tRNA --what arcs --reference known.ct -o arcs.svg
  ernie-rna plot rna.fasta -m MODEL --id tRNA --what arcs --confidence -o arcs.svg
  ernie-rna plot rna.fasta -m MODEL --id tRNA --what layout -o drawing.svg
"""
_SERVE = """\
Show structures, pairing maps, substitutions and embeddings in a web browser (pip install
"ernie-rna[web]"). The page loads nothing from other servers. Input of visitors is kept in a
temporary folder for at most an hour.

Each request is computed in a process with limited time and memory; further requests wait in a
queue. Visitors can choose among the models that -m names.
"""
_SERVE_EXAMPLES = """\
  ernie-rna serve
  ernie-rna serve -m mini -m ./ERNIE-RNA --port 8080
  ernie-rna serve --host 0.0.0.0 --workers 2 --threads 4     reachable from other machines
"""


# They say what is written, computed by many processes or of other inputs.
_NOT_OF_PLOTS = (
    *("matrix", "part", "dry_run", "vocabulary"),
    *(one.name for one in fields(ProbingOptions)),
)


def add_commands(subparsers: Any) -> None:
    """Add the commands to `ernie-rna`."""
    summary = "pictures of structures, pairing maps and substitutions"
    kinds = [
        textwrap.fill(f"{name:<15}{text}", 96, initial_indent="  ", subsequent_indent=" " * 17)
        for name, text in PLOTS.items()
    ]
    description = _PLOT + "\n".join(kinds)
    plot = add_command(subparsers, "plot", _plot, summary, description, _PLOT_EXAMPLES)
    add_fasta(plot)
    add_model(plot)
    plot.add_argument("-o", "--output", required=True, metavar="OUT", help="picture to write")
    plot.add_argument("--values", metavar="OUT.npz", help="file for the numbers in the picture")
    add_options(plot, PlotOptions, leave_out=_NOT_OF_PLOTS)
    serve = add_command(subparsers, "serve", _serve, "the web page", _SERVE, _SERVE_EXAMPLES)
    models = f"{MODEL_HELP} (the default); may be given more than once"
    serve.add_argument(
        "-m", "--model", dest="models", action="append", metavar="MODEL", help=models
    )
    add_options(serve, ServeOptions)


def _plot(args: argparse.Namespace) -> int:
    from ernie_rna.plots.pictures import plot

    options = read_options(PlotOptions, args)
    picture = plot(args.input, args.model, args.output, values=args.values, options=options)
    if options.progress is not False:
        print(f"{args.output}: {picture.caption}", file=sys.stderr)
    return 0


def _serve(args: argparse.Namespace) -> int:
    from ernie_rna.web.server import serve

    serve(args.models or ["mini"], options=read_options(ServeOptions, args))
    return 0
