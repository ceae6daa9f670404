"""`ernie-rna info`: what a model is, what runs it here, and what memory its scores take."""

from __future__ import annotations

import argparse
import importlib
import math
import platform
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_rna.cli.checks import check_model
from ernie_rna.cli.options import MODEL_HELP, new_parser

if TYPE_CHECKING:
    from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig

_DESCRIPTION = """\
Show versions, devices and optional packages; for a model also its configuration, parameters, the
types of its weights, the attention implementations that it takes, and how it would hold the
attention scores of sequences of some lengths: carried from layer to layer, in memory quadratic in
the length, or recomputed in each, in linear memory and more time. No weights are loaded.
"""
_EXAMPLES = """\
  ernie-rna info
  ernie-rna info -m ERNIE-RNA --lengths 1022,5000,20000 --device cuda
"""
_LENGTHS = (100, 1022, 4000, 16000)
# What `weights_origin` of a configuration means.
_ORIGINS = {
    None: "not stated",
    "random": "random, never trained: its answers mean nothing",
    "checkpoint": "converted from a checkpoint",
}
# Name and extra of each optional package.
_EXTRAS = {
    "dnaio": "io",
    "xopen": "io",
    "h5py": "hdf5",
    "pyarrow": "parquet",
    "matplotlib": "plot",
    "ViennaRNA": "vienna",
    "accelerate": "train",
    "ray": "ray",
}


