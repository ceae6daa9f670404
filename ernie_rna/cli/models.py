"""The commands for models and for what comes with them: convert, push, verify, info, examples."""

from __future__ import annotations

import argparse
import filecmp
import math
import platform
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

import ernie_rna
from ernie_rna import data
from ernie_rna.cli.arguments import argument, command, read_options, typed
from ernie_rna.conversion import hub
from ernie_rna.conversion.convert import ConvertOptions, Export
from ernie_rna.options import MODEL_HELP, ModelOptions, option, parse_numbers, whole
from ernie_rna.run.find_model import find_model
from ernie_rna.run.outputs import OutputError, full_disk_explained, replacing
from ernie_rna.run.progress import show_loading
from ernie_rna.sequences.fasta import read_fasta

if TYPE_CHECKING:
    from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig


@command(
    summary="convert a checkpoint into a folder for the Hub",
    arguments=(
        argument(
            "checkpoint CHECKPOINT",
            "a file or folder, USER/NAME on the Hub, or the address of a file",
        ),
        argument("out_dir OUT_DIR", "the folder to write"),
    ),
    options=ConvertOptions,
    interrupted="; OUT_DIR is as it was",
)
def convert(args: argparse.Namespace) -> int:
    """Convert a checkpoint of ERNIE-RNA into a folder that AutoModel.from_pretrained loads and that
    can be pushed to the Hub: configuration, weights, tokenizer, the model's code and a card.

    CHECKPOINT is one of
      - the authors' .pt file: pretrained, or fine-tuned for secondary structure, closeness or
        ribosome loading;
      - multimolecule/ernierna or multimolecule/ernierna-ss, the same weights on the Hugging Face
        Hub, which are fetched and kept in its cache (under AGPL-3.0 there; the authors publish them
        under MIT), or a folder with their model.safetensors and config.json;
      - the https address of such a file.
    The kind is recognised by the names of the weights. No code in the file is run. Unknown, missing
    and misshaped weights are errors; dropped weights are listed with the reason. OUT_DIR is written
    only after it has been loaded in a fresh process and compared. Every command then takes
    -m OUT_DIR; -m mini, which comes with the package, needs no conversion.

    examples:
      ernie-rna convert multimolecule/ernierna ERNIE-RNA
      ernie-rna convert ERNIE-RNA_pretrain.pt ERNIE-RNA
      ernie-rna convert ERNIE-RNA_ss_prediction.pt ERNIE-RNA-ss --pairing-scores zero
    """
    print("\n".join(_report(ernie_rna.convert(**typed(args)))))
    return 0


def _report(written: Export) -> Iterator[str]:
    """Lines that say what was read, how it was converted, and what was written."""
    conversion, source = written.conversion, written.conversion.source
    config, kind = conversion.config, conversion.kind
    origin = source.name if source.name != source.path.name else source.path
    yield f"read      {origin} ({source.kind}, names of {conversion.naming.name})"
    if written.terms or conversion.naming.name == "multimolecule":
        terms = f"its repository states {written.terms}" if written.terms else "AGPL-3.0"
        yield f"terms     {terms}; the authors publish the same weights under MIT"
    yield f"sha256    {source.sha256}"
    yield (
        f"model     {config.num_hidden_layers} layers, {config.num_attention_heads} heads, width "
        f"{config.hidden_size}, feed-forward {config.intermediate_size}, "
        f"{config.max_position_embeddings} tokens"
    )
    if kind:
        scores = f"pairing scores: {config.pairing_scores}"
        yield f"head      {kind.task} ({kind.model_class}), {scores}"
    if config.weights_origin == "random":
        yield "note      the weights are random; the model was never trained"
    yield from (f"note      {note}" for note in conversion.notes)
    lists = {"dropped": conversion.dropped, "initialised": conversion.initialised}
    for title, reasons in lists.items():
        if reasons:
            yield f"{title} ({len(reasons)}):"
            width = max(map(len, reasons))
            yield from (f"  {key:<{width}}  {reason}" for key, reason in reasons.items())
    yield f"wrote     {written.path}"
    yield (
        f"verified in a fresh process: {written.proof.tensors} weights equal bit for bit, outputs "
        f"within {written.proof.max_difference:.1e}"
    )


