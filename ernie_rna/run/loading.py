"""Loads a model for inference, and does what every use needs: device, tokens, memory, threads."""

from __future__ import annotations

import contextlib
import re
import threading
import timeit
import warnings
from collections.abc import Iterator, Sequence
from functools import cache, partial
from os import PathLike
from typing import Any, TypeVar, cast

import torch
import transformers
from packaging.version import Version
from safetensors import safe_open
from transformers.utils import cached_file

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import (
    ErnieRnaForMaskedLM,
    ErnieRnaModel,
    ErnieRnaPreTrainedModel,
)
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from ernie_rna.run.find_model import find_model
from ernie_rna.sequences.chunks import Chunk, Plan
from ernie_rna.sequences.fasta import FastaRecord

_AnyModel = TypeVar("_AnyModel", bound=ErnieRnaPreTrainedModel)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Multiplications of a matrix product that justify one more thread. With fewer, threads wait for
# one another at its end, on a busy machine for milliseconds: 256 tokens of `mini`, 9.4 million,
# took two threads as long as one, 1024 tokens 0.7 times as long (measured on two busy cores).
_LEAST_WORK = 1 << 23

# transformers changes global state while it loads, and restores it afterwards.
_LOADING = threading.Lock()
# Fields of the configuration that count layers or blocks, and what weights of those are called.
_NUMBERED = {
    "num_hidden_layers": "layers",
    "pair_blocks": r"pair_head\.blocks",
    "loading_blocks": r"loading_head\.blocks",
}


class EncodingError(RuntimeError):
    """A sequence cannot be computed; the message names it."""


def not_finite(what: str, model: Any) -> EncodingError:
    """The error for a result of a model that is NaN or infinite."""
    dtype = str(model.dtype).removeprefix("torch.")
    return EncodingError(
        f"{what} is not finite (NaN or infinity); the model or its dtype, {dtype}, is at fault"
    )


def resolve_device(device: str | None) -> torch.device:
    """Return the device of a torch name; None and "auto" are CUDA if there is a GPU, else the CPU.

    Raises:
        ValueError: this machine has no such device.
    """
    if device in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.zeros(1, device=resolved).item()
    except (RuntimeError, AssertionError, ImportError) as error:  # Torch without CUDA asserts.
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise ValueError(
            f"device {device!r} cannot be used: {reason}; leave it out to use what is here"
        ) from error
    return resolved


def load_model(
    model: str | PathLike[str] | ErnieRnaModel,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    attention: str | None = None,
    quantize: str | None = None,
) -> ErnieRnaModel:
    """Load the encoder for inference, from a folder or the Hub.

    Args:
        model: folder, Hub id, "mini", or a loaded model, which is changed in place: its dtype,
            device and attention become those that are not None.
        revision: branch, tag or commit on the Hub.
        dtype: name of the dtype of the computation, a key of `DTYPES`; None is "float32".
        device: where it computes, see `resolve_device`.
        attention: "sdpa" or "eager"; None is "sdpa".
        quantize: "int8" computes the encoder's matrix products in int8, on a CPU; None does not.

    Raises:
        ValueError: the dtype is unknown; the model is damaged or lacks weights of an ERNIE-RNA; or
            a model to be quantised is on a GPU, or loaded already.
        OSError: there is no such model.
    """
    loading: Any = {"revision": revision, "dtype": dtype, "device": device, "attention": attention}
    return load(ErnieRnaModel, find_model(model, revision), quantize=quantize, **loading)


def load_masked_lm(
    model: str | PathLike[str] | ErnieRnaForMaskedLM, **loading: Any
) -> ErnieRnaForMaskedLM:
    """Load the encoder with its language-model head; otherwise like `load_model`."""
    source = find_model(model, loading.get("revision"))
    return load(ErnieRnaForMaskedLM, source, **loading)


