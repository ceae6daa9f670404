"""Every option that functions and commands share: its default, help and check, declared once.

A function takes the fields of a class of options as keywords (`takes`), its command takes them as
`--name` (`cli.arguments`), and what is computed records those that change results
(`Options.recorded`). A value is checked where the options are made, and not again. No torch.

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

# A problem with a value, in words that follow its name, or None.
Check = Callable[[Any], str | None]

_DIGITS = 12  # of a whole number; torch takes 18, and multiplies some
MOST_THREADS = 1024  # torch dies of more than a system can start
MODEL_HELP = "folder or Hub id of a model; mini is the small model that comes with ernie-rna"
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "hpu", "npu", "mtia", "xla")
POOLINGS = ("token", "cls", "mean")
MASK_PAIRINGS = ("inference", "pretraining")


class OptionError(ValueError):
    """A value that an option cannot have.

    Attributes:
        option: the name of its field.
        problem: what is wrong, in words that follow the name.
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
    """A field of a class of options: text, unless its default, check or choices say otherwise.

    Args:
        default: None is allowed beside what `check` and `choices` allow, if it is the default. With
            () the option takes several texts, with False its `--name` takes no value.
        help: for the command line, and for the docstrings of functions.
        check: see `Check`.
        choices: the values that there are.
        parse: makes the value of a word on the command line; a word that is none stays as it is,
            for `check` to refuse. A `Range` does this itself.
        metavar: stands for the value in help.
        flag: name and value, for an option of the command line that takes no value, and its help
            where that differs.
        group: heading in the help of a command, in place of that of the class.
        recorded: whether results depend on it.
    """
    given = locals()
    del given["default"]
    if isinstance(check, Range):
        given["parse"] = check.parse
        given["metavar"] = metavar or ("N" if check.kind is int else "X")
    return field(default=default, metadata=given)


@dataclass(frozen=True)
class Range:
    """A `Check` of a finite number in a range, which also reads it off the command line.

    Attributes:
        kind: int, of at most `_DIGITS` digits, or float, for which a whole number will do.
        low, high: bounds that it may reach.
        above: a bound that it may not reach.
    """

    kind: type[int] | type[float]
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf

    def __call__(self, value: Any) -> str | None:
        noun, kind = ("a whole number", Integral) if self.kind is int else ("a number", Real)
        fits = isinstance(value, kind) and not isinstance(value, bool)
        is_long = fits and self.kind is int and abs(value) >= 10**_DIGITS
        fits = fits and not is_long and abs(value) <= sys.float_info.max  # as NaN is not
        if fits and self.low <= value <= self.high and value > self.above:
            return None
        bounds = (("of at least", self.low), ("above", self.above), ("of at most", self.high))
        words = " and ".join(f"{word} {bound}" for word, bound in bounds if math.isfinite(bound))
        if math.isfinite(self.low) and math.isfinite(self.high):
            words = f"from {self.low} to {self.high}"
        digits = f", with at most {_DIGITS} digits" if is_long else ""
        return f"must be {noun} {words}".rstrip() + digits

    def parse(self, text: str) -> Any:
        """The number that a word is, else the word."""
        try:
            return self.kind(text)
        except ValueError:
            return text


whole = partial(Range, int)
number = partial(Range, float)


def some_text(value: Any) -> str | None:
    """A text that is not empty."""
    return None if isinstance(value, str) and value else "must be text, and not empty"


def parse_words(text: str) -> tuple[str, ...]:
    """Words with commas between them."""
    return tuple(text.split(","))


def parse_numbers(text: str) -> tuple[Any, ...]:
    """Whole numbers with commas between them; a word that is none stays as it is."""
    return tuple(whole().parse(word) for word in text.split(","))


