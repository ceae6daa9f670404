"""Commands as data: their parsers, made of options, and the functions that they call."""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NoReturn, TypeVar

import ernie_rna
from ernie_rna.options import MODEL_HELP, Options
from ernie_rna.run.outputs import STANDARD_OUTPUT

AnyOptions = TypeVar("AnyOptions", bound=Options)
Argument = tuple[list[str], dict[str, Any]]
Run = Callable[[argparse.Namespace], int]

# What Ctrl-C is answered with where a run can be resumed.
RESUMES = "; run the same command again to resume"
_RESUMES = """

The same command resumes a run that was killed, with the same outputs. Results of an unfinished run
are kept in a folder beside the first output, OUT.partial."""


class CommandParser(argparse.ArgumentParser):
    """A parser of a command, whose namespace has what was typed and no defaults.

    Its errors are two lines, since the usage of a command takes up to 30.
    """

    def __init__(self, **keywords: Any):
        super().__init__(**keywords, argument_default=argparse.SUPPRESS)
        self.register("action", None, _Once)

    def error(self, message: str) -> NoReturn:
        hint = "; -m mini is the model that comes with ernie-rna"
        message += hint * ("required: -m/--model" in message)
        self.exit(2, f"usage: see {self.prog} --help\n{self.prog}: error: {message}\n")


class _Once(argparse.Action):
    """Stores a value, and refuses a second one, which would hide the first."""

    def __call__(self, parser: Any, namespace: Any, values: Any, *rest: Any) -> None:
        if hasattr(namespace, self.dest):
            before = getattr(namespace, self.dest)
            raise argparse.ArgumentError(self, f"is given twice, as {before} and as {values}")
        setattr(namespace, self.dest, values)


def argument(names: str, help: str, **more: Any) -> Argument:
    """What a command takes beside its options, for `add_argument`.

    Args:
        names: as "-o --output OUT", with the word that stands for the value; without it a flag.
        more: other keywords of `add_argument`.
    """
    *flags, last = names.split()
    if last.startswith("-"):
        return [*flags, last], {"help": help, "action": "store_true", **more}
    return flags, {"help": help, "metavar": last, **more}


FASTA = argument(
    "sequences IN.fasta",
    "FASTA file (.gz, .bz2 and .xz too), - for stdin, or one sequence (A, C, G, U, T, N)",
)
MODEL = argument("-m --model MODEL", MODEL_HELP, required=True)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of `ernie-rna`. What it is called with is named as the parameters of its function.

    Attributes:
        run: what it does with the parsed arguments; returns the exit code. Its name is the
            command's, its docstring the text of --help, which ends with examples.
        summary: its line in `ernie-rna --help`.
        arguments: see `argument`.
        options: the class whose fields it takes as `--name`.
        leave_out: the fields that it does not take.
        note: more of the text, before the options.
        interrupted: what is said after Ctrl-C, behind "interrupted".
        shares_work: whether several processes may run it at once, each doing a part.
        resumes: whether they may, and the same command resumes it.
    """

    run: Run
    summary: str
    arguments: Sequence[Argument] = ()
    options: type[Options] = Options
    leave_out: Sequence[str] = ()
    note: str = ""
    interrupted: str = ""
    shares_work: bool = False
    resumes: bool = False

    def add_to(self, subparsers: Any) -> None:
        """Add its parser."""
        doc = inspect.getdoc(self.run) or ""  # `python -OO` leaves none
        text, _, examples = doc.partition("\n\nexamples:")
        parser: argparse.ArgumentParser = subparsers.add_parser(
            self.run.__name__,
            help=self.summary,
            description=text + self.note + _RESUMES * self.resumes,
            epilog=f"examples:{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        interrupted = RESUMES if self.resumes else self.interrupted
        _set(parser, self.run, self.shares_work or self.resumes, interrupted)
        for names, keywords in self.arguments:
            parser.add_argument(*names, **keywords)
        add_options(parser, self.options, self.leave_out)


def command(**keywords: Any) -> Callable[[Run], Command]:
    """Make a `Command` of a function."""
    return lambda run: Command(run=run, **keywords)


def _set(
    parser: argparse.ArgumentParser, run: Run, shares_work: bool, interrupted: str = ""
) -> None:
    """Have a namespace hold what `main.run_program` reads."""
    parser.set_defaults(run=run, shares_work=shares_work, interrupted=interrupted, parser=parser)
    # Behind the command as well as before it.
    hidden = argparse.SUPPRESS
    parser.add_argument("--traceback", action="store_true", default=hidden, help=hidden)


def typed(args: argparse.Namespace) -> dict[str, Any]:
    """What was typed for a command, by the names of parameters."""
    ours = ("run", "shares_work", "interrupted", "parser", "traceback")
    return {name: value for name, value in vars(args).items() if name not in ours}


def compute(name: str, args: argparse.Namespace) -> int:
    """Call a function of `ernie_rna` with what was typed; say what it has written, how well that
    agrees with labels, and what it could not write."""
    summary = getattr(ernie_rna, name)(**typed(args))
    for problem in summary.problems:
        print(f"ernie-rna: {problem}", file=sys.stderr)
    if summary.metrics:
        from ernie_rna.training.metrics import format_metrics

        streamed = STANDARD_OUTPUT in map(str, summary.files)
        table = format_metrics({"predicted": summary.metrics})
        print(table, file=sys.stderr if streamed else sys.stdout)
    if "progress" not in args:  # --quiet
        print(summary.text, file=sys.stderr)
    return 1 if summary.problems else 0


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


def program_parser(run: Run, text: str, *, shares_work: bool = False) -> argparse.ArgumentParser:
    """The parser of a script, which `main.run_program` runs.

    Args:
        run: what the script does with the parsed arguments; returns the exit code.
        text: what --help says.
        shares_work: whether several processes may run it at once, each doing a part.
    """
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _set(parser, run, shares_work)
    return parser


def add_options(
    parser: argparse.ArgumentParser, options: type[Options], leave_out: Sequence[str] = ()
) -> None:
    """Add the fields of a class of options as `--name`, under their headings."""
    groups: dict[str | None, Any] = {None: parser}
    for one in fields(options):
        known, name = one.metadata, f"--{one.name.replace('_', '-')}"
        if one.name in leave_out:
            continue
        if known["group"] not in groups:
            groups[known["group"]] = parser.add_argument_group(known["group"])
        add = partial(groups[known["group"]].add_argument, dest=one.name)
        if known["flag"] or one.default is False:
            flag, value, *text = known["flag"] or (name, True)
            add(flag, action="store_const", const=value, help=(*text, known["help"])[0])
        else:
            add(
                name,
                type=known["parse"],
                choices=known["choices"],
                metavar=known["metavar"] or (None if known["choices"] else "NAME"),
                help=_help(known, one.default),
                **({"nargs": "+", "action": "extend"} if one.default == () else {}),
            )


def _help(known: Mapping[str, Any], default: Any) -> str:
    """The help, with the choices and the default where nothing else says them."""
    text = known["help"].replace("%", "%%")
    if known["choices"] and known["metavar"]:
        text = f"{text}: {', '.join(map(str, known['choices']))}"
    if default is None or "default" in text or default == ():
        return text
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text} (default: {shown})"


def read_options(options: type[AnyOptions], args: argparse.Namespace) -> AnyOptions:
    """The options of what was typed; the others have their defaults.

    Raises:
        OptionError: a value is none that an option can have; `main` shows it as wrong usage.
    """
    names = {one.name for one in fields(options)}
    return options(**{name: value for name, value in vars(args).items() if name in names})