@command(
    summary="upload a model to the Hugging Face Hub",
    arguments=(
        argument("folder FOLDER", "the model with its code and tokenizer"),
        argument("repo_id USER/NAME", "the model repository, created if it does not exist"),
        argument("--dry-run", "list the files to upload; uses no network"),
        argument("--private", "make a new repository private"),
        argument("--revision BRANCH", "a branch other than main, created if it does not exist"),
    ),
)
def push(args: argparse.Namespace) -> int:
    """Upload a model to the Hugging Face Hub, after `hf auth login` or with HF_TOKEN set. FOLDER is
    the output of `ernie-rna convert` or `ernie-rna finetune`, or what save_pretrained of model and
    tokenizer wrote. A folder with missing or additional files is refused.

    examples:
      ernie-rna push ERNIE-RNA USER/NAME --dry-run
      ernie-rna push ERNIE-RNA USER/NAME --private
    """
    if "dry_run" not in args:
        print(f"uploaded: {hub.push(**typed(args))}")
        return 0
    files = hub.files_to_push(args.folder, args.repo_id)
    access, branch = "private" if "private" in args else "public", getattr(args, "revision", "main")
    print(f"would upload to {args.repo_id} ({access} if created, branch {branch}):")
    for name, size in files.items():
        print(f"  {size:>13,} bytes  {name}")
    print(f"  {sum(files.values()):>13,} bytes in {len(files)} files")
    return 0


@command(
    summary="compare a folder with the authors' model",
    arguments=(
        argument("folder FOLDER", "the output of `ernie-rna convert`", nargs="?"),
        argument("--checkpoint PATH", "the checkpoint it was converted from"),
        argument("--cls-embedding PATH.npy", "the published embeddings"),
        argument("--full-size", "measure the rounding error, with random weights"),
    ),
)
def verify(args: argparse.Namespace) -> int:
    """Compare a converted folder with what the authors published. Give at least one of:

      --checkpoint     compare the weights, bit for bit, with the checkpoint that FOLDER was made of
      --cls-embedding  compare the <cls> vectors with those in the authors' repository,
                       results/ernie_rna_representations/test_seqs/cls_embedding.npy
      --full-size      measure the rounding error of the hidden states of a model of the released
                       size against float64, for each matrix product that this machine runs; uses
                       random weights and the package's RNAs, so it needs no FOLDER

    The exit code is 1 if something differs or cannot be compared.

    examples:
      ernie-rna verify ERNIE-RNA --checkpoint ERNIE-RNA_pretrain.pt
      ernie-rna verify ERNIE-RNA --cls-embedding cls_embedding.npy
      ernie-rna verify --full-size
    """
    inputs = [name for name in ("folder", "checkpoint", "cls_embedding") if name in args]
    if not ("checkpoint" in args or "cls_embedding" in args or "full_size" in args):
        raise ValueError("nothing to compare: give --checkpoint, --cls-embedding or --full-size")
    if inputs and "folder" not in args:
        raise ValueError("name the FOLDER to compare, which `ernie-rna convert` wrote")
    if inputs == ["folder"]:
        raise ValueError(
            f"--full-size reads no folder: leave out {args.folder}, or compare it with "
            "--checkpoint or --cls-embedding"
        )
    for path in [getattr(args, name) for name in inputs]:
        if not Path(path).exists():
            raise FileNotFoundError(f"{path}: no such file or folder")

    with show_loading(None):
        from ernie_rna import verify
    equal = True
    if "full_size" in args:
        _print_full_size(verify.measure_full_size)
    if "checkpoint" in args:
        with show_loading(None, f"comparing with {args.checkpoint}"):
            equal = verify.has_weights_of(args.folder, args.checkpoint)
        relation = "equal" if equal else "differ from"
        print(f"the weights of {args.folder} {relation} those of {args.checkpoint}")
    if "cls_embedding" in args:
        with show_loading(None, f"comparing with {args.cls_embedding}"):
            differences = verify.compare_with_published(args.folder, args.cls_embedding)
        equal = _print_published(differences, verify.PUBLISHED_BAR) and equal
    return 0 if equal else 1


def _print_full_size(measure: Any) -> None:
    records = read_fasta(data.examples() / "rna.fasta")
    print("Full size, random weights: the error of all float32 hidden states against float64")
    print(f"{'product of the large matrices':<32}{'largest':>9}{'rms':>9}", flush=True)
    with show_loading(None, "measuring, a minute or less"):
        errors_by_product = measure(record.sequence for record in records)
    for product, errors in errors_by_product.items():
        print(f"{product:<32}" + "".join(f"{error:>9.1e}" for error in errors))