def load(
    kind: type[_AnyModel],
    source: str | _AnyModel,
    *,
    config: ErnieRnaConfig | None = None,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    attention: str | None = None,
    quantize: str | None = None,
) -> _AnyModel:
    """Load a model of the class `kind` from what `find_model` returns; otherwise like `load_model`.
    `config` is what `read_config` returns; None reads it."""
    if dtype not in {None, *DTYPES}:
        raise ValueError(f"dtype must be one of {', '.join(map(repr, DTYPES))}; got {dtype!r}")
    result: Any
    if kind.__name__ in class_names(source):
        if quantize is not None:
            raise ValueError("a loaded model cannot be quantised: give the model as a folder")
        result = source
        if attention is not None:
            result.set_attn_implementation(attention)
        if dtype is not None:
            result.to(DTYPES[dtype])
        if device is not None:
            result.to(resolve_device(device))
        return cast(_AnyModel, result.eval())
    if not isinstance(source, str):
        raise TypeError(f"expected a folder, a Hub id or an {kind.__name__}; got {type(source)}")
    target = resolve_device(device)
    # `torch_dtype` became `dtype` in 4.56.
    name = "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"
    arguments: dict[str, Any] = {
        name: DTYPES[dtype or "float32"],
        "revision": revision or "main",
        "attn_implementation": attention or "sdpa",
        "config": config or read_config(source, revision),
        **({"add_pooling_layer": False} if kind is ErnieRnaModel else {}),
    }
    from_pretrained: Any = kind.from_pretrained  # Its annotation lacks the loading info.
    with _LOADING, _named(source), without_report():
        _check_layers(source, arguments["config"], arguments["revision"])
        result, info = from_pretrained(source, output_loading_info=True, **arguments)
    _check_weights(source, result.config, sorted(info["missing_keys"]))
    result = result.to(target).eval()
    if quantize is not None:
        quantize_layers(result)
    elif target.type == "cpu" and dtype == "bfloat16":
        _warn_of_bfloat16()
    return cast(_AnyModel, result)


