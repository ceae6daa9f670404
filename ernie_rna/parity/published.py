"""Compares the released model with the embeddings that its authors published beside their code.

Their repository (github.com/Bruce-ywj/ERNIE-RNA) holds two test sequences, data/test_seqs.txt
(commit 9ba4da1), and what extract_embedding.py (commit b4c3a9c) made from them,
results/ernie_rna_representations/test_seqs/cls_embedding.npy: float64 holding float32 values,
(sequence, layer, hidden), the `<cls>` embedding behind each layer, first to last, of each
sequence run alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ernie_rna.parity.differences import Difference
from ernie_rna.parity.golden import ParityError, Sample
from ernie_rna.parity.models import Models

# Both hold A, C, G and U only, so that it plays no role that extract_embedding.py makes `<unk>`
# of every other letter.
SEQUENCES = {
    "5S rRNA": (
        "GCUGUCGGUCAUACUGCGUCGAAUACACCGGAUCCCUUCAGACCUCCGAAGUUAAGCGGCGCAAGGCCCGGUUAGUACUUGGGUGGGGGACU"
        "CCCAGGGAAUACCCUCGGGUGCUGACAGCUUU"
    ),
    "arginine tRNA": (
        "GGCGCGGUACCCAAGUGGUAAGGGAGAGGUCUGCAAAACCUUUAUGCGUCGGUUCGAUUCCGACCCGCGCCUCCA"
    ),
}

# On what device they were made is not stated; another one, or another library, rounds
# differently. An error of the model shows as 1e-2 and more.
PUBLISHED_BAR = 1e-4


def read_cls_embedding(path: str | Path, shape: tuple[int, int, int]) -> torch.Tensor:
    """Read published `<cls>` embeddings; nothing in the file is run.

    Args:
        path: a .npy file.
        shape: (sequences, layers, hidden) that it must have.

    Raises:
        ParityError: it is no such file.
    """
    try:
        # Mapped, so that a damaged header cannot ask for more memory than the file has.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise ParityError(f"{path}: cannot be read ({error})") from error
    except Exception as error:  # A damaged header or archive raises nearly anything.
        raise ParityError(f"{path}: not a numpy array of numbers ({error})") from error
    if not isinstance(array, np.ndarray):
        raise ParityError(f"{path}: an archive of arrays (.npz), not one array")
    if array.shape != shape:
        raise ParityError(
            f"{path}: has shape {array.shape}, for this model it must be (sequences, layers, "
            f"hidden) = {shape}"
        )
    if array.dtype.kind != "f":
        raise ParityError(f"{path}: holds {array.dtype}, not floating-point numbers")
    return torch.from_numpy(np.array(array, dtype=np.float64))


def compare_with_published(models: Models, path: str | Path) -> list[Difference]:
    """The differences of each layer's `<cls>` embedding from the published ones, by attention.

    Also those of float64 from the published ones, which only inform.

    Raises:
        ParityError: see `read_cls_embedding`.
    """
    config = models.encoder.config
    published = read_cls_embedding(
        path, (len(SEQUENCES), config.num_hidden_layers, config.hidden_size)
    )
    differences = _differ("float64", models.double(), published, None)
    for attention in ("eager", "sdpa"):
        models.use(attention)
        differences += _differ(attention, models, published, PUBLISHED_BAR)
    return differences


def cls_embedding(models: Models) -> torch.Tensor:
    """Our `<cls>` embeddings of the published sequences, (sequences, layers, hidden)."""
    embeddings = []
    for name, sequence in SEQUENCES.items():
        ids = torch.tensor(models.tokenizer(sequence).input_ids)
        (output,) = models.run_alone([Sample(name, ids)])
        states = range(1, models.encoder.config.num_hidden_layers + 1)
        embeddings.append(torch.stack([output[f"hidden state {i}"][0] for i in states]))
    return torch.stack(embeddings)


def _differ(
    case: str, models: Models, published: torch.Tensor, bar: float | None
) -> list[Difference]:
    values = (cls_embedding(models).double() - published).abs().amax(dim=-1)
    return [
        Difference(case, f"layer {layer}", name, value, bar)
        for name, row in zip(SEQUENCES, values.tolist(), strict=True)
        for layer, value in enumerate(row, start=1)
    ]
