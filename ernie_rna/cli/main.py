"""The command line `ernie-rna`: its commands, exit codes and error messages.

Modules with commands import torch and other slow packages only when a command runs, so that
`--help` does not wait for them.

Exit codes: 0; 1 for an error, shown in one line; 2 for wrong usage; 130 after Ctrl-C; 141 if the
reader of the output has gone; 143 after SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from importlib.metadata import version

from tqdm import tqdm

from ernie_rna import __version__
from ernie_rna.cli import computing, models
from ernie_rna.cli.arguments import CommandParser, refuse_words
from ernie_rna.cli.evaluate import evaluate
from ernie_rna.options import OptionError
from ernie_rna.run.outputs import explain

COMMANDS = (
    *(computing.embed, computing.fold, computing.closeness, evaluate),
    *(computing.mutate, computing.predict, computing.plot, computing.serve, computing.finetune),
    *(models.convert, models.push, models.verify, models.info, models.examples),
)

_DESCRIPTION = """\
ERNIE-RNA: embeddings, structures and scores of RNA sequences.

`ernie-rna COMMAND --help` describes a command and its options, with examples.
The model `mini` comes with the package: `ernie-rna fold GGGGAAAACCCC -m mini`.
"""
_INTERRUPTED = 130
_TERMINATED = 143  # 128 plus the number of SIGTERM
_BROKEN_PIPE = 141  # 128 plus the number of SIGPIPE
# Errors raised on purpose, with a message for the user.
_EXPECTED = (ValueError, OSError, ImportError, RuntimeError, MemoryError)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="ernie-rna",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    parser.add_argument(
        "--version", action="version", version=f"ernie-rna {__version__} ({versions})"
    )
    parser.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=CommandParser
    )
    for command in COMMANDS:
        command.add_to(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code.

    Args:
        argv: arguments without the program's name; defaults to those of the process.

    Raises:
        SystemExit: the usage is wrong (2), or help or version was requested (0).
    """
    return run_program(build_parser(), argv)


def run_program(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Like `main`, for a parser whose defaults name what to run, see `arguments.program_parser`."""
    if sys.stderr is None:  # It is closed, and print() to None writes to standard output.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # It stays open while the process runs.
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        refuse_words(args.parser, unknown)
    # Everything is restored at the end, since Python programs may call main, and in any thread.
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            # SIGTERM raises SystemExit, so that half-written files are removed.
            previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
            stack.callback(signal.signal, signal.SIGTERM, previous)
        warnings.showwarning = _show_warning
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    try:
        _refuse_processes(args)
        code: int = args.run(args)
        _leave_group()
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except OptionError as error:
        parser: argparse.ArgumentParser = args.parser
        parser.error(f"argument --{error.option.replace('_', '-')}: {error.problem}")
    except BrokenPipeError:  # The reader of the output has gone; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        _say(f"interrupted{args.interrupted}")
        return _INTERRUPTED
    except Exception as error:
        if getattr(args, "traceback", False):
            traceback.print_exc()
        _report(error)
        return 1


def _refuse_processes(args: argparse.Namespace) -> None:
    """Raise ValueError if torchrun started several processes that would all do the same work."""
    size = os.environ.get("WORLD_SIZE", "1")
    if size.isdecimal() and int(size) > 1 and not args.shares_work:
        raise ValueError(
            f"this command runs in one process, and WORLD_SIZE says {size}; several processes can "
            "share finetune and the commands that compute results for a FASTA file"
        )


def _leave_group() -> None:
    """Leave torch's process group: torch may abort if that is left to the exit of Python."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _report(error: Exception) -> None:
    """Print an error in one line, whatever its text looks like."""
    text = _plain(explain(error))
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        name = os.fsdecode(error.filename)
        text = f"{name}: {error.strerror.lower()}"
        if isinstance(error, FileNotFoundError) and not os.path.isabs(name):
            text += f" in {os.getcwd()}"
        elif isinstance(error, IsADirectoryError):
            text += "; name a file"
    if isinstance(error, _EXPECTED) and text:
        _say(f"error: {text}")
    else:
        _say(f"internal error: {type(error).__name__}: {text} (--traceback shows where)")


def _plain(text: str) -> str:
    """A text in one line, without error numbers."""
    return " ".join(re.sub(r"\[(Errno|WinError) -?\d+\] ?", "", text).split())


def _say(text: str) -> None:
    tqdm.write(f"ernie-rna: {text}", file=sys.stderr)  # above the progress bar, not into it


def _show_warning(message: Warning | str, *rest: object, **others: object) -> None:
    _say(f"warning: {_plain(str(message))}")
