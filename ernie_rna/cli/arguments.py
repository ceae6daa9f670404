"""Commands made of options: their parsers, and the options of what was typed."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NoReturn, TypeVar

from ernie_rna.options import MODEL_HELP, Options
from ernie_rna.run.outputs import STANDARD_OUTPUT

AnyOptions = TypeVar("AnyOptions", bound=Options)

_MOST_CHOICES = 60  # letters
# What Ctrl-C is answered with where a run can be resumed.
RESUMES = "; run the same command again to resume"


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are two lines, since the usage of a command takes up to 30."""

    def error(self, message: str) -> NoReturn:
        hint = "; -m mini is the model that comes with ernie-rna"
        message += hint * ("required: -m/--model" in message)
        self.exit(2, f"usage: see {self.prog} --help\n{self.prog}: error: {message}\n")


def add_command(
    subparsers: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    description: str,
    examples: str = "",
    *,
    interrupted: str = "",
    shares_work: bool = False,
) -> argparse.ArgumentParser:
    """A command's parser, with text laid out as it is written.

    Args:
        run: what the command does with the parsed arguments; returns the exit code.
        summary: its line in `ernie-rna --help`.
        examples: command lines, each on a line.
        interrupted: what is said after Ctrl-C, behind "interrupted".
        shares_work: whether several processes may run it at once, each doing a part.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary,
        description=description,
        epilog=examples and f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, interrupted=interrupted, shares_work=shares_work, parser=parser)
    # Behind the command as well as before it.
    hidden = argparse.SUPPRESS
    parser.add_argument("--traceback", action="store_true", default=hidden, help=hidden)
    return parser


def refuse_words(parser: argparse.ArgumentParser, words: Sequence[str]) -> NoReturn:
    """End with the words that a command does not take, and what may have been meant."""
    known = re.findall(r"--[a-z][a-z-]*", parser.format_help())
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    near = [name for word in options for name in difflib.get_close_matches(word, known, 1)]
    hint = f"; did you mean {' '.join(near)}?" if near else ""
    if not any(word.startswith("-") for word in words):
        hint = "; give one input, with quotes if its path has blanks"
        hint += ", and write -m before a model" * ("--model" in known)
    parser.error(f"unrecognized arguments: {' '.join(words)}{hint}")


def program_parser(
    run: Callable[[argparse.Namespace], int], text: str, *, shares_work: bool = False
) -> argparse.ArgumentParser:
    """The parser of a script, which `main.run_program` runs.

    Args:
        run: what the script does with the parsed arguments; returns the exit code.
        text: what --help says.
        shares_work: whether several processes may run it at once, each doing a part.
    """
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run, interrupted="", shares_work=shares_work, parser=parser)
    parser.add_argument("--traceback", action="store_true", help=argparse.SUPPRESS)
    return parser


def add_fasta(parser: argparse.ArgumentParser) -> None:
    where = "FASTA file (.gz, .bz2 and .xz too), - for stdin, or one sequence (A, C, G, U, T, N)"
    parser.add_argument("input", metavar="IN.fasta", help=where)


def add_model(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument("-m", "--model", required=required, metavar="MODEL", help=MODEL_HELP)


def add_options(
    parser: argparse.ArgumentParser, options: type[Options], leave_out: Sequence[str] = ()
) -> None:
    """Add the fields of a class of options as `--name`, under their headings."""
    groups: dict[str | None, Any] = {None: parser}
    for one in fields(options):
        if one.name in leave_out:
            continue
        known, group = one.metadata, options.groups.get(one.name)
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        add = groups[group].add_argument
        if known["flag"] is not None:
            flag, value, *text = known["flag"]
            keep = {"action": "store_const", "const": value, "default": one.default}
            add(flag, dest=one.name, help=(*text, known["help"])[0], **keep)
        else:
            add(
                f"--{one.name.replace('_', '-')}",
                type=_word(known["parse"]) if known["parse"] else None,
                choices=known["choices"],
                default=one.default,
                metavar=known["metavar"] or (None if _fits(known["choices"]) else "VALUE"),
                help=_help(known, one.default),
                **({"nargs": "+", "action": _Several} if known["many"] else {}),
            )


class _Several(argparse.Action):
    """Collects the values of an option that may be given several times, in a tuple."""

    def __call__(self, parser: Any, namespace: Any, values: Any, *rest: Any) -> None:
        before = getattr(namespace, self.dest)
        before = () if before is self.default else before
        setattr(namespace, self.dest, (*before, *values))


def _fits(choices: Sequence[Any] | None) -> bool:
    """Whether there are choices, and they have room in the line of an option."""
    return choices is not None and len(",".join(map(str, choices))) < _MOST_CHOICES


def _help(known: Mapping[str, Any], default: Any) -> str:
    """The help, with the choices and the default where it does not say them."""
    text, choices = known["help"].replace("%", "%%"), known["choices"]
    if choices and not _fits(choices):
        text = f"{text}: {', '.join(map(str, choices))}"
    if default is None or "default" in text or default == ():
        return text
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text} (default: {shown})"


def _word(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """`parse` for argparse, which swallows the text of a ValueError."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def read_options(options: type[AnyOptions], args: argparse.Namespace) -> AnyOptions:
    """The options of what was typed; those that the command leaves out have their defaults.

    Raises:
        OptionError: a value is none that an option can have; `main` shows it as wrong usage.
    """
    values = {
        one.name: getattr(args, one.name) for one in fields(options) if hasattr(args, one.name)
    }
    return options(**values)


def report(summary: Any, quiet: bool) -> int:
    """Say what a run has written, how well it agrees with labels, and what it could not write.

    Args:
        summary: the `RunSummary` of a function that was given an output.

    Returns:
        The exit code.
    """
    for problem in summary.problems:
        print(f"ernie-rna: {problem}", file=sys.stderr)
    if summary.metrics:
        from ernie_rna.training.metrics import format_metrics

        streamed = STANDARD_OUTPUT in map(str, summary.files)
        table = format_metrics({"predicted": summary.metrics})
        print(table, file=sys.stderr if streamed else sys.stdout)
    if not quiet:
        print(summary.text, file=sys.stderr)
    return 1 if summary.problems else 0