@dataclass(frozen=True, kw_only=True)
class Options:
    """A set of options, checked. A class may name the group that its options are in.

    Raises:
        OptionError: a value is none that an option can have.
    """

    def __init_subclass__(cls, group: str | None = None) -> None:
        for name in inspect.get_annotations(cls):
            own = getattr(cls, name)
            own.metadata = {**own.metadata, "group": own.metadata["group"] or group}

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(one.default, tuple) and not isinstance(value, Mapping | None):
                several = isinstance(value, Iterable) and not isinstance(value, str | os.PathLike)
                value = tuple(value) if several else (value,)
            if value is None and one.default is None:
                continue
            problem = _problem(one.metadata, one.default, value)
            if problem is not None:
                raise OptionError(one.name, f"{problem}; got {value!r}")
            if isinstance(one.metadata["check"], Range):  # JSON knows no number of NumPy.
                value = one.metadata["check"].kind(value)
            object.__setattr__(self, one.name, value)

    def is_given(self, name: str) -> bool:
        """Whether an option has another value than by default."""
        default: object = type(self).__dataclass_fields__[name].default
        return bool(getattr(self, name) != default)

    def recorded(self) -> dict[str, Any]:
        """The options that results depend on, as JSON gives them back."""
        names = [one.name for one in fields(self) if one.metadata["recorded"]]
        values = {name: getattr(self, name) for name in names}
        return {
            n: list(value) if isinstance(value, tuple) else value for n, value in values.items()
        }


def _problem(known: Mapping[str, Any], default: Any, value: Any) -> str | None:
    """What is wrong with the value of an option."""
    choices, check, texts = known["choices"], known["check"], isinstance(default, tuple)
    if choices is not None:
        quoted = choices if isinstance(value, str) else list(map(repr, choices))
        return None if value in choices else f"must be {_alternatives(quoted)}"
    if check is not None:
        problem: str | None = check(value)
        return problem
    if isinstance(default, bool) or known["flag"]:
        return None if isinstance(value, bool) else "must be True or False"
    words = value if texts and value is not None else (value,)
    if all(isinstance(word, str | os.PathLike) for word in words):
        return None
    return "must be one or several texts" if texts else "must be text"


def _alternatives(choices: Sequence[Any]) -> str:
    *some, last = map(str, choices)
    return f"{', '.join(some)} or {last}" if some else last


R = TypeVar("R")


def takes(options: type[Options]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Let a function with a last parameter `options` take its fields as keywords.

    The function gets one object, made of the keywords and checked, or given as `options`. Its
    signature and docstring name them all.
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        *own, last = inspect.signature(function).parameters.values()
        assert last.name == "options"

        @wraps(function)
        def call(*args: Any, **keywords: Any) -> R:
            mine = {one.name: keywords.pop(one.name) for one in own if one.name in keywords}
            if "options" not in keywords:
                keywords = {"options": make_options(options, keywords, f"{function.__name__}()")}
            return function(*args, **mine, **keywords)

        kind = inspect.Parameter.KEYWORD_ONLY
        keyword_only = [
            inspect.Parameter(one.name, kind, default=one.default, annotation=one.type)
            for one in fields(options)
        ]
        call.__signature__ = inspect.signature(function).replace(  # type: ignore[attr-defined]
            parameters=[*own, *keyword_only]
        )
        call.__doc__ = _with_options(function.__doc__, options)
        return call

    return decorate


def make_options(options: type[Options], values: Mapping[str, Any], function: str) -> Options:
    """Options of keywords; a name that is none raises TypeError, with the nearest that is."""
    names = [one.name for one in fields(options)]
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(names)}"
            raise TypeError(f"{function} has no option {name!r}{hint}")
    return options(**values)


def _with_options(doc: str | None, options: type[Options]) -> str:
    """A docstring with a section on the options, before what is returned or raised."""
    text = inspect.cleandoc(doc or "")
    lines = ["Options:"]
    for one in fields(options):
        choices = one.metadata["choices"]
        what = f" ({_alternatives(choices)})" if choices else ""
        entry = f"{one.name}: {one.metadata['help']}{what}. The default is {one.default!r}."
        lines += textwrap.wrap(entry, 92, initial_indent=" " * 4, subsequent_indent=" " * 8)
    section = "\n".join(lines) + "\n"
    at = re.search(r"^(Returns|Yields|Raises):", text, re.M)
    if at is None:
        return f"{text}\n\n{section}"
    return f"{text[: at.start()]}{section}\n{text[at.start() :]}"


