"""Commands as data: their parsers, built from options, and the functions that they call."""

from __future__ import annotations

import argparse
import difflib
import inspect
import os
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

# What is printed after "interrupted" if the run can be resumed.
RESUMES = "; run the same command again to resume"
_RESUME_NOTE = """

To resume a run that was killed, run the same command again; the outputs are the same. Results of an
unfinished run are kept in a folder beside the first output, OUT.partial."""


class CommandParser(argparse.ArgumentParser):
    """A parser of one command. Its namespace holds only what was typed, no defaults.

    An error is two lines: the usage, which takes up to 30 lines, is not printed.
    """

    def __init__(self, **keywords: Any):
        super().__init__(**keywords, argument_default=argparse.SUPPRESS)
        self.register("action", None, _Once)
        self._words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = args
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        if "required: -m/--model" in message:
            message += "; -m mini is the model that comes with ernie-rna"
        if "required: " in message or "expected " in message:
            for word in filter(self._is_no_option, self._words):
                message += f"; {word} is read as an option: for a file of that name write ./{word}"
        self.exit(2, f"usage: see {self.prog} --help\n{self.prog}: error: {message}\n")

    def _is_no_option(self, word: str) -> bool:
        """Whether a word with a minus is the name of a file or the start of no option."""
        known, name = self._option_string_actions, word.partition("=")[0]
        is_value = self._negative_number_matcher.match(word) is not None
        is_option = is_value or word[:2] in known or any(one.startswith(name) for one in known)
        return word.startswith("-") and (os.path.exists(word) or not is_option)


class _Once(argparse.Action):
    """Stores a value. A second value, which would silently replace the first, is an error."""

    def __call__(self, parser: Any, namespace: Any, values: Any, *rest: Any) -> None:
        if hasattr(namespace, self.dest):
            first = getattr(namespace, self.dest)
            raise argparse.ArgumentError(self, f"is given twice, as {first} and as {values}")
        setattr(namespace, self.dest, values)