def quantize_layers(model: Any) -> None:
    """Change the linear layers of an encoder, in place, to compute in int8 on a CPU.

    Weights are rounded once, with one scale for each matrix; activations in each call, with one
    scale by their range. Pairing maps, norms, embeddings and heads are not changed.
    """
    if model.device.type != "cpu":
        raise ValueError(f"quantize='int8' computes on a CPU; the device is {model.device}")
    encoder = getattr(model, model.base_model_prefix, model)
    try:
        quantize_dynamic = torch.ao.quantization.quantize_dynamic
    except AttributeError:
        raise ValueError(
            f"quantize='int8' needs torch.ao; torch {torch.__version__} has none"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated; a future torch will remove it
        quantize_dynamic(encoder.layers, {torch.nn.Linear}, inplace=True)


def _warn_of_bfloat16() -> None:
    """Warn if this CPU has no instructions for bfloat16, and so emulates it slowly."""
    matrix = torch.ones(256, 256)
    in_float32, in_bfloat16 = (
        min(timeit.repeat(partial(torch.mm, values, values), number=4, repeat=5))
        for values in (matrix, matrix.bfloat16())
    )
    if in_bfloat16 > 1.5 * in_float32:
        warnings.warn(
            "this CPU has no instructions for bfloat16, so bfloat16 takes several times as long as "
            "float32: leave out dtype",
            stacklevel=2,
        )


def read_config(source: Any, revision: str | None = None) -> ErnieRnaConfig:
    """Return the configuration of what `find_model` returns.

    Raises:
        ValueError: the configuration is damaged, or that of another kind of model.
        TypeError: the source is not a model.
        OSError: there is no configuration.
    """
    if hasattr(source, "config"):
        return cast(ErnieRnaConfig, source.config)
    if not isinstance(source, str):
        raise TypeError(f"expected a folder, a Hub id or an ErnieRnaModel; got {type(source)}")
    with _named(source):
        values, _ = ErnieRnaConfig.get_config_dict(source, revision=revision or "main")
        kind = values.get("model_type")
        if kind == "ernierna":
            raise ValueError(
                f"its weights have MultiMolecule's names; convert it once, `ernie-rna convert "
                f"{source} ERNIE-RNA`, and give that folder: -m ERNIE-RNA"
            )
        if kind != ErnieRnaConfig.model_type:
            raise ValueError(f"not an ERNIE-RNA: its configuration says {kind}")
        return ErnieRnaConfig.from_dict(values)


def class_names(model: object) -> list[str]:
    """The class names of a loaded model, the same if `trust_remote_code` made copies of them."""
    return [base.__name__ for base in type(model).__mro__]


def name_and_kind(source: Any, config: ErnieRnaConfig) -> tuple[str, str]:
    """The name in messages of what `find_model` returns, and the class of the model."""
    if isinstance(source, str):
        return source, (config.architectures or ["unnamed"])[0]
    return "the model", class_names(source)[0]


def has_head(source: Any, config: ErnieRnaConfig, *heads: str) -> bool:
    """Whether what `find_model` returns has one of these heads, given by their class names."""
    names = class_names(source) if not isinstance(source, str) else config.architectures or ()
    return any(name in heads for name in names)


@contextlib.contextmanager
def _named(model: str) -> Iterator[None]:
    """Add the name of the model to an OSError, whose text may mention only the Hub, and to a
    ValueError. Any other error of a library for a damaged file becomes a ValueError."""
    what = f"cannot load the model {model!r}"
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except (OSError, ValueError) as error:
        raise (OSError if isinstance(error, OSError) else ValueError)(f"{what}: {error}") from error
    except Exception as error:
        raise ValueError(
            f"{what}: it is damaged, or its config.json is another model's "
            f"({type(error).__name__}: {error})"
        ) from error


def _check_layers(model: str, config: ErnieRnaConfig, revision: str) -> None:
    """Raise ValueError if the configuration has more layers than there are weights, which could
    take forever to build, or fewer than the weights have, which transformers would ignore."""
    try:
        path = cached_file(model, "model.safetensors", revision=revision)
    except OSError:
        return  # It is in shards, or missing, which `from_pretrained` reports.
    with safe_open(path, framework="pt") as file:
        names = "\n".join(file.keys())
    for field, name in _NUMBERED.items():
        expected = getattr(config, field)
        numbers = re.findall(rf"(?m)(?:^|\.){name}\.([0-9]{{1,9}})\.", names)
        present = max((1 + int(number) for number in numbers), default=0)
        if present > expected or expected > names.count("\n") + 1:
            raise ValueError(f"config.json has {field} {expected}, but the weights have {present}")


def _check_weights(model: str, config: ErnieRnaConfig, missing: list[str]) -> None:
    """Raise ValueError if weights are missing; warn if they were never trained."""
    if missing and all(key.startswith("lm_head.") for key in missing):
        classes = ", ".join(config.architectures or ["a model"])
        raise ValueError(
            f"{model} has no language-model head, which this needs: it is {classes}; use the "
            "pretrained model that `ernie-rna convert` makes from ERNIE-RNA_pretrain.pt, or save "
            "an ErnieRnaForMaskedLM"
        )
    if missing:
        raise ValueError(
            f"{model} is not an ERNIE-RNA for transformers: it lacks {len(missing)} weights, such "
            f"as {missing[0]}; `ernie-rna convert` makes one from the authors' checkpoint"
        )
    if config.weights_origin == "random":
        warnings.warn(
            f"{model} has random weights, which were never trained: its results mean nothing",
            stacklevel=3,
        )


@contextlib.contextmanager
def without_report() -> Iterator[None]:
    """Hide transformers' table of missing weights, which our own errors report, and its bars."""
    logging = transformers.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


# ---------------------------------------------------------------------------------------------
# Batches


_tokenizer = cache(ErnieRnaTokenizer)


def tokenize(texts: list[str], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and attention mask of a batch, (batch, seq) each, padded on the right.

    Raises:
        EncodingError: the tokens of a sequence are not <cls>, one for each letter, and <eos>.
    """
    batch = _tokenizer()(texts, padding=True, return_tensors="pt", verbose=False)
    for text, count in zip(texts, batch["attention_mask"].sum(1).tolist(), strict=True):
        if count != len(text) + 2:
            raise EncodingError(f"{text[:20]}...: {len(text) + 2} tokens expected, {count} found")
    return batch["input_ids"].to(device), batch["attention_mask"].to(device)


@contextlib.contextmanager
def memory_explained(records: Sequence[FastaRecord]) -> Iterator[None]:
    """Turn "out of memory" in a batch of these records into an EncodingError with the way out."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        longest = max(records, key=lambda record: len(record.sequence))
        raise EncodingError(
            f"not enough memory for {len(records)} sequences of up to {len(longest.sequence)} nt "
            f"(the longest: {longest.id}); lower --batch-tokens, or leave out the longest ones "
            "(embed and fold divide them into windows by --long window)"
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    kinds = (torch.cuda.OutOfMemoryError, MemoryError)
    # The CPU's allocator raises a bare RuntimeError.
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def resolve_layer(layer: int, num_layers: int) -> int:
    """Return a layer counted from 0, the embeddings. Raises ValueError if there is none."""
    if not -num_layers - 1 <= layer <= num_layers:
        raise ValueError(
            f"the model has layers 0 (embeddings) to {num_layers}, or -{num_layers + 1} to -1 "
            f"from the end; there is no layer {layer}"
        )
    return int(layer) % (num_layers + 1)


@contextlib.contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Set the number of torch's threads for the duration of the block; None leaves it as it is."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)


def suitable_threads(config: Any, plan: Plan, chunk: Chunk) -> int:
    """Return how many threads the batches of a chunk keep busy, at most torch's own number.

    The last bits of sums depend on the number, so it depends on nothing that differs between runs.
    """
    tokens = plan.work(chunk.pieces) / max(1, len(chunk.batches))
    busy = int(tokens * config.hidden_size**2 / _LEAST_WORK)
    return max(1, min(busy, torch.get_num_threads()))
