"""`ernie-rna serve`: the web page, on this machine or for others."""

from __future__ import annotations

import argparse
from typing import Any

from ernie_rna.cli.checks import check_model
from ernie_rna.cli.options import MODEL_HELP, new_parser
from ernie_rna.extras import import_extra

_DESCRIPTION = """\
Show structures, pairing maps, substitutions and embeddings in a web browser (pip install
"ernie-rna[web]"). The page fetches nothing from elsewhere, and what visitors give it is in a
temporary folder for at most an hour.

Each request is computed in a process of its own that is limited in time and memory; the others
wait in a queue. Visitors choose among the models that -m names, and cannot name others.
"""
_EXAMPLES = """\
  ernie-rna serve
  ernie-rna serve -m mini -m ./ERNIE-RNA --port 8080
  ernie-rna serve --host 0.0.0.0 --workers 2 --threads 4     for all who reach this machine
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = new_parser(subparsers, "serve", "the web page", _DESCRIPTION, _EXAMPLES)
    add = parser.add_argument
    add(
        "-m",
        "--model",
        dest="models",
        action="append",
        metavar="MODEL",
        help=f"{MODEL_HELP} (the default); may be given more than once",
    )
    add("--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine alone)")
    add("--port", type=int, default=7860, help="port to listen at (7860)")
    add("--device", default="auto", help="cpu, cuda, ...; auto (the default) prefers cuda")
    add("--threads", type=int, metavar="N", help="threads of a worker on a CPU (torch decides)")
    add("--workers", type=int, default=1, metavar="N", help="requests computed at once (1)")
    group = parser.add_argument_group("what a request may take")
    add = group.add_argument
    add("--seconds", type=float, default=60.0, metavar="S", help="time to compute (60)")
    add(
        "--gigabytes",
        type=float,
        default=4.0,
        metavar="GB",
        help="memory of a worker, on a CPU under Linux (4)",
    )
    add("--sequences", type=int, default=50, metavar="N", help="sequences (50)")
    add(
        "--nucleotides",
        type=int,
        default=5000,
        metavar="NT",
        help="length of all sequences together (5000); one has at most what the model was trained "
        "on",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve as the arguments say."""
    models = args.models or ["mini"]
    for name in ("threads", "workers", "seconds", "gigabytes", "sequences", "nucleotides"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise ValueError(f"--{name} must be above 0; got {value}")
    for model in models:
        check_model(model)
    import_extra("matplotlib", "web", "the web page")
    import_extra("RNA", "web", "the web page")
    import_extra("dnaio", "web", "the web page")

    from ernie_rna.web.inputs import Limits
    from ernie_rna.web.server import name_models, serve
    from ernie_rna.web.workers import Setup

    limits = Limits(
        sequences=args.sequences,
        together=args.nucleotides,
        seconds=args.seconds,
        gigabytes=args.gigabytes,
    )
    setup = Setup(name_models(models), args.device, args.threads, limits)
    serve(setup, host=args.host, port=args.port, workers=args.workers)
    return 0