# How a model is loaded and runs

_COMPUTING, _INPUT = "how it is computed", "the input"


def _device(value: Any) -> str | None:
    kind, _, index = str(value).partition(":")
    if kind in DEVICES and (not index or index.isdecimal()):
        return None
    return f"must be one of {', '.join(DEVICES)}, or one of several, such as cuda:1"


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options, group=_COMPUTING):
    """How a model is loaded and runs."""

    dtype: str | None = option(
        None,
        "dtype of the computation; defaults to float32, or in Python to that of a loaded model",
        choices=("float32", "bfloat16", "float16"),
    )
    device: str | None = option(
        None,
        "torch device: cpu, cuda, cuda:1, ...; defaults to cuda if there is a GPU, else cpu",
        check=_device,
    )
    threads: int | None = option(
        None,
        "CPU threads; by default as many as the size of the batches keeps busy",
        check=whole(1, MOST_THREADS),
    )
    attention: str | None = option(
        None, "attention implementation; defaults to sdpa", choices=("sdpa", "eager")
    )
    revision: str | None = option(None, "branch, tag or commit of a model on the Hub")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device is not None:  # also a `torch.device`
            object.__setattr__(self, "device", str(self.device))

    @property
    def loading(self) -> dict[str, Any]:
        """Those that `run.loading.load_model` takes."""
        names = ("revision", "dtype", "device", "attention", "quantize")
        return {name: getattr(self, name) for name in names if hasattr(self, name)}


# How an input is gone through


@dataclass(frozen=True)
class Share:
    """One of several processes that share a run: it computes every `count`-th chunk.

    Attributes:
        index: counted from 0.
        count: how many processes there are.
        origin: what says so, for messages.
        local: number of this process on its machine, for the choice of a GPU; None without.
    """

    index: int = 0
    count: int = 1
    origin: str = ""
    local: int | None = None

    @property
    def text(self) -> str:
        """Part and origin, for messages."""
        return f"part {self.index + 1}/{self.count} (by {self.origin})"


def parse_share(part: object) -> Share | None:
    """ "2/8" is the second of eight; None where it is no such text."""
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", str(part))
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        return None
    return Share(int(match[1]) - 1, int(match[2]), "--part")


def _part(value: object) -> str | None:
    fits = parse_share(value) is not None
    return None if fits else "must be I/N, such as 2/8 for the second of eight processes"


