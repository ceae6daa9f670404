"""What whoever has a converted folder can verify: its weights, the published vectors, rounding."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from ernie_rna.conversion.checkpoint import read_checkpoint
from ernie_rna.conversion.weights import convert_weights
from ernie_rna.model.configuration_ernie_rna import HEAD_MODELS, ErnieRnaConfig
from ernie_rna.model.layers_ernie_rna import runs_onednn
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from ernie_rna.run.loading import has_head, read_config, tokenize, without_report

# The test sequences of the authors' repository (github.com/Bruce-ywj/ERNIE-RNA, commit 9ba4da1,
# data/test_seqs.txt). Both hold A, C, G and U only, so that it plays no role that their
# extract_embedding.py makes `<unk>` of every other letter.
SEQUENCES = {
    "5S rRNA": (
        "GCUGUCGGUCAUACUGCGUCGAAUACACCGGAUCCCUUCAGACCUCCGAAGUUAAGCGGCGCAAGGCCCGGUUAGUACUUGGGUGGGGGACU"
        "CCCAGGGAAUACCCUCGGGUGCUGACAGCUUU"
    ),
    "arginine tRNA": (
        "GGCGCGGUACCCAAGUGGUAAGGGAGAGGUCUGCAAAACCUUUAUGCGUCGGUUCGAUUCCGACCCGCGCCUCCA"
    ),
}
# On what device the published vectors were made is not stated; another one, or another library,
# rounds differently. An error of the model shows as 1e-2 and more.
PUBLISHED_BAR = 1e-4


class VerifyError(ValueError):
    """A folder or a file cannot be compared; the message says why."""


def has_weights_of(folder: str | Path, checkpoint: str | Path) -> bool:
    """Whether a folder holds exactly the weights of a checkpoint, bit for bit.

    Raises:
        VerifyError: there is no such folder.
        CheckpointError: the checkpoint cannot be read or converted.
    """
    path = Path(folder, "model.safetensors")
    if not path.is_file():
        raise VerifyError(f"{folder}: no folder with {path.name}; convert a checkpoint into it")
    weights, theirs = load_file(path), convert_weights(read_checkpoint(checkpoint)).state_dict
    return weights.keys() == theirs.keys() and all(
        torch.equal(weight, theirs[name]) for name, weight in weights.items()
    )


def load_own(folder: str | Path, reference: str) -> Any:
    """What a class in a folder, MODULE.CLASS, loads from that folder, by its own code.

    Raises:
        VerifyError: there is no such folder, or it lacks weights or code.
    """
    try:
        own_class: Any = get_class_from_dynamic_module(reference, str(folder))
        return own_class.from_pretrained(folder)
    except OSError as error:
        raise VerifyError(f"{folder}: lacks the model or its code ({error})") from error


def compare_with_published(folder: str | Path, path: str | Path) -> dict[str, torch.Tensor]:
    """How far `<cls>` vectors are from those that the authors published, by the folder's own code.

    Their repository holds what extract_embedding.py (commit b4c3a9c) made of `SEQUENCES`, each run
    alone, in results/ernie_rna_representations/test_seqs/cls_embedding.npy: float64 holding float32
    values, (sequence, layer, hidden), behind each layer, first to last.

    Returns:
        The largest differences (sequences, layers) of "eager" and "sdpa", which `PUBLISHED_BAR`
        bounds, and, to compare, of the same weights in "float64".

    Raises:
        VerifyError: the folder holds no such model, or see `read_cls_embedding`.
    """
    if has_head(str(folder), read_config(str(folder)), *HEAD_MODELS):
        raise VerifyError(
            f"the published vectors are the pretrained model's; {folder} is fine-tuned"
        )
    with without_report():
        model = load_own(folder, "modeling_ernie_rna.ErnieRnaModel").eval()
    shape = len(SEQUENCES), model.config.num_hidden_layers, model.config.hidden_size
    published = read_cls_embedding(path, shape)
    found = {}
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        found[attention] = cls_embedding(model)
    found["float64"] = cls_embedding(model.double())
    return {case: (ours - published).abs().amax(dim=-1) for case, ours in found.items()}


def cls_embedding(model: Any) -> torch.Tensor:
    """Our vectors of the published sequences, (sequences, layers, hidden), in float64."""
    return torch.stack([_hidden_states(model, text)[1:, 0] for text in SEQUENCES.values()])


def read_cls_embedding(path: str | Path, shape: tuple[int, int, int]) -> torch.Tensor:
    """Read published `<cls>` vectors; nothing in the file is run.

    Args:
        path: a .npy file.
        shape: (sequences, layers, hidden) that it must have.

    Raises:
        VerifyError: it is no such file.
    """
    try:
        # Mapped, so that a damaged header cannot ask for more memory than the file has.
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # A damaged header raises nearly anything.
        raise VerifyError(f"{path}: not a numpy array of numbers, .npy ({error})") from error
    if array.shape != shape or array.dtype.kind != "f":
        raise VerifyError(
            f"{path}: holds {array.dtype} of shape {array.shape}; for this model it must be "
            f"floating-point numbers of (sequences, layers, hidden) = {shape}"
        )
    return torch.from_numpy(np.array(array, dtype=np.float64))


def measure_full_size(
    sequences: Iterable[str], config: ErnieRnaConfig | None = None
) -> dict[str, tuple[float, float]]:
    """The error of float32 hidden states, all layers, against the same weights in float64.

    Args:
        sequences: RNAs, each run alone, by a model with random weights of a fixed seed.
        config: None is the released size.

    Returns:
        By what multiplies large matrices, of what runs on this CPU ("PyTorch's", "oneDNN's", see
        `layers_ernie_rna.product`): the largest error, and the root of the mean square.
    """
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(0)
        model = ErnieRnaModel(config or ErnieRnaConfig(), add_pooling_layer=False).eval()
        linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
        onednn = any(runs_onednn(linear, linear.weight) for linear in linears)
    exact, texts = copy.deepcopy(model).double(), list(sequences)
    expected = torch.cat([_hidden_states(exact, text).flatten() for text in texts])
    found = {}
    mkldnn: Any = torch.backends.mkldnn
    enabled = mkldnn.enabled
    try:
        for product in ["PyTorch's", "oneDNN's"] if onednn else ["PyTorch's"]:
            # The users' switch. `flags` sets TF32 as well, of which torch without a GPU warns.
            mkldnn.enabled = product == "oneDNN's"
            errors = torch.cat([_hidden_states(model, text).flatten() for text in texts]) - expected
            found[product] = errors.abs().max().item(), errors.square().mean().sqrt().item()
    finally:
        mkldnn.enabled = enabled
    return found


def _hidden_states(model: Any, sequence: str) -> torch.Tensor:
    """(layers + 1, seq, hidden) in float64."""
    inputs = tokenize([sequence], torch.device("cpu"))
    with torch.no_grad():
        return torch.cat(model(*inputs, output_hidden_states=True).hidden_states).double()
