"""Options: their declarations and checks, what is recorded, and functions that take them."""

import inspect
import math
import pickle
import re
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch

from ernie_rna import options as module
from ernie_rna.cli.models import InfoOptions
from ernie_rna.options import OptionError, Options, Share, number, option, takes, whole
from ernie_rna.training.options import FinetuneOptions

CLASSES = [
    value
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, Options)
]


@pytest.mark.parametrize("options", CLASSES)
def test_every_default_is_valid_and_every_option_has_help(options):
    defaults = options()
    for field in fields(options):
        assert field.metadata["help"], field.name
        assert not field.metadata["help"].endswith("."), field.name
        assert getattr(defaults, field.name) == field.default


@pytest.mark.parametrize(
    ("options", "values", "message"),
    [
        ("Model", {"dtype": "float64"}, "dtype must be float32, bfloat16 or float16; got 'f"),
        ("Model", {"device": "tpu9"}, "device must be one of auto, cpu, .*; got 'tpu9'"),
        ("Model", {"device": "cuda:x"}, "such as cuda:1; got 'cuda:x'"),
        ("Model", {"revision": 1}, "revision must be text; got 1"),
        ("Run", {"progress": "no"}, "progress must be True or False; got 'no'"),
        ("Model", {"threads": 1025}, "threads must be a whole number from 1 to 1024; got 1025"),
        ("Run", {"batch_tokens": 0}, "batch_tokens must be a whole number of at least 1; got 0"),
        ("Run", {"long": "window"}, "long must be error or full; got 'window'"),
        ("Run", {"unknown": None}, "unknown must be 'error' or 'unk'; got None"),
        ("Model", {"dtype": torch.float16}, "be 'float32', .* 'float16'; got torch.float16"),
        ("Run", {"part": "0/2"}, "part must be I/N, such as 2/8 .*; got '0/2'"),
        ("Run", {"part": (1, 2)}, r"got \(1, 2\)"),
        ("Model", {"attention": "linear"}, "attention must be sdpa or eager; got 'linear'"),
        ("Head", {"pairing_scores": "one"}, "pairing_scores must be sequence or zero"),
        ("Mutate", {"mask_pairing": "zero"}, "mask_pairing must be inference or pretraining"),
        ("Mutate", {"vocabulary": "none"}, "vocabulary must be nucleotides or all"),
        ("Window", {"long": "cut"}, "long must be error, window or full; got 'cut'"),
        ("Window", {"overlap": 5}, "overlap needs --long window"),
        ("Embed", {"layers": ()}, r"layers must be one or more whole numbers, .*; got \(\)"),
        ("Embed", {"layers": (1.5,)}, "layers must be one or more whole numbers"),
        ("Embed", {"layers": (-(10**24),)}, "layers must be .* with at most 12 digits"),
        ("Embed", {"pooling": ("max",)}, "pooling must be one or more of token, cls, mean; got"),
        ("Embed", {"pooling": [["cls"]]}, r"pooling must be one or more of .*; got \(\['cls'\],\)"),
        ("Run", {"degap": 1}, "degap must be True or False; got 1"),
        ("Fold", {"pseudoknots": "yes"}, "pseudoknots must be True or False, .*; got 'yes'"),
        ("Predict", {"sequence_column": ["a"]}, "sequence_column must be text"),
        ("Predict", {"label_column": 3}, "label_column must be one or several texts"),
        ("Predict", {"label_separator": ""}, "label_separator must be non-empty text"),
        ("Run", {"scale_to": 5}, "scale_to needs --dry-run"),
        ("Run", {"quantize": "int8", "dtype": "float16"}, "quantize needs dtype float32; got flo"),
        ("Fold", {"prior": ""}, "prior must be vienna, a file, a folder or a function; got ''"),
        ("Plot", {"part": "1/1"}, "part does not apply to pictures"),
        ("Plot", {"dry_run": True}, "dry_run does not apply to pictures"),
        ("Plot", {"what": "heads", "probe": "dms"}, "probe does not apply to pictures"),
        ("Plot", {"what": "heads", "reference": "known.dbn"}, "applies to map, arcs, not to heads"),
        ("Plot", {"what": "layout", "confidence": True}, "applies to map, arcs, not to layout"),
        ("Plot", {"what": "heads", "long": "window"}, "window applies to map, arcs, layout"),
        ("Plot", {"what": "heads", "prior": "vienna"}, "to map, arcs, layout, not to heads"),
        ("Plot", {"what": "embeddings", "layer": 2}, "2 applies to map, arcs, layout, heads, n"),
        ("Plot", {"what": "substitutions", "pairing_scores": "zero"}, "closeness, not to subst"),
        ("Plot", {"what": "map", "masked": False}, "False applies to substitutions, not to map"),
        ("Plot", {"what": "embeddings", "id": "one"}, "not to embeddings"),
        ("Serve", {"seconds": 0}, "seconds must be a number above 0; got 0"),
        ("Serve", {"port": 70000}, "port must be a whole number from 1 to 65535"),
        ("Mutate", {"masked": False, "mask_pairing": "pretraining"}, "nothing is masked: leave"),
    ],
)
def test_an_invalid_value_is_refused(options, values, message):
    with pytest.raises(OptionError, match=message) as error:
        getattr(module, f"{options}Options")(**values)
    copy = pickle.loads(pickle.dumps(error.value))  # Ray sends errors between processes.
    assert (str(copy), copy.option) == (str(error.value), error.value.option)
    assert error.value.option in values


