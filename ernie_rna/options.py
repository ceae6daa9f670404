"""Every option that functions and commands share: its default, help and check, declared once.

A function takes the fields of an options class as keywords (`takes`), and its command takes them as
`--name` (`cli.arguments`). Results record the options that change them (`Options.recorded`). Values
are checked when the options object is created, and not again. This module does not import torch.

>>> EmbedOptions(threads=0)
Traceback (most recent call last):
    ...
ernie_rna.options.OptionError: threads must be a whole number from 1 to 1024; got 0
"""

from __future__ import annotations

import difflib
import inspect
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial, wraps
from numbers import Integral, Real
from typing import Any, TypeVar

# Returns what is wrong with a value, as words that follow the option's name, or None.
Check = Callable[[Any], str | None]

_DIGITS = 12  # at most, in a whole number: torch takes 18, but multiplies some of the numbers
MOST_THREADS = 1024  # torch aborts if the system cannot start as many threads
MODEL_HELP = "folder or Hub id of a model; mini is the small model that comes with ernie-rna"
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "hpu", "npu", "mtia", "xla")
POOLINGS = ("token", "cls", "mean")
MASK_PAIRINGS = ("inference", "pretraining")


class OptionError(ValueError):
    """An option has an invalid value.

    Attributes:
        option: the name of its field.
        problem: what is wrong, as words that follow the name.
    """

    def __init__(self, option: str, problem: str):
        super().__init__(option, problem)
        self.option, self.problem = option, problem

    def __str__(self) -> str:
        return f"{self.option} {self.problem}"


def option(
    default: Any,
    help: str,
    *,
    check: Check | None = None,
    choices: Sequence[Any] | None = None,
    parse: Callable[[str], Any] | None = None,
    metavar: str | None = None,
    flag: tuple[str, Any] | tuple[str, Any, str] | None = None,
    group: str | None = None,
    recorded: bool = False,
) -> Any:
    """Declare a field of an options class. Its value is text unless the default, `check` or
    `choices` allow something else.

    Args:
        default: None as the default is always allowed. With () the option takes several texts; with
            False its `--name` takes no value.
        help: for the command line and for the docstrings of functions.
        check: see `Check`.
        choices: the allowed values.
        parse: converts a word of the command line into a value. It returns an invalid word
            unchanged, for `check` to refuse. The parser of a `Range` is added automatically.
        metavar: stands for the value in help.
        flag: the name and value of a command-line option that takes no value, and its help if it
            differs from `help`.
        group: heading in the help of a command; defaults to that of the class.
        recorded: whether results depend on the option.
    """
    metadata = locals()
    del metadata["default"]
    if isinstance(check, Range):
        metadata["parse"] = check.parse
        metadata["metavar"] = metavar or ("N" if check.kind is int else "X")
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Range:
    """A `Check` for a finite number in a range. It also parses the number on the command line.

    Attributes:
        kind: int, with at most `_DIGITS` digits, or float, which also allows whole numbers.
        low, high: inclusive bounds.
        above: an exclusive lower bound.
    """

    kind: type[int] | type[float]
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf

    def __call__(self, value: Any) -> str | None:
        noun, kind = ("a whole number", Integral) if self.kind is int else ("a number", Real)
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        is_long = is_number and self.kind is int and abs(value) >= 10**_DIGITS
        # NumPy warns if float32 is compared with the largest float64.
        exact = float(value) if is_number and not isinstance(value, Integral) else value
        is_finite = is_number and abs(exact) <= sys.float_info.max  # False for NaN
        if is_finite and not is_long and self.low <= value <= self.high and value > self.above:
            return None
        bounds = (("of at least", self.low), ("above", self.above), ("of at most", self.high))
        words = " and ".join(f"{word} {bound}" for word, bound in bounds if math.isfinite(bound))
        if math.isfinite(self.low) and math.isfinite(self.high):
            words = f"from {self.low} to {self.high}"
        digits = f", with at most {_DIGITS} digits" if is_long else ""
        return f"must be {noun} {words}".rstrip() + digits

    def parse(self, text: str) -> Any:
        """Convert a word to a number; return the word itself if it is not a number."""
        try:
            return self.kind(text)
        except ValueError:
            return text


whole = partial(Range, int)
number = partial(Range, float)