def _print_published(differences: dict[str, Any], bar: float) -> bool:
    """Print what `compare_with_published` returns; return whether it is within the bar."""
    print("Largest absolute difference of the <cls> vectors from the published ones, by layer:")
    print(f"{'':5}" + "".join(f"{case:>9}" for case in differences))
    columns = [difference.amax(0).tolist() for difference in differences.values()]
    for layer, row in enumerate(zip(*columns, strict=True), 1):
        print(f"{layer:>5}" + "".join(f"{value:>9.1e}" for value in row))
    worst = max(differences[attention].max().item() for attention in ("eager", "sdpa"))
    is_within: bool = worst <= bar
    print(f"{worst:.1e} is {'within' if is_within else 'more than'} the allowed {bar:.0e}")
    return is_within


# Extras that combine others, or that only developers of this package need.
_HIDDEN_EXTRAS = {"all", "demo", "bench", "browser", "dev", "docs"}
# What `weights_origin` of a configuration means.
_ORIGINS = {
    None: "not stated",
    "random": "random, never trained: its predictions mean nothing",
    "checkpoint": "converted from a checkpoint",
}


@dataclass(frozen=True, kw_only=True)
class InfoOptions(ModelOptions):
    """Options of `ernie-rna info`."""

    lengths: tuple[int, ...] = option(
        (100, 1022, 4000, 16000),
        "sequence lengths to show the memory for",
        check=lambda lengths: next(filter(None, map(whole(1, 10**9), lengths)), None),
        parse=parse_numbers,
        metavar="N,N",
    )
    batch: int = option(1, "sequences in a batch", check=whole(1, 10**9))


@command(
    summary="versions, devices, a model and its memory",
    arguments=(argument("-m --model MODEL", MODEL_HELP),),
    options=InfoOptions,
    leave_out=("dtype", "threads", "attention"),
)
def info(args: argparse.Namespace) -> int:
    """Show versions, devices and optional packages. With -m, also show the model's configuration,
    number of parameters, dtypes of the weights and attention implementations. For some lengths,
    show whether the attention scores are carried from layer to layer (memory quadratic in the
    length) or recomputed in each layer (linear memory, more time). No weights are loaded.

    examples:
      ernie-rna info
      ernie-rna info -m mini
      ernie-rna info -m ERNIE-RNA --lengths 1022,5000,20000 --device cuda
    """
    options = read_options(InfoOptions, args)
    source = find_model(args.model, options.revision) if "model" in args else None
    with show_loading(None):
        from ernie_rna.run.loading import read_config, resolve_device

    device = resolve_device(options.device)
    sections = {"versions": _versions(), "here": _machine(device)}
    if source is not None:
        config = read_config(source, options.revision)
        title = f"attention scores, batches of {options.batch}, float32, {device.type}"
        sections |= {"model": _model(source, config), title: _memory(config, options, device)}
    for title, rows in sections.items():
        print(title)
        for name, value in rows:
            print(f"  {name:<22} {value}")
    return 0


def _versions() -> Iterator[tuple[str, str]]:
    """Names and versions of the required packages and of those in each extra."""
    yield "ernie-rna", f"{ernie_rna.__version__}, python {platform.python_version()}"
    try:
        requirements = metadata.requires("ernie-rna") or []
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return
    packages: dict[str, list[str]] = defaultdict(list)
    for requirement in requirements:
        marker = re.search(r"extra == ['\"]([\w-]+)", requirement)
        packages[marker[1] if marker else ""].append(re.split(r"[^\w.-]", requirement)[0])
    rows = {extra: ", ".join(map(_with_version, names)) for extra, names in packages.items()}
    yield "needs", rows.pop("")
    rows = {extra: row for extra, row in rows.items() if extra not in _HIDDEN_EXTRAS}
    yield from ((f"extra {extra}", row) for extra, row in rows.items())
    missing = [extra for extra, row in rows.items() if " missing" in row]
    if missing:
        yield "to add what is missing", f'pip install "ernie-rna[{",".join(missing)}]"'


def _with_version(name: str) -> str:
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"{name} missing"


