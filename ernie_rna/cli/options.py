"""Arguments that the commands share, and what they mean to the functions behind them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ernie_rna.run.resumable import RunSummary

MODEL_HELP = "folder or Hub id of the model; mini is the small one that comes with ernie-rna"

# What Ctrl-C is answered with where a run is gone on with.
_INTERRUPTED = "; run the same command again: it goes on where it stopped"

_MOST_THREADS = 1024  # as in `inference.machine`, which imports torch
_DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "hpu", "npu", "mtia", "xla")


def new_parser(
    subparsers: Any, name: str, summary: str, description: str, examples: str = ""
) -> argparse.ArgumentParser:
    """A command's parser, with text laid out as it is written.

    Args:
        summary: its line in `ernie-rna --help`.
        examples: command lines, each on a line.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary,
        description=description,
        epilog=examples and f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def at_least_one(text: str) -> int:
    """A number of things, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no whole number of at least 1; left out, the default is taken"
        )
    return number


def thread_count(text: str) -> int:
    """How many threads, for argparse; torch dies of more than a system can start."""
    count = at_least_one(text)
    if count > _MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{count} are more than {_MOST_THREADS}")
    return count


def device_name(text: str) -> str:
    """A name that torch may know a device by, for argparse; whether it is here is seen later."""
    kind, _, number = text.partition(":")
    if kind not in _DEVICES or (number and not number.isdecimal()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no device: {', '.join(_DEVICES)}, or one of several, such as cuda:1"
        )
    return text


def add_fasta(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN.fasta", help="plain, .gz, .bz2 or .xz; - is stdin")


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", "--model", required=True, help=MODEL_HELP)


def add_input_rules(parser: argparse.ArgumentParser, windows: bool = False) -> None:
    """What to do with sequences that the model was not made for.

    Args:
        windows: whether windows of a sequence can be taken.
    """
    parser.add_argument(
        "--long",
        choices=("error", "window", "full") if windows else ("error", "full"),
        default="error",
        help="sequences over 1022 nt: refuse them (the default)"
        + (", take overlapping windows, with no pairs between what shares none" * windows)
        + ", or compute them whole, beyond what the model is made for",
    )
    if windows:
        parser.add_argument(
            "--overlap",
            type=int,
            default=256,
            metavar="NT",
            help="nucleotides that windows share at least (256)",
        )
    add_unknown(parser)


def add_unknown(parser: Any) -> None:
    """What to do with letters that are no nucleotide codes."""
    parser.add_argument(
        "--unknown",
        choices=("error", "unk"),
        default="error",
        help="other letters than nucleotide codes: refuse them (the default), or read them as "
        "<unk>",
    )


def add_computing(parser: argparse.ArgumentParser) -> None:
    """How, and on what, the model runs."""
    group = parser.add_argument_group("how it is computed")
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="type that is computed in (float32)",
    )
    group.add_argument(
        "--device",
        type=device_name,
        default="auto",
        metavar="NAME",
        help="cpu, cuda, cuda:1, ...; auto (the default) prefers cuda",
    )
    group.add_argument(
        "--threads", type=thread_count, metavar="N", help="threads on a CPU (torch decides)"
    )
    group.add_argument(
        "--attention", choices=("sdpa", "eager"), default="sdpa", help="implementation (sdpa)"
    )
    group.add_argument(
        "--batch-tokens",
        type=at_least_one,
        metavar="N",
        help="tokens computed at once: more takes more memory (2048 on a CPU, else 16384)",
    )
    group.add_argument("--revision", help="branch, tag or commit of a model on the Hub")


def add_resumable_output(parser: argparse.ArgumentParser, metavar: str, **how: Any) -> None:
    """Where a run that may be gone on with writes, and what it says; see `write_output`."""
    add = parser.add_argument
    add("-o", "--output", metavar=metavar, **how)
    add("--force", "--overwrite", action="store_true", help="replace OUT and unfinished results")
    add("--quiet", action="store_true", help="no progress bar and no summary")
    parser.set_defaults(interrupted=_INTERRUPTED, shares_work=True)


def write_output(args: argparse.Namespace, compute: Callable[..., Any], **options: Any) -> int:
    """Have a function of the library write `args.output`, and say what it wrote."""
    summary = compute(
        args.input,
        args.model,
        args.output,
        threads=args.threads,
        force=args.force,
        progress=False if args.quiet else None,
        **computing(args),
        **options,
    )
    if not args.quiet and summary.rank == 0:
        print(describe_run(summary), file=sys.stderr)
    return 0


def describe_run(summary: RunSummary) -> str:
    """What a run that may be gone on with has written, in a line."""
    files = str(summary.files[0])
    if len(summary.files) > 1:
        files = f"{summary.files[-1]} and {len(summary.files) - 1} shards"
    resumed = ", of which an earlier run had done a part" if summary.resumed else ""
    return (
        f"{files}: {summary.records} sequences, {summary.nucleotides} nt{resumed}; "
        f"{summary.seconds:.1f} s, {summary.sequences_per_second:.1f} sequences a second, "
        f"{100 * summary.padding:.1f} % padding"
    )


def computing(args: argparse.Namespace) -> dict[str, Any]:
    """`long`, `unknown` and the arguments of `add_computing`, but `threads`, as keywords."""
    names = ("long", "unknown", "dtype", "device", "attention", "batch_tokens", "revision")
    return {name: getattr(args, name) for name in names}


def add_reading_off(parser: argparse.ArgumentParser) -> None:
    """Which map structures are read off."""
    group = parser.add_argument_group("what structures are read off")
    group.add_argument(
        "--layer",
        type=int,
        metavar="L",
        help="the attention scores of this layer, whether or not the model has a head for "
        "structures: 0 is the projected pairing scores, -1 the last layer (the default without "
        "such a head)",
    )
    group.add_argument(
        "--head",
        type=int,
        metavar="H",
        help="the attention scores of this head, counted from 0 (5, as the authors do), whether or "
        "not the model has a head for structures",
    )
    add_pairing_scores(group)
    group.add_argument(
        "--min-loop",
        type=int,
        metavar="NT",
        help="fewest bases between partners (3, the shortest hairpin of a real RNA)",
    )
    group.add_argument(
        "--min-stem",
        type=int,
        metavar="PAIRS",
        help="fewest pairs that stack on one another (2; 1 takes single ones too)",
    )
    group.add_argument(
        "--as-authors",
        action="store_true",
        help="what the authors' script has: --pairing-scores zero --min-loop 0 --min-stem 1",
    )


def add_pairing_scores(group: Any) -> None:
    group.add_argument(
        "--pairing-scores",
        choices=("sequence", "zero"),
        help="the potential of two bases to pair that the first layer adds: read off the sequence "
        "as in pretraining, or zero everywhere as in the authors' script for structures (by "
        "default what the model's config.json says, sequence unless it was made otherwise)",
    )


def reading_off(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `add_reading_off`, as keywords.

    Raises:
        ValueError: --as-authors beside another value of what it sets.
    """
    values = _AS_AUTHORS if args.as_authors else _OURS
    for name, value in _AS_AUTHORS.items():
        if args.as_authors and getattr(args, name) not in (None, value):
            option = name.replace("_", "-")
            raise ValueError(f"--as-authors sets --{option} {value}: leave out one of the two")
    chosen = {
        name: value if getattr(args, name) is None else getattr(args, name)
        for name, value in values.items()
    }
    return {"layer": args.layer, "head": args.head, **chosen}


_OURS: dict[str, Any] = {"pairing_scores": None, "min_loop": 3, "min_stem": 2}
_AS_AUTHORS: dict[str, Any] = {"pairing_scores": "zero", "min_loop": 0, "min_stem": 1}