def must_be(words: str, is_valid: Callable[[Any], object]) -> Check:
    """A `Check` that says what a value must be unless `is_valid` accepts it."""
    return lambda value: None if is_valid(value) else f"must be {words}"


some_text = must_be("non-empty text", lambda value: isinstance(value, str) and value)


def parse_words(text: str) -> tuple[str, ...]:
    """Split at commas."""
    return tuple(text.split(","))


def parse_numbers(text: str) -> tuple[Any, ...]:
    """Parse whole numbers separated by commas; words that are not numbers stay as they are."""
    return tuple(whole().parse(word) for word in text.split(","))


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options whose values are checked. A subclass may name the help heading (`group`) of its own.

    Raises:
        OptionError: a value is invalid.
    """

    def __init_subclass__(cls, group: str | None = None) -> None:
        for name in inspect.get_annotations(cls):
            declared = getattr(cls, name)
            declared.metadata = {**declared.metadata, "group": declared.metadata["group"] or group}

    def __post_init__(self) -> None:
        for declared in fields(self):
            name, default, check = declared.name, declared.default, declared.metadata["check"]
            value = getattr(self, name)
            if isinstance(default, tuple) and not isinstance(value, Mapping | None):
                is_single = isinstance(value, str | os.PathLike) or not isinstance(value, Iterable)
                value = (value,) if is_single else tuple(value)
            if value is None and default is None:
                continue
            problem = _problem(declared.metadata, default, value)
            if problem is not None:
                raise OptionError(name, f"{problem}; got {value!r}")
            if isinstance(check, Range):  # JSON cannot hold NumPy's numbers.
                value = check.kind(value)
            object.__setattr__(self, name, value)

    def is_given(self, name: str) -> bool:
        """Whether the value of an option differs from its default."""
        default: object = type(self).__dataclass_fields__[name].default
        return bool(getattr(self, name) != default)

    def recorded(self) -> dict[str, Any]:
        """The options that results depend on, equal to what is read back from JSON."""
        names = [declared.name for declared in fields(self) if declared.metadata["recorded"]]
        values = {name: getattr(self, name) for name in names}
        return {name: [*v] if isinstance(v, tuple) else v for name, v in values.items()}


def _problem(metadata: Mapping[str, Any], default: Any, value: Any) -> str | None:
    """What is wrong with the value of an option, or None."""
    choices, check = metadata["choices"], metadata["check"]
    if choices is not None:
        quoted = choices if isinstance(value, str) else list(map(repr, choices))
        return None if value in choices else f"must be {_alternatives(quoted)}"
    if check is not None:
        problem: str | None = check(value)
        return problem
    if isinstance(default, bool) or metadata["flag"]:
        return None if isinstance(value, bool) else "must be True or False"
    takes_several = isinstance(default, tuple)
    texts = value if takes_several and value is not None else (value,)
    if all(isinstance(text, str | os.PathLike) for text in texts):
        return None
    return "must be one or several texts" if takes_several else "must be text"


def _alternatives(choices: Sequence[Any]) -> str:
    *first, last = map(str, choices)
    return f"{', '.join(first)} or {last}" if first else last


R = TypeVar("R")


def takes(options: type[Options]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Let a function whose last parameter is `options` take the fields of a class as keywords.

    The function receives one checked object, made from the keywords or passed as `options`. Its
    signature and docstring list all fields.
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        *parameters, last = inspect.signature(function).parameters.values()
        assert last.name == "options"

        @wraps(function)
        def call(*args: Any, **keywords: Any) -> R:
            passed = {p.name: keywords.pop(p.name) for p in parameters if p.name in keywords}
            if "options" not in keywords:
                keywords = {"options": make_options(options, keywords, f"{function.__name__}()")}
            return function(*args, **passed, **keywords)

        kind = inspect.Parameter.KEYWORD_ONLY
        keyword_only = [
            inspect.Parameter(f.name, kind, default=f.default, annotation=f.type)
            for f in fields(options)
        ]
        call.__signature__ = inspect.signature(function).replace(  # type: ignore[attr-defined]
            parameters=[*parameters, *keyword_only]
        )
        call.__doc__ = _with_options(function.__doc__, options)
        return call

    return decorate


def make_options(options: type[Options], values: Mapping[str, Any], function: str) -> Options:
    """Make options from keywords; TypeError names an unknown keyword and suggests the closest."""
    names = [declared.name for declared in fields(options)]
    for name in values:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(names)}"
            raise TypeError(f"{function} has no option {name!r}; {hint}")
    return options(**values)


def _with_options(doc: str | None, options: type[Options]) -> str:
    """Insert a section on the options into a docstring, before Returns, Yields or Raises."""
    text = inspect.cleandoc(doc or "")
    lines = ["Options:"]
    for declared in fields(options):
        choices, help = declared.metadata["choices"], declared.metadata["help"]
        values = f" ({_alternatives(choices)})" if choices else ""
        entry = f"{declared.name}: {help}{values}. The default is {declared.default!r}."
        lines += textwrap.wrap(entry, 92, initial_indent=" " * 4, subsequent_indent=" " * 8)
    section = "\n".join(lines) + "\n"
    following = re.search(r"^(Returns|Yields|Raises):", text, re.M)
    if following is None:
        return f"{text}\n\n{section}"
    return f"{text[: following.start()]}{section}\n{text[following.start() :]}"


# How a model is loaded and run

_COMPUTING, _INPUT = "computation", "input"


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options, group=_COMPUTING):
    """How a model is loaded and run."""

    dtype: str | None = option(
        None,
        "dtype of the computation; defaults to float32, or in Python to that of a loaded model",
        choices=("float32", "bfloat16", "float16"),
    )
    device: str | None = option(
        None,
        "torch device: cpu, cuda, cuda:1, ...; defaults to cuda if there is a GPU, else cpu",
        check=must_be(
            f"one of {', '.join(DEVICES)}, or one with an index, such as cuda:1",
            lambda value: re.fullmatch(rf"({'|'.join(DEVICES)})(:\d*)?", str(value)),
        ),
    )
    threads: int | None = option(
        None,
        "CPU threads; by default as many as batches of the chosen size can use",
        check=whole(1, MOST_THREADS),
    )
    attention: str | None = option(
        None, "attention implementation; defaults to sdpa", choices=("sdpa", "eager")
    )
    revision: str | None = option(None, "branch, tag or commit of a model on the Hub")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device is not None:  # It may be a `torch.device`.
            object.__setattr__(self, "device", str(self.device))

    @property
    def loading(self) -> dict[str, Any]:
        """Keywords for `run.loading.load_model`."""
        names = ("revision", "dtype", "device", "attention", "quantize")
        return {name: getattr(self, name) for name in names if hasattr(self, name)}


# How an input is read and shared among processes


@dataclass(frozen=True)
class Share:
    """The share of one of several processes in a run: it computes every `count`-th chunk.

    Attributes:
        index: of the process, from 0.
        count: the number of processes.
        origin: the option or the variables, with their values, that set the share, for messages.
        local: index of the process on its machine, which chooses its GPU; None if unknown.
    """

    index: int = 0
    count: int = 1
    origin: str = ""
    local: int | None = None

    @property
    def text(self) -> str:
        """The share as text, such as "part 2/8 (by --part)", for messages."""
        return f"part {self.index + 1}/{self.count} (by {self.origin})"


def parse_share(part: object) -> Share | None:
    """Parse "2/8", the second of eight shares; None if it is not such a text."""
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", str(part))
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        return None
    return Share(int(match[1]) - 1, int(match[2]), "--part")


def own_share(part: str | None) -> Share:
    """The share of this process, from `part` or else from the variables of torchrun or SLURM.

    Raises:
        OptionError: the variables contradict one another.
    """
    if part is not None:
        share = parse_share(part)
        assert share is not None  # The option's check refuses any other text.
        return share
    share = Share()
    if {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        rank, size = _variable("RANK"), _variable("WORLD_SIZE")
        origin = _described("RANK", "WORLD_SIZE")
        share = Share(rank, size, origin, _variable("LOCAL_RANK", rank))
    elif {"SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"} <= os.environ.keys():
        names = ("ID", "COUNT", "MIN", "STEP")
        id, count, first, step = (f"SLURM_ARRAY_TASK_{name}" for name in names)
        index = (_variable(id) - _variable(first)) // max(_variable(step, 1), 1)
        share = Share(index, _variable(count), _described(id, count, first, step))
    if not 0 <= share.index < share.count:
        raise OptionError(
            "part",
            f"is read from {share.origin}: this would be part {share.index + 1} of {share.count}, "
            "since the tasks are not numbered without gaps; give I/N, or 1/1 to compute all",
        )
    return share


def _described(*names: str) -> str:
    """The variables that are set, with their values."""
    return ", ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ)


def _variable(name: str, default: int = 0) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise OptionError("part", f"is read from {name}, which must be a number; got {value!r}")
    return int(value)


@dataclass(frozen=True, kw_only=True)
class OutputOptions(Options):
    """How outputs are written and progress is shown."""

    force: bool = option(
        False, "replace outputs that exist, and discard unfinished results of other settings"
    )
    progress: bool | None = option(
        None,
        "whether to show a progress bar and a summary; by default on a terminal",
        flag=("--quiet", False, "no progress bar and no summary"),
    )
    dry_run: bool = option(
        False,
        "compute a little, print the time, memory and output size of the whole run, and stop; "
        "nothing is written",
    )


@dataclass(frozen=True, kw_only=True)
class InputOptions(Options, group=_INPUT):
    """How sequences are read."""

    unknown: str = option(
        "error",
        "letters that are not nucleotide codes: error refuses them, unk reads them and gaps as "
        "<unk>, so positions are those of the input",
        choices=("error", "unk"),
        recorded=True,
    )
    degap: bool = option(
        False,
        "remove the gaps of aligned sequences (FASTA, Stockholm or Clustal); positions count "
        "without gaps",
        recorded=True,
    )


@dataclass(frozen=True, kw_only=True)
class TableOptions(Options, group="table"):
    """How tables are read."""

    sequence_column: str = option("sequence", "column with the sequences")
    label_separator: str = option(
        ";", "separator between the labels in a cell (multi-label)", check=some_text, metavar="TEXT"
    )
    ignore_label: str | None = option(None, "label of bases to ignore")


@dataclass(frozen=True, kw_only=True)
class RunOptions(ModelOptions, InputOptions, OutputOptions, group=_COMPUTING):
    """Options that all runs over an input have in common."""

    long: str = option(
        "error",
        "sequences longer than the model's 1022 nt: error refuses them, full computes each as a "
        "whole, although the model was not trained on such lengths",
        choices=("error", "full"),
        group=_INPUT,
        recorded=True,
    )
    quantize: str | None = option(
        None,
        "compute the encoder's matrix products in int8 on a CPU: faster than float32 and slightly "
        "less exact, see docs/benchmarks.md",
        choices=("int8",),
        recorded=True,
    )
    keep_letters: bool = option(
        False,
        "write sequences with the letters of the input; by default in upper case with U for T",
        group=_INPUT,
        recorded=True,
    )
    batch_tokens: int | None = option(
        None,
        "tokens in a batch, padding included; larger batches take more memory; defaults to 2048 "
        "on a CPU, else 16384",
        check=whole(1),
    )
    part: str | None = option(
        None,
        "compute part I of N; other processes compute the other parts of the same output; by "
        "default read from RANK and WORLD_SIZE (torchrun) or the variables of a SLURM array; 1/1 "
        "computes all",
        check=must_be("I/N, such as 2/8 for the second of eight processes", parse_share),
        metavar="I/N",
    )
    scale_to: int | None = option(
        None,
        "with --dry-run, also print what COUNT sequences like those of the input take on 1 to "
        "1,000 machines, and which step takes longest",
        check=whole(1),
        metavar="COUNT",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale_to is not None and not self.dry_run:
            raise OptionError("scale_to", "needs --dry-run")
        if self.quantize is not None and self.dtype not in (None, "float32"):
            raise OptionError("quantize", f"needs dtype float32; got {self.dtype}: leave one out")

    @property
    def reading(self) -> dict[str, Any]:
        """Keywords for `sequences.sources.as_source`."""
        return {name: getattr(self, name) for name in ("unknown", "degap", "keep_letters")}


@dataclass(frozen=True, kw_only=True)
class WindowOptions(RunOptions, group=_INPUT):
    """Options of runs that can divide long sequences into windows."""

    long: str = option(
        "error",
        "sequences longer than the model's 1022 nt: error refuses them, window computes "
        "overlapping windows, full computes each as a whole, although the model was not trained "
        "on such lengths",
        choices=("error", "window", "full"),
        recorded=True,
    )
    overlap: int = option(256, "fewest nucleotides that neighbouring windows share", check=whole(0))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_given("overlap") and self.long != "window":
            raise OptionError("overlap", "needs --long window")


# What is computed


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(WindowOptions, group="output"):
    """Options of `embeddings.embed`."""

    layers: Sequence[int] | None = option(
        (-1,),
        "layers to write: 0 is the embedding output, -1 the last layer, all (None in Python) "
        "every layer; if the list begins with a minus, write --layers=-1,-2",
        check=must_be(
            f"one or more whole numbers, with at most {_DIGITS} digits, or all layers",
            lambda values: values is None or (values and not any(map(whole(), values))),
        ),
        parse=lambda text: None if text == "all" else parse_numbers(text),
        metavar="L,L",
    )
    pooling: Sequence[str] = option(
        ("mean",),
        "any of token (a vector for each nucleotide), cls (the vector of <cls>) and mean (over the "
        "nucleotides); special tokens are never part of token and mean",
        check=must_be(
            f"one or more of {', '.join(POOLINGS)}",
            lambda values: values and all(pooling in POOLINGS for pooling in values),
        ),
        parse=parse_words,
        metavar="P,P",
    )
    shard_bytes: int = option(
        1 << 30, "bytes above which a .safetensors output is written as shards", check=whole(1)
    )


@dataclass(frozen=True, kw_only=True)
class HeadOptions(RunOptions, group=_COMPUTING):
    """Options of predictions by a head of the authors' fine-tuned models."""

    pairing_scores: str | None = option(
        None,
        "pairing scores that the first layer adds: sequence computes them from the sequence, as in "
        "pretraining; zero sets all to 0, as the authors' script for structures does; defaults to "
        "the setting in the model's config.json",
        choices=("sequence", "zero"),
    )


