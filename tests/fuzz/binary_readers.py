"""Checkpoints, reference values and our own outputs."""

import argparse
import contextlib
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ernie_rna.conversion.checkpoint import CheckpointError, read_checkpoint
from ernie_rna.conversion.names import MULTIMOLECULE, VOCABULARIES
from ernie_rna.conversion.weights import convert_weights
from ernie_rna.embeddings.embed import embed
from ernie_rna.embeddings.formats import read_embeddings
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM, ErnieRnaModel
from ernie_rna.run.outputs import OutputError
from ernie_rna.sequences.fasta import InputError
from ernie_rna.verify import VerifyError, read_cls_embedding
from tests.conversion.test_weights import their_names
from tests.fuzz import mutations
from tests.fuzz.reader import Reader

GOLDEN = Path(__file__).parents[1] / "golden"

# ---------------------------------------------------------------------------------------------
# Checkpoints


def _small_config() -> ErnieRnaConfig:
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "intermediate_size": 8}
    return ErnieRnaConfig(**sizes, num_attention_heads=2, max_position_embeddings=66)


def _small_weights() -> dict[str, torch.Tensor]:
    """Random weights under our names, with the pooler."""
    torch.manual_seed(0)
    config = _small_config()
    pooler = ErnieRnaModel(config).state_dict(prefix="ernie_rna.")
    weights = {**pooler, **ErnieRnaForMaskedLM(config).state_dict()}
    del weights["lm_head.decoder.weight"]  # tied
    return {name: weight.clone() for name, weight in weights.items()}


def _small_fairseq() -> dict[str, object]:
    args = argparse.Namespace(
        arch="ernie_rna", encoder_layers=1, encoder_embed_dim=12, lr=[1e-4], dropout=0.1
    )
    return {"args": args, "model": their_names(_small_weights()), "best_loss": None}


def _torch_seeds(folder: Path, legacy: bool) -> list[bytes]:
    path = folder / "seed.pt"
    torch.save(_small_fairseq(), path, _use_new_zipfile_serialization=not legacy)
    small = path.read_bytes()
    golden = GOLDEN / "tiny_fairseq_cfg.pt"
    if not legacy:
        return [*[small] * 30, golden.read_bytes()]
    content = torch.load(golden, weights_only=False)  # the golden files are our own
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return [*[small] * 30, path.read_bytes()]


def _multimolecule_folder(folder: Path) -> None:
    """The small weights as MultiMolecule would hold them, beside which the settings lie."""
    state = their_names(_small_weights(), MULTIMOLECULE, "model.")
    for name, weight in state.items():
        if weight.shape[:1] == (25,):
            state[name] = torch.cat([weight, weight[:1]])  # its vocabulary has 26 tokens
    save_file(state, folder / "model.safetensors")


_SETTINGS = {
    "model_type": "ernierna",
    "num_hidden_layers": 1,
    "hidden_size": 12,
    "max_position_embeddings": 68,
    "hidden_dropout": 0.1,
    "layer_norm_eps": 1e-12,
    "pairwise_alpha": 0.8,
    "vocab_size": 26,
    "hidden_act": "gelu",
}


def _settings_seeds(folder: Path) -> list[bytes]:
    _multimolecule_folder(folder)
    return [json.dumps(_SETTINGS, indent=indent).encode() for indent in (None, 2)]


def _vocabulary_seeds(folder: Path) -> list[bytes]:
    _multimolecule_folder(folder)
    return ["\n".join(VOCABULARIES[26]).encode()]


def _safetensors_seeds(folder: Path) -> list[bytes]:
    path = folder / "seed.safetensors"
    save_file(their_names(_small_weights()), path)
    return [path.read_bytes()]


def _convert(path: Path) -> object:
    whole = path.name in ("config.json", "vocab.txt")
    conversion = convert_weights(read_checkpoint(path.parent if whole else path))
    assert all(torch.isfinite(weight).all() for weight in conversion.state_dict.values())
    return conversion


_CHECKPOINTS = (
    Reader(
        "checkpoint, torch zip",
        "in.pt",
        partial(_torch_seeds, legacy=False),
        _convert,
        (CheckpointError,),
        mutations.within_zip,
    ),
    Reader(
        "checkpoint, torch before 1.6",
        "in.pt",
        partial(_torch_seeds, legacy=True),
        _convert,
        (CheckpointError,),
    ),
    Reader(
        "checkpoint, safetensors",
        "in.safetensors",
        _safetensors_seeds,
        _convert,
        (CheckpointError,),
        mutations.within_header,
    ),
    Reader("checkpoint, config.json", "config.json", _settings_seeds, _convert, (CheckpointError,)),
    Reader("checkpoint, vocab.txt", "vocab.txt", _vocabulary_seeds, _convert, (CheckpointError,)),
)