def own_share(part: str | None) -> Share:
    """What this process computes: as `part` says, or torchrun's or SLURM's variables.

    Raises:
        OptionError: the variables contradict one another.
    """
    share = Share() if part is None else parse_share(part)
    assert share is not None  # It has been checked.
    if part is not None:
        return share
    if {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        rank, size = _variable("RANK"), _variable("WORLD_SIZE")
        share = Share(rank, size, "RANK and WORLD_SIZE", _variable("LOCAL_RANK", rank))
    elif {"SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"} <= os.environ.keys():
        first = _variable("SLURM_ARRAY_TASK_MIN", 0)
        step = _variable("SLURM_ARRAY_TASK_STEP", 1)
        index = (_variable("SLURM_ARRAY_TASK_ID") - first) // max(step, 1)
        share = Share(index, _variable("SLURM_ARRAY_TASK_COUNT"), "SLURM_ARRAY_TASK_ID")
    if not 0 <= share.index < share.count:
        raise OptionError(
            "part",
            f"is taken from {share.origin}, and number {share.index} is not below {share.count}",
        )
    return share


def _variable(name: str, default: int = 0) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise OptionError("part", f"is taken from {name}, which must be a number; got {value!r}")
    return int(value)


@dataclass(frozen=True, kw_only=True)
class OutputOptions(Options):
    """What is done about outputs."""

    force: bool = option(
        False, "replace outputs that exist, and drop unfinished results of other settings"
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
    """Which sequences are taken."""

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
class TableOptions(Options, group="the table"):
    """What is read from a table."""

    sequence_column: str = option("sequence", "column with the sequences")
    label_separator: str = option(
        ";", "separator between the labels in a cell (multi-label)", check=some_text, metavar="TEXT"
    )
    ignore_label: str | None = option(None, "label of bases to ignore")


@dataclass(frozen=True, kw_only=True)
class RunOptions(ModelOptions, InputOptions, OutputOptions, group=_COMPUTING):
    """What all runs over an input have in common."""

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
        check=_part,
        metavar="I/N",
    )
    scale_to: int | None = option(
        None,
        "with --dry-run, also print what COUNT sequences like those of the input take on 1 to "
        "1,000 machines, and which part of it takes longest",
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
        """Those that `sequences.sources.as_source` takes."""
        return {name: getattr(self, name) for name in ("unknown", "degap", "keep_letters")}


@dataclass(frozen=True, kw_only=True)
class WindowOptions(RunOptions, group=_INPUT):
    """Runs that can take long sequences by windows."""

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


def _layers(values: Any) -> str | None:
    if values is None or (values and not any(map(whole(), values))):
        return None
    return f"must be whole numbers, at least one, with at most {_DIGITS} digits; or all layers"


def _poolings(values: Any) -> str | None:
    fits = bool(values) and all(one in POOLINGS for one in values)
    return None if fits else f"must be among {', '.join(POOLINGS)}"


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(WindowOptions, group="what is written"):
    """Of `embeddings.embed`."""

    layers: Sequence[int] | None = option(
        (-1,),
        "layers to write: 0 is the embedding output, -1 the last layer, all (None in Python) "
        "every layer; if the list begins with a minus, write --layers=-1,-2",
        check=_layers,
        parse=lambda text: None if text == "all" else parse_numbers(text),
        metavar="L,L",
    )
    pooling: Sequence[str] = option(
        ("mean",),
        "any of token (a vector for each nucleotide), cls (the vector of <cls>) and mean (over the "
        "nucleotides); special tokens are never part of token and mean",
        check=_poolings,
        parse=parse_words,
        metavar="P,P",
    )
    shard_bytes: int = option(
        1 << 30, "bytes above which a .safetensors output is written as shards", check=whole(1)
    )


@dataclass(frozen=True, kw_only=True)
class HeadOptions(RunOptions, group=_COMPUTING):
    """Of predictions by a head of the authors' fine-tuned models."""

    pairing_scores: str | None = option(
        None,
        "pairing scores that the first layer adds: sequence computes them from the sequence, as in "
        "pretraining; zero sets all to 0, as the authors' script for structures does; defaults to "
        "the setting in the model's config.json",
        choices=("sequence", "zero"),
    )


_UNLESS_GIVEN: dict[str, Any] = {"min_loop": 3, "min_stem": 2}
_AS_AUTHORS: dict[str, Any] = {"pairing_scores": "zero", "min_loop": 0, "min_stem": 1}


@dataclass(frozen=True, kw_only=True)
class ProbingOptions(Options, group="chemical probing"):
    """What reactivities of chemical probing say of bases, see `structures.reactivities`."""

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
        """Raise OptionError, where there are no reactivities, for an option that is of them."""
        for one in fields(ProbingOptions):
            if self.is_given(one.name):
                raise OptionError(one.name, "has no effect without reactivities (--reactivity)")


def _yes(value: Any) -> str | None:
    fits = isinstance(value, bool)
    return None if fits else "must be True or False, on the command line yes or no"


def _prior(value: Any) -> str | None:
    fits = callable(value) or (isinstance(value, (str, os.PathLike)) and os.fspath(value))
    return None if fits else "must be vienna, a file, a folder or a function"


def function_name(function: Callable[..., Any]) -> str:
    """A function, or an object that can be called, as results record it."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}.{name}"


@dataclass(frozen=True, kw_only=True)
class FoldOptions(WindowOptions, HeadOptions, ProbingOptions, group="how structures are predicted"):
    """Of `structures.fold`: how structures are predicted."""

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
        check=_yes,
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
        check=_prior,
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
                    f"sets {name} to {value}; got {name} {getattr(self, name)}: leave out one of "
                    "the two",
                )

    def resolved(self) -> FoldOptions:
        """The same without `as_authors`, and with what it sets or the defaults in place of None."""
        settings = _AS_AUTHORS if self.as_authors else _UNLESS_GIVEN
        absent = {n: value for n, value in settings.items() if getattr(self, n) is None}
        return replace(self, as_authors=False, **absent)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Options):
    """Of `structures.evaluation.evaluate`."""

    missing: str = option(
        "error",
        "known structures without a prediction: error refuses them, skip ignores them, unpaired "
        "scores the prediction as a structure without pairs",
        choices=("error", "skip", "unpaired"),
    )
    predicted_column: str = option(
        "dot_bracket", "column with the structures, where PRED is a table"
    )
    reference_column: str = option(
        "dot_bracket", "column with the structures, where REF is a table"
    )


@dataclass(frozen=True, kw_only=True)
class MutateOptions(RunOptions):
    """Of `scoring.mutate`."""

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
                "mask_pairing",
                f"is {self.mask_pairing!r}, but nothing is masked: leave one out",
            )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(HeadOptions, TableOptions, group="the table"):
    """Of `scoring.predict`; those of tables are as for fine-tuning."""

    label_column: Sequence[str] = option(
        (),
        "column with labels, to compare with the predictions; give several columns for several "
        "numbers, or for several labels in columns of 0 and 1",
    )

    @property
    def label_columns(self) -> Sequence[str]:
        """Those given."""
        return self.label_column


# Pictures and the page

# What `plot` draws.
PLOTS = {
    "map": "the map that `ernie-rna fold` predicts structures from: the logits of the model's "
    "structure head or, without one or with --layer or --head, the symmetric scores of a layer and "
    "attention head; circles below the diagonal are the predicted base pairs",
    "heads": "the symmetric scores of all attention heads of a layer; a frame marks --head",
    "arcs": "the structure that `ernie-rna fold` predicts, an arc for each base pair; --reference "
    "adds the known one below it",
    "layout": "the structure that `ernie-rna fold` predicts, as stems and loops, each base "
    "coloured by its reliability as `ernie-rna fold --bases` writes it (needs the extra vienna)",
    "closeness": "the probability of every two bases to be close in space, by a model with a "
    "closeness head, as `ernie-rna closeness` writes it",
    "substitutions": "the effects of all substitutions, as `ernie-rna mutate` writes them",
    "embeddings": "all sequences by the first two principal components of their mean vectors, as "
    "`ernie-rna embed` writes them, coloured by the last word of the headers if some share it",
}


# They are of runs by many processes, of outputs, or of other inputs.
NOT_OF_PLOTS = (
    *("part", "dry_run", "scale_to"),
    *(one.name for one in fields(ProbingOptions)),
)
# Kinds that draw a structure; and options that mean something for some kinds alone.
FOLDED = ("map", "arcs", "layout")
DRAWN_BESIDE = ("map", "arcs")  # the known pairs, and how sure the model is
_OF_KINDS = {
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
    """Of `plots.pictures.plot`, and of what computes that which it draws."""

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
                raise OptionError(name, "is not for pictures")
        for name, kinds in _OF_KINDS.items():
            asked = self.long == "window" if name == "long" else self.is_given(name)
            if asked and self.what not in kinds:
                problem = f"{getattr(self, name)} is for {', '.join(kinds)}, not for {self.what}"
                raise OptionError(name, problem)


_LIMITS = "limits of a request"


@dataclass(frozen=True, kw_only=True)
class ServeOptions(ModelOptions):
    """Of `web.server.serve`."""

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
        "GB of memory of the computing process, on a CPU under Linux",
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