_FOLD_DEFAULTS: dict[str, Any] = {"min_loop": 3, "min_stem": 2}
_AS_AUTHORS: dict[str, Any] = {"pairing_scores": "zero", "min_loop": 0, "min_stem": 1}


@dataclass(frozen=True, kw_only=True)
class ProbingOptions(Options, group="chemical probing"):
    """How reactivities of chemical probing are used, see `structures.reactivities`."""

    probe: str = option(
        "shape",
        "reagent: shape has data for every base, dms for A and C only",
        choices=("shape", "dms"),
    )
    reactivity_slope: float = option(
        2.6, "slope of the pseudo-energy of a paired base, in kcal/mol", check=number()
    )
    reactivity_intercept: float = option(
        -0.8, "intercept of the pseudo-energy, in kcal/mol", check=number()
    )

    def check_unused(self) -> None:
        """For calls without reactivities: raise OptionError if one of these options is set."""
        for name in [declared.name for declared in fields(ProbingOptions)]:
            if self.is_given(name):
                raise OptionError(name, "has no effect without reactivities (--reactivity)")


def function_name(function: Callable[..., Any]) -> str:
    """The name by which results record a function or another callable object."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}.{name}"


@dataclass(frozen=True, kw_only=True)
class FoldOptions(WindowOptions, HeadOptions, ProbingOptions, group="structure prediction"):
    """Options of `structures.fold`: how structures are predicted."""

    layer: int | None = option(
        None,
        "predict structures from the attention scores of this layer, even if the model has a "
        "structure head: 0 is the projected pairing scores, -1 the last layer; without a structure "
        "head the default is -1",
        check=whole(),
    )
    head: int | None = option(
        None,
        "predict structures from the attention scores of this attention head, counted from 0, even "
        "if the model has a structure head; without one the default is 5, as the authors use",
        check=whole(0),
    )
    min_loop: int | None = option(
        None,
        "fewest bases between the two of a pair; defaults to 3, the shortest real hairpin loop",
        check=whole(0),
        recorded=True,
    )
    min_stem: int | None = option(
        None,
        "fewest stacked pairs in a stem; defaults to 2; 1 keeps lone pairs",
        check=whole(1),
        recorded=True,
    )
    pseudoknots: bool = option(
        True,
        "whether pairs may cross; no removes the pairs that cross the largest nested set; the "
        "default is yes",
        check=must_be(
            "True or False, on the command line yes or no", lambda value: isinstance(value, bool)
        ),
        parse=lambda text: {"yes": True, "no": False}.get(text, text),
        metavar="yes|no",
        recorded=True,
    )
    prior: str | os.PathLike[str] | Callable[[str], Any] | None = option(  # noqa: RUF009
        None,
        "base-pair probabilities to add to the logits of a structure head, with the weights in "
        "its config.json: vienna, ViennaRNA's ensemble (extra vienna); or a file or folder written "
        "by LinearPartition, EternaFold or fold --matrix; in Python also a function that maps a "
        "sequence to a matrix",
        check=must_be(
            "vienna, a file, a folder or a function",
            lambda value: callable(value) or (isinstance(value, str | os.PathLike) and value != ""),
        ),
        metavar="vienna|FILE",
    )
    as_authors: bool = option(
        False, "use the authors' settings: --pairing-scores zero --min-loop 0 --min-stem 1"
    )
    matrix: str | None = option(
        None,
        "matrix of each sequence in an .npz output: the contacts after the optimisation (above "
        "0.5 for pairs), the symmetric scores or logits before it, or the probabilities of pairs; "
        "defaults to contacts",
        choices=("contacts", "scores", "probabilities"),
        recorded=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in _AS_AUTHORS.items() if self.as_authors else ():
            if getattr(self, name) not in (None, value):
                raise OptionError(
                    "as_authors",
                    f"sets {name} to {value}; got {name} {getattr(self, name)}: leave one out",
                )

    def resolved(self) -> FoldOptions:
        """The same options with `as_authors` or the defaults filled in for what is None."""
        settings = _AS_AUTHORS if self.as_authors else _FOLD_DEFAULTS
        unset = {name: value for name, value in settings.items() if getattr(self, name) is None}
        return replace(self, as_authors=False, **unset)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Options):
    """Options of `structures.evaluation.evaluate`."""

    missing: str = option(
        "error",
        "known structures without a prediction: error refuses them, skip ignores them, unpaired "
        "scores the prediction as a structure without pairs",
        choices=("error", "skip", "unpaired"),
    )
    predicted_column: str = option("dot_bracket", "column with the structures, if PRED is a table")
    reference_column: str = option("dot_bracket", "column with the structures, if REF is a table")


@dataclass(frozen=True, kw_only=True)
class MutateOptions(RunOptions):
    """Options of `scoring.mutate`."""

    mask_pairing: str = option(
        "inference",
        "pairing scores of <mask>: inference is 0, as in the authors' scripts; pretraining is -1 "
        "on its row and column, with all other scores from the unmasked sequence",
        choices=MASK_PAIRINGS,
        recorded=True,
    )
    vocabulary: str = option(
        "nucleotides",
        "tokens over which probabilities are normalised: nucleotides is A, C, G and U; all is all "
        "tokens, as in pretraining; the effects are the same",
        choices=("nucleotides", "all"),
        recorded=True,
    )
    masked: bool = option(
        True,
        "whether to mask each position in turn, which takes a pass for each nucleotide; False "
        "scores all positions in one pass over the unmasked sequence, in which the model sees the "
        "letter that it predicts",
        flag=(
            "--unmasked",
            False,
            "score all positions in one pass over the unmasked sequence: L times cheaper, but the "
            "model sees the letter that it predicts",
        ),
        recorded=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.masked and self.mask_pairing != "inference":
            raise OptionError(
                "mask_pairing", f"is {self.mask_pairing!r}, but nothing is masked: leave one out"
            )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(HeadOptions, TableOptions, group="table"):
    """Options of `scoring.predict`. Tables are read as for fine-tuning."""

    label_column: Sequence[str] = option(
        (),
        "column with labels, to compare with the predictions; give several columns for several "
        "numbers, or for several labels in columns of 0 and 1",
    )

    @property
    def label_columns(self) -> Sequence[str]:
        """The columns with labels, under the name that `FinetuneOptions` has for them."""
        return self.label_column


# Pictures and the web page

# The kinds of picture that `plot` draws, and their help.
PLOTS = {
    "map": "the map that `ernie-rna fold` predicts structures from: the logits of the model's "
    "structure head or, without one or with --layer or --head, the symmetric scores of a layer and "
    "attention head; circles below the diagonal are the predicted base pairs",
    "heads": "the symmetric scores of all attention heads of a layer; a frame marks --head",
    "arcs": "the structure that `ernie-rna fold` predicts, an arc for each base pair; --reference "
    "adds the known one below it",
    "layout": "the structure that `ernie-rna fold` predicts, as stems and loops, each base "
    "coloured by its reliability as `ernie-rna fold --bases` writes it (needs the extra vienna)",
    "closeness": "the probability that two bases are close in space, by a model with a closeness "
    "head, as `ernie-rna closeness` writes it",
    "substitutions": "the effects of all substitutions, as `ernie-rna mutate` writes them",
    "embeddings": "all sequences by the first two principal components of their mean vectors, as "
    "`ernie-rna embed` writes them, coloured by the last word of the headers if some share it",
}


# Options of runs by many processes, of outputs, or of other inputs.
NOT_OF_PLOTS = ("part", "dry_run", "scale_to", *(each.name for each in fields(ProbingOptions)))
# Kinds that draw a structure, and kinds that can also draw known pairs and the model's confidence.
FOLDED = ("map", "arcs", "layout")
DRAWN_BESIDE = ("map", "arcs")
# The kinds to which an option applies, if not to all.
_APPLIES_TO = {
    **dict.fromkeys(("reference", "confidence"), DRAWN_BESIDE),
    **dict.fromkeys(("as_authors", "prior", "min_loop", "min_stem", "pseudoknots"), FOLDED),
    **dict.fromkeys(("layer", "head"), (*FOLDED, "heads")),
    **dict.fromkeys(("masked", "mask_pairing", "vocabulary"), ("substitutions",)),
    "pairing_scores": (*FOLDED, "heads", "closeness"),
    "long": (*FOLDED, "embeddings"),
    "id": (*FOLDED, "heads", "closeness", "substitutions"),
}


@dataclass(frozen=True, kw_only=True)
class PlotOptions(FoldOptions, MutateOptions):
    """Options of `plots.pictures.plot`, and of the functions that compute what it draws."""

    what: str = option("map", "kind of picture", choices=tuple(PLOTS))
    id: str | None = option(None, "id of the sequence; not needed if there is only one")
    reference: str | None = option(
        None,
        "known structures (.tsv, .ct, .bpseq, .dbn or a folder); the structure with the same id "
        "is drawn below the prediction (arcs) or marked on it (map)",
        metavar="FILE",
    )
    confidence: bool = option(
        False,
        "colour by the probability of each predicted pair (arcs) or of all pairs (map), as in "
        "`ernie-rna fold --pairs`",
    )
    title: str | None = option(
        None, "title; defaults to a description of the picture", metavar="TEXT"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in NOT_OF_PLOTS:
            if self.is_given(name):
                raise OptionError(name, "does not apply to pictures")
        for name, kinds in _APPLIES_TO.items():
            is_set = self.long == "window" if name == "long" else self.is_given(name)
            if is_set and self.what not in kinds:
                problem = f"{getattr(self, name)} applies to {', '.join(kinds)}, not to {self.what}"
                raise OptionError(name, problem)


_LIMITS = "limits of a request"


@dataclass(frozen=True, kw_only=True)
class ServeOptions(ModelOptions):
    """Options of `web.server.serve`."""

    host: str = option(
        "127.0.0.1",
        "address to listen on: 127.0.0.1 accepts this machine only, 0.0.0.0 any machine",
    )
    port: int = option(7860, "port to listen on", check=whole(1, 65535))
    workers: int = option(1, "requests computed in parallel", check=whole(1, MOST_THREADS))
    progress: bool | None = option(
        None,
        "whether to print the address of the page",
        flag=("--quiet", False, "do not print the address of the page"),
    )
    seconds: float = option(60.0, "seconds of computing", check=number(above=0), group=_LIMITS)
    gigabytes: float = option(
        4.0,
        "GiB of memory of the computing process, on a CPU under Linux",
        check=number(above=0),
        group=_LIMITS,
    )
    sequences: int = option(50, "sequences", check=whole(1), group=_LIMITS)
    nucleotides: int = option(
        5000,
        "total length of all sequences; each is limited to the model's 1022",
        check=whole(1),
        group=_LIMITS,
    )