# ---------------------------------------------------------------------------------------------
# Reference values of the parity tests


def _published_seeds(folder: Path) -> list[bytes]:
    import numpy as np

    np.save(folder / "seed.npy", np.ones((2, 3, 4)))
    return [(folder / "seed.npy").read_bytes()]


_REFERENCES = (
    Reader(
        "published values, .npy",
        "in.npy",
        _published_seeds,
        partial(read_cls_embedding, shape=(2, 3, 4)),
        (VerifyError,),
    ),
)


# ---------------------------------------------------------------------------------------------
# Our own outputs

_RNA = {"a": "GGGAAACCC", "b-é": "ACGU", "c": "ACGUN" * 5}


def small_encoder() -> ErnieRnaModel:
    torch.manual_seed(0)
    return ErnieRnaModel(_small_config(), add_pooling_layer=False).eval()


def _embedding_seeds(folder: Path, suffix: str) -> list[bytes]:
    poolings = [("mean",)] if suffix == ".parquet" else [("mean", "token"), ("cls",)]
    contents = []
    for number, pooling in enumerate(poolings):
        path = folder / f"seed{number}{suffix}"
        embed(
            _RNA, small_encoder(), path, pooling=pooling, layers=(0, -1), progress=False, force=True
        )
        contents.append(path.read_bytes())
    return contents


def _read_embeddings(path: Path) -> object:
    found = list(read_embeddings(path.with_name(path.name.removesuffix(".index.json"))))
    for embedding in found:
        for name, array in embedding.arrays.items():
            shape = (embedding.length,) if name.startswith("token") else ()
            assert array.shape[:-1] == shape
    return found


def _index_seeds(folder: Path) -> list[bytes]:
    """Two shards and their index, which is what gets damaged."""
    path = folder / "in.safetensors"
    embed(_RNA, small_encoder(), path, progress=False, force=True)
    content = path.read_bytes()
    names = [f"in-{number:05d}-of-00002.safetensors" for number in (1, 2)]
    for name in names:
        (folder / name).write_bytes(content)
    path.unlink()
    shards = [{"file": name, "start": i, "stop": i + 3} for i, name in enumerate(names)]
    return [json.dumps({"metadata": {}, "shards": shards}, indent=1).encode()]


_EMBEDDINGS = (
    *(
        Reader(
            f"embeddings, {suffix}",
            f"in{suffix}",
            partial(_embedding_seeds, suffix=suffix),
            _read_embeddings,
            (InputError,),
            through,
        )
        for suffix, through in (
            (".safetensors", mutations.within_header),
            (".h5", None),
            (".npz", mutations.within_zip),
            (".parquet", None),
        )
    ),
    Reader(
        "embeddings, index of shards",
        "in.safetensors.index.json",
        _index_seeds,
        _read_embeddings,
        (InputError, FileNotFoundError),  # the latter names the shard that is not there
    ),
)

# ---------------------------------------------------------------------------------------------
# A run that is not finished


def _cut_off_seeds(folder: Path, name: str) -> list[bytes]:
    """The folder of a run that dies as it puts its output together; one file of it is damaged."""
    embed(_RNA, small_encoder(), folder / "whole.npz", progress=False, force=True)
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr("ernie_rna.embeddings.embed.write_parts", _interrupt)
        embed(_RNA, small_encoder(), folder / "again.npz", progress=False, force=True)
    (folder / "again.npz.partial").rename(folder / "kept.partial")
    return [(folder / "kept.partial" / name).read_bytes()]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _go_on(path: Path) -> object:
    """The output is the one of the run that was never cut off, or there is none."""
    output = path.with_name("again.npz")
    partial_folder = path.with_name("again.npz.partial")
    output.unlink(missing_ok=True)
    shutil.rmtree(partial_folder, ignore_errors=True)
    shutil.copytree(path.with_name("kept.partial"), partial_folder)
    shutil.copy(path, partial_folder / path.name)
    try:
        embed(_RNA, small_encoder(), output, progress=False)
    except OutputError:
        assert not output.exists()
        raise
    assert output.read_bytes() == path.with_name("whole.npz").read_bytes()
    return output


_CUT_OFF = tuple(
    Reader(f"unfinished run, {name}", name, seeds, _go_on, (OutputError,), through)
    for name, seeds, through in (
        ("manifest.json", partial(_cut_off_seeds, name="manifest.json"), None),
        (
            "part-000000.safetensors",
            partial(_cut_off_seeds, name="part-000000.safetensors"),
            mutations.within_header,
        ),
    )
)

BINARY_READERS = (*_CHECKPOINTS, *_REFERENCES, *_EMBEDDINGS, *_CUT_OFF)