def argument(names: str, help: str, **more: Any) -> Argument:
    """The arguments of `add_argument` for an argument that is not one of the command's options.

    Args:
        names: such as "-o --output OUT"; OUT is the metavar. Without a metavar it is a flag.
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
    """A command of `ernie-rna`. Its arguments have the names of its function's parameters.

    Attributes:
        run: runs the command with the parsed arguments and returns the exit code. Its name is the
            command's name; its docstring is the text of --help and ends with examples.
        summary: its line in `ernie-rna --help`.
        arguments: see `argument`.
        options: the class whose fields it takes as `--name`.
        leave_out: the fields that it does not take.
        note: added to the text of --help, before the options.
        interrupted: what is printed after "interrupted" on Ctrl-C.
        shares_work: whether several processes may run it at once, each computing a share.
        resumes: whether the same command resumes a killed run; implies `shares_work`.
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
        """Add the command's parser."""
        doc = inspect.getdoc(self.run) or ""  # `python -OO` removes docstrings.
        text, _, examples = doc.partition("\n\nexamples:")
        parser: argparse.ArgumentParser = subparsers.add_parser(
            self.run.__name__,
            help=self.summary,
            description=text + self.note + (_RESUME_NOTE if self.resumes else ""),
            epilog=f"examples:{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        interrupted = RESUMES if self.resumes else self.interrupted
        _set_defaults(parser, self.run, self.shares_work or self.resumes, interrupted)
        for names, keywords in self.arguments:
            parser.add_argument(*names, **keywords)
        add_options(parser, self.options, self.leave_out)


def command(**keywords: Any) -> Callable[[Run], Command]:
    """A decorator that turns a function into a `Command`."""
    return lambda run: Command(run=run, **keywords)


def _set_defaults(
    parser: argparse.ArgumentParser, run: Run, shares_work: bool, interrupted: str = ""
) -> None:
    """Store in the parser's namespace what `main.run_program` reads."""
    parser.set_defaults(run=run, shares_work=shares_work, interrupted=interrupted, parser=parser)
    # --traceback is accepted after the command as well as before it.
    hidden = argparse.SUPPRESS
    parser.add_argument("--traceback", action="store_true", default=hidden, help=hidden)


def typed(args: argparse.Namespace) -> dict[str, Any]:
    """What was typed for a command, as keywords for its function."""
    internal = ("run", "shares_work", "interrupted", "parser", "traceback")
    return {name: value for name, value in vars(args).items() if name not in internal}


def compute(name: str, args: argparse.Namespace) -> int:
    """Call a function of `ernie_rna` with what was typed and print its problems, metrics and
    summary. The exit code is 1 if there were problems."""
    summary = getattr(ernie_rna, name)(**typed(args))
    for problem in summary.problems:
        print(f"ernie-rna: {problem}", file=sys.stderr)
    if summary.metrics:
        from ernie_rna.training.metrics import format_metrics

        stdout_is_taken = STANDARD_OUTPUT in map(str, summary.files)
        table = format_metrics({"predicted": summary.metrics})
        print(table, file=sys.stderr if stdout_is_taken else sys.stdout)
    if "progress" not in args or summary.estimate:  # --quiet
        print(summary.text, file=sys.stderr)
    return 1 if summary.problems else 0


def refuse_words(parser: argparse.ArgumentParser, words: Sequence[str]) -> NoReturn:
    """Exit with an error that lists the unrecognized words and suggests what was meant."""
    known = re.findall(r"--[a-z][a-z-]*", parser.format_help())
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    close = [name for word in options for name in difflib.get_close_matches(word, known, 1)]
    hint = f"; did you mean {' '.join(close)}?" if close else ""
    if not any(word.startswith("-") for word in words):
        hint = "; give one input, in quotes if its path contains spaces"
        if "--model" in known:
            hint += ", and write -m before a model"
    parser.error(f"unrecognized arguments: {' '.join(words)}{hint}")


def program_parser(run: Run, text: str, *, shares_work: bool = False) -> argparse.ArgumentParser:
    """The parser of a script, for `main.run_program`. `text` is what --help says; `run` and
    `shares_work` are as for `Command`."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _set_defaults(parser, run, shares_work)
    return parser


def add_options(
    parser: argparse.ArgumentParser, options: type[Options], leave_out: Sequence[str] = ()
) -> None:
    """Add the fields of a class of options as `--name`, under their headings."""
    groups: dict[str | None, Any] = {None: parser}
    for field in fields(options):
        declared, name = field.metadata, f"--{field.name.replace('_', '-')}"
        if field.name in leave_out:
            continue
        if declared["group"] not in groups:
            groups[declared["group"]] = parser.add_argument_group(declared["group"])
        add = partial(groups[declared["group"]].add_argument, dest=field.name)
        if declared["flag"] or field.default is False:
            flag, value, *flag_help = declared["flag"] or (name, True)
            add(flag, action="store_const", const=value, help=(*flag_help, declared["help"])[0])
        else:
            add(
                name,
                type=declared["parse"],
                choices=declared["choices"],
                metavar=declared["metavar"] or (None if declared["choices"] else "NAME"),
                help=_help(declared, field.default),
                **({"nargs": "+", "action": "extend"} if field.default == () else {}),
            )


def _help(declared: Mapping[str, Any], default: Any) -> str:
    """The help, with the choices and the default added unless they are shown already."""
    text = declared["help"].replace("%", "%%")
    if declared["choices"] and declared["metavar"]:
        text = f"{text}: {', '.join(map(str, declared['choices']))}"
    if default is None or "default" in text or default == ():
        return text
    default_text = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text} (default: {default_text})"


def read_options(options: type[AnyOptions], args: argparse.Namespace) -> AnyOptions:
    """The options that were typed; the others have their defaults.

    Raises:
        OptionError: a value is invalid; `main` shows the error as wrong usage.
    """
    names = {field.name for field in fields(options)}
    return options(**{name: value for name, value in vars(args).items() if name in names})
