"""Verification of a converted folder: its weights, the published vectors and the rounding error."""

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
from ernie_rna.conversion.folder import weight_files
from ernie_rna.conversion.weights import convert_weights
from ernie_rna.model.configuration_ernie_rna import HEAD_MODELS, ErnieRnaConfig
from ernie_rna.model.layers_ernie_rna import runs_onednn
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from ernie_rna.run.loading import has_head, read_config, tokenize, without_report

# The test sequences of the authors' repository (github.com/Bruce-ywj/ERNIE-RNA, commit 9ba4da1,
# data/test_seqs.txt). Both consist of A, C, G and U, so it does not matter that their
# extract_embedding.py turns every other letter into `<unk>`.
SEQUENCES = {
    "5S rRNA": (
        "GCUGUCGGUCAUACUGCGUCGAAUACACCGGAUCCCUUCAGACCUCCGAAGUUAAGCGGCGCAAGGCCCGGUUAGUACUUGGGUGGGGGACU"
        "CCCAGGGAAUACCCUCGGGUGCUGACAGCUUU"
    ),
    "arginine tRNA": (
        "GGCGCGGUACCCAAGUGGUAAGGGAGAGGUCUGCAAAACCUUUAUGCGUCGGUUCGAUUCCGACCCGCGCCUCCA"
    ),
}
# The authors do not state the device of the published vectors; another device or another library
# rounds differently. An error in the model causes differences of 1e-2 and more.
PUBLISHED_BAR = 1e-4


class VerifyError(ValueError):
    """A folder or a file cannot be compared; the message says why."""


def has_weights_of(folder: str | Path, checkpoint: str | Path) -> bool:
    """Whether a folder holds exactly the weights of a checkpoint, bit for bit.

    Raises:
        VerifyError: there is no such folder, or it lacks weights.
        CheckpointError: the checkpoint cannot be read or converted.
    """
    weights: dict[str, torch.Tensor] = {}
    for path in (Path(folder, name) for name in weight_files(Path(folder))):
        if not path.is_file():
            message = f"not a folder with {path.name}; convert a checkpoint into it"
            raise VerifyError(f"{folder}: {message}")
        weights |= load_file(path) if path.suffix == ".safetensors" else {}
    expected = convert_weights(read_checkpoint(checkpoint)).state_dict
    return weights.keys() == expected.keys() and all(
        torch.equal(weight, expected[name]) for name, weight in weights.items()
    )


def load_own(folder: str | Path, reference: str) -> Any:
    """Load a folder by a class of the code in it; `reference` names the class, MODULE.CLASS.

    Raises:
        VerifyError: the folder does not exist, or has no weights or no code.
    """
    try:
        class_in_folder: Any = get_class_from_dynamic_module(reference, str(folder))
        return class_in_folder.from_pretrained(folder)
    except OSError as error:
        raise VerifyError(f"{folder}: the model or its code is missing ({error})") from error


def compare_with_published(folder: str | Path, path: str | Path) -> dict[str, torch.Tensor]:
    """Compare `<cls>` vectors, computed by the folder's own code, with those the authors published.

    The published file is results/ernie_rna_representations/test_seqs/cls_embedding.npy in their
    repository: the output of extract_embedding.py (commit b4c3a9c) for each of `SEQUENCES` alone,
    (sequences, layers, hidden), float32 values stored as float64, after each layer, first to last.

    Returns:
        The largest absolute differences (sequences, layers): of "eager" and "sdpa", which
        `PUBLISHED_BAR` bounds, and, for comparison, of the same weights in "float64".

    Raises:
        VerifyError: the folder has no pretrained model, or as `read_cls_embedding`.
    """
    if has_head(str(folder), read_config(str(folder)), *HEAD_MODELS):
        raise VerifyError(
            f"the published vectors are the pretrained model's; {folder} is fine-tuned"
        )
    with without_report():
        model = load_own(folder, "modeling_ernie_rna.ErnieRnaModel").eval()
    shape = len(SEQUENCES), model.config.num_hidden_layers, model.config.hidden_size
    published = read_cls_embedding(path, shape)
    computed = {}
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        computed[attention] = cls_embedding(model)
    computed["float64"] = cls_embedding(model.double())
    return {case: (vectors - published).abs().amax(dim=-1) for case, vectors in computed.items()}


def cls_embedding(model: Any) -> torch.Tensor:
    """The model's `<cls>` vectors of `SEQUENCES`, (sequences, layers, hidden), in float64."""
    return torch.stack([_hidden_states(model, text)[1:, 0] for text in SEQUENCES.values()])


def read_cls_embedding(path: str | Path, shape: tuple[int, int, int]) -> torch.Tensor:
    """Read published `<cls>` vectors; nothing in the file is run.

    Args:
        path: a .npy file.
        shape: the required (sequences, layers, hidden).

    Raises:
        VerifyError: the file cannot be read, or holds something else.
    """
    try:
        # Memory-mapped, so that a damaged header cannot request more memory than the file takes.
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # A damaged header can raise almost any error.
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
    """Measure the error of float32 hidden states, all layers, against the same weights in float64.

    Args:
        sequences: RNAs, each run alone by a model with random weights from a fixed seed.
        config: defaults to the released size.

    Returns:
        The largest and the root-mean-square error for each matrix product that this CPU can run,
        by name: "PyTorch's" and "oneDNN's", see `layers_ernie_rna.product`.
    """
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(0)
        model = ErnieRnaModel(config or ErnieRnaConfig(), add_pooling_layer=False).eval()
        linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
        onednn = any(runs_onednn(linear, linear.weight) for linear in linears)
    double_model, texts = copy.deepcopy(model).double(), list(sequences)
    expected = torch.cat([_hidden_states(double_model, text).flatten() for text in texts])
    errors_by_product = {}
    mkldnn: Any = torch.backends.mkldnn
    enabled = mkldnn.enabled
    try:
        for product in ["PyTorch's", "oneDNN's"] if onednn else ["PyTorch's"]:
            # The switch that users have. `mkldnn.flags` would also set TF32; without a GPU, torch
            # warns about that.
            mkldnn.enabled = product == "oneDNN's"
            errors = torch.cat([_hidden_states(model, text).flatten() for text in texts]) - expected
            rms = errors.square().mean().sqrt().item()
            errors_by_product[product] = errors.abs().max().item(), rms
    finally:
        mkldnn.enabled = enabled
    return errors_by_product


def _hidden_states(model: Any, sequence: str) -> torch.Tensor:
    """The hidden states of a sequence, (layers + 1, seq, hidden), in float64."""
    inputs = tokenize([sequence], torch.device("cpu"))
    with torch.no_grad():
        return torch.cat(model(*inputs, output_hidden_states=True).hidden_states).double()