def add_parser(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = new_parser(
        subparsers, "info", "versions, devices, a model and its memory", _DESCRIPTION, _EXAMPLES
    )
    parser.add_argument("-m", "--model", help=MODEL_HELP)
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    parser.add_argument(
        "--lengths",
        type=_lengths,
        default=_LENGTHS,
        metavar="NT,NT",
        help=f"nucleotides ({','.join(map(str, _LENGTHS))})",
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="sequences at once (1)")
    parser.add_argument("--device", default="auto", help="whose memory; auto prefers cuda")
    parser.set_defaults(run=run)


def _lengths(text: str) -> tuple[int, ...]:
    try:
        lengths = tuple(int(part) for part in text.split(","))
    except ValueError:
        lengths = ()
    if not lengths or min(lengths) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of lengths, as 100,1022")
    return lengths


def run(args: argparse.Namespace) -> int:
    """Print what the arguments ask for."""
    if args.batch < 1:
        raise ValueError(f"--batch must be at least 1; got {args.batch}")
    if args.model is not None:
        check_model(args.model, args.revision)
    # From here on seconds pass.
    from ernie_rna.run.loading import resolve_device

    device = resolve_device(args.device)
    config = None if args.model is None else load_config(args.model, args.revision)
    _print_section("versions", _versions())
    _print_section("here", _machine(device))
    if config is not None:
        _print_section("model", _model(args.model, config))
        _print_section(
            f"scores of {args.batch} at once in float32, on {device.type}",
            _memory(config, args.lengths, args.batch, device),
        )
    return 0


def load_config(model: str, revision: str | None = None) -> ErnieRnaConfig:
    """The configuration of a model in a folder or on the Hub.

    Raises:
        ValueError: it is that of another kind of model.
        OSError: there is none.
    """
    from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig

    try:
        values, _ = ErnieRnaConfig.get_config_dict(model, revision=revision or "main")
    except OSError as error:  # Its text may speak of the Hub alone.
        raise OSError(f"cannot read the configuration of {model!r}: {error}") from error
    if values.get("model_type") != ErnieRnaConfig.model_type:
        kind = values.get("model_type", "nothing")
        raise ValueError(f"{model} is no ERNIE-RNA: its configuration says {kind}")
    return ErnieRnaConfig.from_dict(values)


def _print_section(title: str, rows: Iterator[tuple[str, str]]) -> None:
    print(title)
    for name, value in rows:
        print(f"  {name:<22} {value}")


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    for name in ("ernie-rna", "torch", "transformers", "safetensors", "numpy"):
        yield name, _version(name) or "not installed"
    for name, extra in _EXTRAS.items():
        yield name, _version(name) or f'not installed: pip install "ernie-rna[{extra}]"'


def _version(name: str) -> str | None:
    if name == "ernie-rna":  # Found also where it runs from a checkout.
        return str(importlib.import_module("ernie_rna").__version__)
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _machine(device: Any) -> Iterator[tuple[str, str]]:
    import torch

    from ernie_rna.model.modeling_ernie_rna import free_memory

    yield "system", f"{platform.system()} {platform.machine()}"
    yield "threads of torch", str(torch.get_num_threads())
    for index in range(torch.cuda.device_count()):
        yield f"cuda:{index}", torch.cuda.get_device_name(index)
    yield f"free memory, {device.type}", _gigabytes(free_memory(device))


def _model(model: str, config: ErnieRnaConfig) -> Iterator[tuple[str, str]]:
    import torch

    from ernie_rna.model.attention_ernie_rna import ATTENTIONS
    from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM, ErnieRnaModel

    with torch.device("meta"):
        pooler: Any = ErnieRnaModel(config).pooler
        parameters = ErnieRnaForMaskedLM(config).num_parameters()
    if pooler is not None:
        parameters += sum(weight.numel() for weight in pooler.parameters())
    yield "name", model
    yield "layers, heads", f"{config.num_hidden_layers}, {config.num_attention_heads}"
    yield "width, feed-forward", f"{config.hidden_size}, {config.intermediate_size}"
    yield "vocabulary", str(config.vocab_size)
    limit = config.max_position_embeddings
    yield "made for", f"at most {limit} tokens, {limit - 2} nt with <cls> and <eos>"
    yield "layer norm", "before each block" if config.norm_first else "behind each residual sum"
    scores = (config.au_pairing_score, config.gc_pairing_score, config.gu_pairing_score)
    yield "pairing scores", "A-U {}, G-C {}, G-U {}".format(*scores)
    counted = "encoder and LM head" if pooler is None else "encoder, pooler and LM head"
    yield "parameters", f"{parameters:,} ({counted})"
    yield "weights", _dtypes(model)
    yield "their origin", _ORIGINS.get(config.weights_origin, str(config.weights_origin))
    names = ", ".join(sorted(ATTENTIONS, reverse=True))
    yield "attention", f"{names}; flash_attention_2 runs eager"
    yield "score_memory", config.score_memory


def _dtypes(model: str) -> str:
    """The types of the weights in a folder, by the header of the file."""
    from safetensors import safe_open

    files = sorted(Path(model).glob("*.safetensors")) if Path(model).is_dir() else []
    if not files:
        return "no safetensors file here"
    count: Counter[str] = Counter()
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # It is no dict.
                part = file.get_slice(name)
                count[part.get_dtype()] += math.prod(part.get_shape())
    return ", ".join(f"{numbers:,} in {dtype}" for dtype, numbers in count.most_common())


def _memory(
    config: ErnieRnaConfig, lengths: tuple[int, ...], batch: int, device: Any
) -> Iterator[tuple[str, str]]:
    """What `score_memory` comes to at inference, by the model's own rule."""
    import torch

    from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel

    with torch.device("meta"):
        model = ErnieRnaModel(config, add_pooling_layer=False)
    for length in lengths:
        tokens = length + 2
        hidden_states = torch.empty(1, device=device).expand(batch, tokens, 1)
        with torch.inference_mode():
            recompute = model._recomputes(hidden_states, [])
        carried = 4 * batch * config.num_attention_heads * tokens**2
        what = "recomputed" if recompute else "carried"
        yield f"{length} nt", f"{what}; carried they take {_gigabytes(carried)}"


def _gigabytes(size: float) -> str:
    return "unknown" if math.isinf(size) else f"{size / 1e9:.3g} GB"
