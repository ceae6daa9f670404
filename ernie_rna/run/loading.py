"""Loads a model for inference, and what every use of it needs: device, threads, tokens, memory."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import transformers
from packaging.version import Version
from safetensors import safe_open
from transformers.utils import cached_file

from ernie_rna.data import MINI
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import (
    ErnieRnaForMaskedLM,
    ErnieRnaModel,
    ErnieRnaPreTrainedModel,
)
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from ernie_rna.sequences.fasta import FastaRecord

_AnyModel = TypeVar("_AnyModel", bound=ErnieRnaPreTrainedModel)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class EncodingError(RuntimeError):
    """A sequence cannot be computed; the message names it."""


def not_finite(what: str, model: Any) -> EncodingError:
    """What to raise where a result of a model is NaN or infinite."""
    dtype = str(model.dtype).removeprefix("torch.")
    return EncodingError(
        f"{what} is not finite (NaN or infinity); the model or its dtype, {dtype}, is at fault"
    )


def resolve_device(device: str) -> torch.device:
    """The device by its name in torch; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ValueError: there is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.zeros(1, device=resolved).item()
    except (RuntimeError, AssertionError, ImportError) as error:  # Torch without CUDA asserts.
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise ValueError(f"device {device!r} cannot be used: {reason}") from error
    return resolved


def load_model(
    model: str | PathLike[str] | ErnieRnaModel,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    attention: str | None = None,
) -> ErnieRnaModel:
    """Load the encoder for inference, from a folder or the Hub.

    Args:
        model: folder, Hub id, or a model. What of it the other arguments name is changed in
            place, the rest left as it is.
        revision: branch, tag or commit on the Hub.
        dtype: name of the type that it computes in, a key of `DTYPES`; None is "float32".
        device: where it computes, see `resolve_device`; None is "auto".
        attention: "sdpa" or "eager"; None is "sdpa".

    Raises:
        ValueError: the dtype is unknown, or what is loaded is damaged or lacks weights of an
            ERNIE-RNA.
        OSError: there is no such model.
    """
    return _load(ErnieRnaModel, model, revision, dtype, device, attention, add_pooling_layer=False)


def load_masked_lm(
    model: str | PathLike[str] | ErnieRnaForMaskedLM,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    attention: str | None = None,
) -> ErnieRnaForMaskedLM:
    """Load the encoder with its language-model head; otherwise as `load_model`."""
    return _load(ErnieRnaForMaskedLM, model, revision, dtype, device, attention)


def load_head(
    kind: type[_AnyModel],
    model: str | PathLike[str] | _AnyModel,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    attention: str | None = None,
) -> _AnyModel:
    """Load the encoder with a head of this class; otherwise as `load_model`."""
    return _load(kind, model, revision, dtype, device, attention)


def class_names(model: object, revision: str | None = None) -> list[str]:
    """The classes that a folder's configuration names as its own, or those of a model.

    Raises:
        OSError: there is no such model.
    """
    if not isinstance(model, (str, PathLike)):
        return [base.__name__ for base in type(model).__mro__]
    with _named(model):
        config = ErnieRnaConfig.from_pretrained(fspath(model), revision=revision or "main")
        return list(config.architectures or ())


@contextlib.contextmanager
def _named(model: str | PathLike[str]) -> Iterator[None]:
    """Name the model in an OSError, whose text may speak of the Hub alone, and in a ValueError,
    which is what all else becomes that the libraries raise for damaged files."""
    what = f"cannot load the model {fspath(model)!r}"
    if model == MINI and not Path(MINI).exists():
        raise OSError(f"{what}: no folder; ernie_rna.mini() is the model that comes with ernie-rna")
    try:
        yield
    except OSError as error:
        raise OSError(f"{what}: {error}") from error
    except (ImportError, MemoryError):
        raise
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    except Exception as error:
        raise ValueError(
            f"{what}: damaged, or its config.json is another model's "
            f"({type(error).__name__}: {error})"
        ) from error


def _check_layers(model: str, revision: str) -> None:
    """Raise ValueError for more layers than there are weights, which would be built for ever."""
    try:
        path = cached_file(model, "model.safetensors", revision=revision)
    except OSError:
        return  # In shards, or not there, as `from_pretrained` tells.
    config = ErnieRnaConfig.from_pretrained(model, revision=revision)
    layers = max(config.num_hidden_layers, config.pair_blocks, config.loading_blocks)
    with safe_open(path, framework="pt") as file:
        weights = len(file.keys())
    if layers > weights:
        raise ValueError(f"config.json asks for {layers} layers or blocks of {weights} weights")