def _machine(device: Any) -> Iterator[tuple[str, str]]:
    import torch

    from ernie_rna.model.modeling_ernie_rna import free_memory
    from ernie_rna.run.estimate import in_bytes

    yield "system", f"{platform.system()} {platform.machine()}"
    yield "threads of torch", f"{torch.get_num_threads()}; small batches take fewer"
    for index in range(torch.cuda.device_count()):
        yield f"cuda:{index}", torch.cuda.get_device_name(index)
    free = free_memory(device)
    yield f"free memory, {device.type}", "unknown" if math.isinf(free) else in_bytes(free)


def _model(source: str, config: ErnieRnaConfig) -> Iterator[tuple[str, str]]:
    from ernie_rna.model.attention_ernie_rna import ATTENTIONS

    scores = (config.au_pairing_score, config.gc_pairing_score, config.gu_pairing_score)
    limit = config.max_position_embeddings
    yield "name", source
    yield "architectures", ", ".join(config.architectures or ["not stated"])
    yield "layers, heads", f"{config.num_hidden_layers}, {config.num_attention_heads}"
    yield "width, feed-forward", f"{config.hidden_size}, {config.intermediate_size}"
    yield "pretrained on", f"at most {limit} tokens: {limit - 2} nt, <cls> and <eos>"
    yield "layer norm", "before each block" if config.norm_first else "after each residual sum"
    yield "pairing scores", "A-U {}, G-C {}, G-U {}".format(*scores)
    yield "weights", _dtypes(source)
    yield "origin of weights", _ORIGINS.get(config.weights_origin, str(config.weights_origin))
    names = ", ".join(sorted(ATTENTIONS, reverse=True))
    yield "attention", f"{names}; flash_attention_2 runs eager"
    yield "score_memory", config.score_memory


def _dtypes(source: str) -> str:
    """The dtypes of the weights in a folder and the count of each, read from the file headers."""
    counts: Counter[str] = Counter()
    for path in Path(source).glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # It is not a dict.
                weight = file.get_slice(name)
                counts[weight.get_dtype()] += math.prod(weight.get_shape())
    texts = (f"{count:,} in {dtype}" for dtype, count in counts.most_common())
    return ", ".join(texts) or "no safetensors file here"


def _memory(config: ErnieRnaConfig, options: InfoOptions, device: Any) -> Iterator[tuple[str, str]]:
    """For each length, whether the model carries or recomputes its scores, and their memory."""
    import torch

    from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
    from ernie_rna.run.estimate import in_bytes

    with torch.device("meta"):
        model = ErnieRnaModel(config, add_pooling_layer=False)
    for length in options.lengths:
        tokens = length + 2
        hidden_states = torch.empty(1, device=device).expand(options.batch, tokens, 1)
        with torch.inference_mode():
            recomputed = model._recomputes(hidden_states, [])
        carried = in_bytes(4 * options.batch * config.num_attention_heads * tokens**2)
        state = "recomputed; carried, they would take" if recomputed else "carried; they take"
        yield f"{length} nt", f"{state} {carried}"


@command(
    summary="copy real RNAs with known structures",
    arguments=(
        argument("folder DIR", "folder to write (examples)", nargs="?"),
        argument("--force", "replace files that exist"),
    ),
)
def examples(args: argparse.Namespace) -> int:
    """Copy the example RNAs into a folder: rna.fasta, 14 real RNAs of 61 to 180 nt; rna.dbn, their
    known structures; README.md, which names their origin (Rfam, CC0); and RNase-P.fasta, .dbn and
    .shape, an RNA with the reactivities of an experiment (the Weeks Lab, MIT License). The README
    and the pages of the documentation use them.

    examples:
      ernie-rna examples
      ernie-rna fold examples/rna.fasta -m mini
    """
    source, folder = data.examples(), Path(getattr(args, "folder", "examples"))
    for name in data.EXAMPLE_FILES:
        target = folder / name
        differs = target.exists() and not filecmp.cmp(source / name, target, shallow=False)
        if differs and "force" not in args:
            raise OutputError(f"{target} exists and differs from the example; --force replaces it")
    folder.mkdir(parents=True, exist_ok=True)
    for name in data.EXAMPLE_FILES:
        with full_disk_explained(folder / name), replacing(folder / name) as path:
            shutil.copyfile(source / name, path)
        print(folder / name)
    return 0