def test_valid_values_are_converted():
    options = module.EmbedOptions(layers=None, pooling="mean", threads=np.int64(3))
    assert (options.layers, options.pooling, type(options.threads)) == (None, ("mean",), int)
    for device in ("cuda:1", torch.device("cuda:1")):
        assert module.ModelOptions(device=device).device == "cuda:1"
    options = module.EmbedOptions(layers=np.array([1]), pooling=iter(["cls", "mean"]))
    assert (options.layers, options.pooling) == ((1,), ("cls", "mean"))
    assert module.PredictOptions(label_column="mrl").label_columns == ("mrl",)
    assert module.PredictOptions(label_column=["a", "b"]).label_columns == ("a", "b")


# The smallest valid value of each option that is a whole number.
LEAST = {
    **dict.fromkeys(("layers", "layer"), -(10**12) + 1),
    **dict.fromkeys(("overlap", "head", "min_loop", "seed"), 0),
    **dict.fromkeys(("threads", "batch_tokens", "scale_to", "shard_bytes", "min_stem"), 1),
    **dict.fromkeys(("port", "workers", "sequences", "nucleotides", "lengths", "batch"), 1),
    **dict.fromkeys(("max_length", "steps", "batch_size", "accumulate", "lora"), 1),
    **dict.fromkeys(("eval_steps", "patience"), 1),
    "folds": 2,
}


@pytest.mark.parametrize("options", [*CLASSES, InfoOptions, FinetuneOptions])
def test_every_whole_number_is_bounded(options):
    """Numbers too large for torch are refused as well."""

    def is_refused(name, value):
        task = {"task": "regression"} if options is FinetuneOptions else {}
        try:
            options(**task, **{name: value})
        except OptionError as error:  # It may also say that another option is missing.
            return str(error).startswith(f"{name} must be ")
        return False

    for field in fields(options):
        if re.search(r"\bint\b", field.type):
            least = LEAST[field.name]
            values = (10**24, -(10**24), least - 1, least)
            assert [is_refused(field.name, value) for value in values] == [True, True, True, False]


@pytest.mark.parametrize(
    ("check", "good", "bad", "problem"),
    [
        (whole(2), [2, np.int8(3)], [1, 2.5, "2", True, None], "a whole number of at least 2"),
        (whole(0, 5), [0, 5], [-1, 6], "a whole number from 0 to 5"),
        (number(), [0, -1.5, np.float32(2)], ["1", True, math.nan, math.inf, 10**400], "a number"),
        (number(0, 1), [0, 1, 0.5], [-0.1, 1.1], "a number from 0 to 1"),
        (number(above=0), [1e-9], [0, -1, float("nan")], "a number above 0"),
        (whole(), [-(10**12) + 1], [-(10**12), 10**400], "a whole number, with at most 12 digits"),
    ],
)
def test_checks(check, good, bad, problem):
    assert [check(value) for value in good] == [None] * len(good)
    assert {check(value) for value in bad} == {f"must be {problem}"}
    for word in ("1.5", "", "x"):
        assert whole().parse(word) == word  # The check then refuses it.


def test_recorded_options_are_values_that_json_preserves():
    recorded = module.RunOptions(batch_tokens=7, threads=2, long="full").recorded()
    assert recorded["long"] == "full"
    assert {*recorded} == {"long", "unknown", "degap", "keep_letters", "quantize"}

    @dataclass(frozen=True, kw_only=True)
    class Named(Options):
        names: tuple[str, ...] = option(("a",), "names", recorded=True)

    assert Named().recorded() == {"names": ["a"]}


# ---------------------------------------------------------------------------------------------
# Functions that take options


@takes(module.MutateOptions)
def example(sequences, output=None, *, options):
    """Return the arguments.

    Args:
        output: a file.

    Returns:
        All arguments.
    """
    return sequences, output, options


def test_options_are_keywords():
    sequences, output, options = example(["A"], output="x", masked=False, threads=2)
    assert (sequences, output) == (["A"], "x")
    assert options == module.MutateOptions(masked=False, threads=2)
    assert example(["A"], options=options)[2] is options
    with pytest.raises(OptionError, match="threads must be"):
        example([], threads=-1)
    with pytest.raises(TypeError, match=r"example\(\) has no option 'mask'; did you mean masked\?"):
        example([], mask=True)
    with pytest.raises(TypeError, match=r"no option 'zzz'; it has force, progress, dry_run"):
        example([], zzz=1)
    with pytest.raises(TypeError, match=r"missing .* 'sequences'"):
        example()


def test_signature_and_docstring_name_all_options():
    parameters = inspect.signature(example).parameters
    names = [field.name for field in fields(module.MutateOptions)]
    assert list(parameters) == ["sequences", "output", *names]
    assert parameters["vocabulary"].default == "nucleotides"
    text = inspect.getdoc(example)
    assert text.index("output: a file.") < text.index("Options:") < text.index("Returns:")
    assert "(nucleotides or all). The default is 'nucleotides'." in " ".join(text.split())
    assert all(f"\n    {name}: " in text for name in names)
    assert max(map(len, text.splitlines())) <= 92


# ---------------------------------------------------------------------------------------------
# The share of a process


def test_a_share_is_written_as_for_part():
    assert module.parse_share("2/8") == Share(1, 8, "--part")
    for text in ("0/2", "3/2", "1/0", "a/b", "1", "1/2/3", "-1/2", "1 / 2"):
        assert module.parse_share(text) is None
    assert module.own_share(None) == Share(0, 1)
    assert Share(1, 8, "--part").text == "part 2/8 (by --part)"