def _load(
    kind: type[_AnyModel],
    model: str | PathLike[str] | _AnyModel,
    revision: str | None,
    dtype: str | None,
    device: str | None,
    attention: str | None,
    **arguments: Any,
) -> _AnyModel:
    if dtype not in {None, *DTYPES}:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    if _is_a(model, kind):
        return _adjust(cast(_AnyModel, model), dtype, device, attention)
    if not isinstance(model, (str, PathLike)):
        raise TypeError(f"expected a folder, a Hub id or an {kind.__name__}; got {type(model)}")
    target = resolve_device(device or "auto")
    # `torch_dtype` became `dtype` in 4.56.
    name = "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"
    load: Any = kind.from_pretrained  # Its type knows nothing of the loading info.
    arguments |= {
        name: DTYPES[dtype or "float32"],
        "revision": revision or "main",
        "attn_implementation": attention or "sdpa",
    }
    with _named(model), without_report():
        _check_layers(fspath(model), arguments["revision"])
        loaded, info = load(fspath(model), output_loading_info=True, **arguments)
    missing = sorted(info["missing_keys"])
    if missing and all(key.startswith("lm_head.") for key in missing):
        named = ", ".join(loaded.config.architectures or ["a model"])
        raise ValueError(
            f"{fspath(model)} has no language-model head, which this needs: it is {named}; take "
            "the pretrained model, as `ernie-rna convert` makes it of ERNIE-RNA_pretrain.pt, or "
            "save an ErnieRnaForMaskedLM"
        )
    if missing:
        raise ValueError(
            f"{fspath(model)} is no ERNIE-RNA for transformers: it lacks {len(missing)} weights, "
            f"among them {missing[0]}; `ernie-rna convert` makes one of the authors' checkpoint"
        )
    if loaded.config.weights_origin == "random":
        warnings.warn(
            f"{fspath(model)} has random weights, which were never trained: what follows means "
            "nothing",
            stacklevel=3,
        )
    result: _AnyModel = loaded.to(target).eval()
    return result


@contextlib.contextmanager
def without_report() -> Iterator[None]:
    """Without transformers' table of weights that are missing: errors of ours tell of them."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)


def _is_a(model: object, kind: type) -> bool:
    """Whether it is of this class, or of the copy that `trust_remote_code` made of its code."""
    return any(base.__name__ == kind.__name__ for base in type(model).__mro__)


def _adjust(
    model: _AnyModel, dtype: str | None, device: str | None, attention: str | None
) -> _AnyModel:
    if attention is not None:
        model.set_attn_implementation(attention)
    module: Any = model  # transformers types `to` as that of another class.
    if dtype is not None:
        module.to(DTYPES[dtype])
    if device is not None:
        module.to(resolve_device(device))
    module.eval()
    return model


@cache
def _tokenizer() -> ErnieRnaTokenizer:
    return ErnieRnaTokenizer()


def tokenize(texts: list[str], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask of a batch, (batch, seq) each, padded on the right.

    Raises:
        EncodingError: a sequence has not a token a letter, <cls> and <eos>.
    """
    batch = _tokenizer()(texts, padding=True, return_tensors="pt", verbose=False)
    for text, found in zip(texts, batch["attention_mask"].sum(1).tolist(), strict=True):
        if found != len(text) + 2:
            raise EncodingError(f"{text[:20]}...: {len(text) + 2} tokens expected, {found} found")
    return batch["input_ids"].to(device), batch["attention_mask"].to(device)


@contextlib.contextmanager
def memory_explained(records: Sequence[FastaRecord]) -> Iterator[None]:
    """Turn "out of memory" in a batch of these records into an EncodingError with the way out."""
    try:
        yield
    except (torch.cuda.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, EncodingError) or not is_out_of_memory(error):
            raise
        longest = max(records, key=lambda record: len(record.sequence))
        raise EncodingError(
            f"not enough memory for {len(records)} sequences of up to {len(longest.sequence)} nt "
            f"(the longest: {longest.id}); lower --batch-tokens, or leave out the longest ones "
            "(embed takes them in parts by --long window)"
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    kinds = (torch.cuda.OutOfMemoryError, MemoryError)
    # The CPU's allocator raises a bare RuntimeError.
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def resolve_layer(layer: int, num_layers: int) -> int:
    if not -num_layers - 1 <= layer <= num_layers:
        raise ValueError(
            f"the model has layers 0 (embeddings) to {num_layers}, or -{num_layers + 1} to -1 "
            f"from the end; there is no layer {layer}"
        )
    return layer % (num_layers + 1)


def run_head(model: Any, texts: list[str], pairing_scores: str | None) -> Any:
    """The outputs of a model with a head on sequences, padded together."""
    return run_on_tokens(model, *tokenize(texts, model.device), pairing_scores)


@torch.inference_mode()
def run_on_tokens(
    model: Any, input_ids: Tensor, attention_mask: Tensor, pairing_scores: str | None
) -> Any:
    """The outputs of a model with a head.

    Args:
        input_ids, attention_mask: (batch, seq).
        pairing_scores: as for `attention_scores.use_pairing_scores`.
    """
    with use_pairing_scores(model, pairing_scores):
        return model(input_ids=input_ids, attention_mask=attention_mask)


def map_width(config: Any) -> float:
    """The width for `batches.work` that makes it count a pair head beside the encoder.

    Multiplications: of the encoder for each token, of the head for each entry of a map.
    """
    hidden, channels = config.hidden_size, config.pair_channels
    layer = 4 * hidden**2 + 2 * hidden * config.intermediate_size
    block = 2 * 9 * channels**2
    entry = config.pair_blocks * block + 49 * 8 * channels + 9 * channels
    of_scores = 1 / (4 * hidden)
    return 1 / (4 * (of_scores + entry / (config.num_hidden_layers * layer)))
