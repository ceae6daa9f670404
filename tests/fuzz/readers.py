"""The readers to test with damaged files: all code in the package that reads users' files.

A reader is a function of a path, with real files to damage and the errors that it may raise. Any
other exception, a crash, a hang or a partial output is a finding.
"""

import argparse
import bz2
import contextlib
import gzip
import json
import lzma
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
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
from ernie_rna.run.loading import EncodingError, load_model
from ernie_rna.run.outputs import OutputError
from ernie_rna.sequences.fasta import InputError, read_fasta
from ernie_rna.structures.fold import fold
from ernie_rna.structures.formats.by_extension import FORMATTERS, read_structures, write_structures
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.structures.reactivities import read_reactivities
from ernie_rna.training.options import FinetuneOptions
from ernie_rna.training.rows import read_file
from ernie_rna.training.tasks import TASKS
from ernie_rna.verify import VerifyError, read_cls_embedding
from tests.conftest import GOLDEN, ROOT
from tests.conversion.test_weights import their_names
from tests.fuzz import mutations
from tests.fuzz.mutations import mutate

FASTA, STRUCTURES = ROOT / "examples" / "rna.fasta", ROOT / "examples" / "rna.dbn"


@dataclass(frozen=True)
class Reader:
    """A function of the package that reads files.

    Attributes:
        file: name of the damaged file; the package chooses the format by its extension.
        seeds: a function that returns real files, for the path of the damaged file.
        read: reads the file at a path completely, and asserts what must hold for the result.
        refuses: the errors that it may raise.
    """

    name: str
    file: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]
    refuses: tuple[type[Exception], ...] = (InputError,)

    def inputs(self, folder: Path, first: int, stop: int) -> Iterator[bytes]:
        """The damaged files with the numbers from `first` to `stop` - 1, the same in each call."""
        seeds = self.seeds(folder / self.file)
        for number in range(first, stop):
            yield self.damage(Random(f"{self.name} {number}"), seeds)

    def damage(self, random: Random, seeds: list[bytes]) -> bytes:
        """A damaged copy of one of the seeds; in half of the containers the content is damaged."""
        seed = random.choice(seeds)
        through = mutations.THROUGH.get(Path(self.file).suffix)
        if through is None or random.random() < 0.5:
            return mutate(random, seed, seeds)
        return through(random, seed, partial(mutate, random))


# ---------------------------------------------------------------------------------------------
# Sequences

_COMPRESSED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
_SHORT = b"# comment\r\n>a first RNA\r\nACGU\r\nacgt\r\n\r\n>b\r\nNRYN\r\n"
_ALIGNED = b"# STOCKHOLM 1.0\n#=GS a DE of a kind\na AC-GU\nb .NRY_\n\na acgt\nb N~--\n//\n"


def _fasta_seeds(path: Path) -> list[bytes]:
    compress = _COMPRESSED.get(path.suffix, bytes)
    return [compress(FASTA.read_bytes()), compress(_SHORT)]


def _read_fasta(path: Path, **options: bool) -> object:
    records = list(read_fasta(path, **options))
    assert records
    assert all(record.id and record.sequence for record in records)
    return records


def _aligned_seeds(path: Path) -> list[bytes]:
    clustal = b"CLUSTAL W (1.83)\n\na AC-GU 4\nb -NRY- 3\n    *\n\na acgt 8\nb ---N 4\n"
    below = b">a\nGGGAAACCC\n(((...))) ( -4.10)\n>b\nGG-AA\n"
    return [_ALIGNED, clustal, below]


# ---------------------------------------------------------------------------------------------
# Structures and tables


def _structure_seeds(path: Path) -> list[bytes]:
    real = read_structures(STRUCTURES)
    knotted = Structure("knot", "GGGAAACCCUUUGGG", [(0, 8), (1, 7), (4, 12), (5, 11)])
    contents = []
    for structures in ([real[0]], [knotted], [knotted, *real[1:3]]):
        if path.suffix != ".bpseq" or len(structures) == 1:
            write_structures(path, structures)
            contents.append(path.read_bytes())
    return contents


def _read_structures(path: Path) -> object:
    structures = read_structures(path)
    for structure in structures:
        assert all(0 <= i < j < len(structure.sequence) for i, j in structure.pairs)
        with contextlib.suppress(ValueError):  # The format cannot hold every structure.
            FORMATTERS[path.suffix](structure)
    return structures


# Three bases, the last without data; an RDAT file of them with two rows.
_PROBED = {
    ".shape": b"1 0.5\n2 1.25\n3 -999\n",
    ".map": b"1\t0.5\t0.01\tG\n2\t1.25\t0.02\tA\n3\tNaN\t0\tC\n",
    ".tsv": b"id\tposition\treactivity\na\t1\t0.5\na\t2\t1.25\nb\t1\tNA\n",
    ".rdat": b"RDAT_VERSION 0.34\nNAME a\nSEQUENCE GAC\nOFFSET 7\nSEQPOS G8 A9\n"
    b"ANNOTATION_DATA:1 modifier:1M7\nREACTIVITY:1 0.5 1.25\nAREA_PEAK 2 0.25 -0.5\n",
}


def _reactivity_seeds(path: Path) -> list[bytes]:
    return [_PROBED[path.suffix], _PROBED[path.suffix].replace(b"\n", b"\r\n")]


def _read_reactivities(path: Path) -> object:
    profiles = read_reactivities(path)
    assert profiles
    assert all(values.ndim == 1 and len(values) for values, _ in profiles.values())
    return profiles


_LABELS = b"""\
id,sequence,class,value,flag_a,flag_b,several,bases,split
r1,GGGAAACCC,x,1.5,0,1,x;y,(((...))),train
r2,"ACGU",y,-2e3,1,1,,....,train
r3,ACGUN,x,0,0,0,y,.(.).,test
r4,GGAAACC,y,2.25,1,0,x;y,((...)),train
"""
_LABELLED = (
    ("classification", ("class",)),
    ("multi-label", ("several",)),
    ("multi-label", ("flag_a", "flag_b")),
    ("regression", ("value",)),
    ("token-classification", ("bases",)),
)


def _label_seeds(path: Path) -> list[bytes]:
    labels = _LABELS if path.suffix == ".csv" else _LABELS.replace(b",", b"\t")
    return [labels, labels.replace(b"\n", b"\r\n")]


def _read_labels(path: Path) -> object:
    rows = read_file(path, "sequence")
    for name, columns in _LABELLED:
        task = TASKS[name](FinetuneOptions(task=name, label_column=columns))
        list(task.learn_names(rows))  # yields messages
        assert len(task.read_labels(rows)) == len(rows)
    return rows


# ---------------------------------------------------------------------------------------------
# Checkpoints and published vectors


def _small_config() -> ErnieRnaConfig:
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "intermediate_size": 8}
    return ErnieRnaConfig(**sizes, num_attention_heads=2, max_position_embeddings=66)


def _small_weights() -> dict[str, torch.Tensor]:
    """Random weights of a small model with a pooler, under the names of this package."""
    torch.manual_seed(0)
    config = _small_config()
    pooler = ErnieRnaModel(config).state_dict(prefix="ernie_rna.")
    weights = {**pooler, **ErnieRnaForMaskedLM(config).state_dict()}
    del weights["lm_head.decoder.weight"]  # tied
    return {name: weight.clone() for name, weight in weights.items()}


def _torch_seeds(path: Path) -> list[bytes]:
    settings = {"encoder_layers": 1, "encoder_embed_dim": 12, "lr": [1e-4], "dropout": 0.1}
    args = argparse.Namespace(arch="ernie_rna", **settings)
    small = {"args": args, "model": their_names(_small_weights()), "best_loss": None}
    golden = torch.load(GOLDEN / "tiny_fairseq_cfg.pt", weights_only=False)  # a trusted file
    contents = []
    for checkpoint in (small, golden):
        torch.save(checkpoint, path)
        contents.append(path.read_bytes())
    return [*contents[:1] * 30, contents[1]]


def _safetensors_seeds(path: Path) -> list[bytes]:
    save_file(their_names(_small_weights()), path)
    return [path.read_bytes()]


_MULTIMOLECULE = ("config.json", "vocab.txt")
_SETTINGS = """{
  "model_type": "ernierna", "num_hidden_layers": 1, "hidden_size": 12,
  "max_position_embeddings": 68, "hidden_dropout": 0.1, "layer_norm_eps": 1e-12,
  "pairwise_alpha": 0.8, "vocab_size": 26, "hidden_act": "gelu"}"""


def _multimolecule_seeds(path: Path) -> list[bytes]:
    """config.json or vocab.txt; the small weights are written beside it as MultiMolecule does."""
    state = their_names(_small_weights(), MULTIMOLECULE, "model.")
    for name, weight in state.items():
        if weight.shape[:1] == (25,):
            state[name] = torch.cat([weight, weight[:1]])  # MultiMolecule has 26 tokens.
    save_file(state, path.with_name("model.safetensors"))
    if path.name == "vocab.txt":
        return ["\n".join(VOCABULARIES[26]).encode()]
    return [json.dumps(json.loads(_SETTINGS), indent=indent).encode() for indent in (None, 2)]


def _convert(path: Path) -> object:
    is_folder = path.name in _MULTIMOLECULE
    conversion = convert_weights(read_checkpoint(path.parent if is_folder else path))
    assert all(torch.isfinite(weight).all() for weight in conversion.state_dict.values())
    return conversion


def _published_seeds(path: Path) -> list[bytes]:
    np.save(path, np.ones((2, 3, 4)))
    return [path.read_bytes()]


# ---------------------------------------------------------------------------------------------
# Outputs of the package, unfinished runs, and folders of models

_RNA = {"a": "GGGAAACCC", "b-é": "ACGU", "c": "ACGUN" * 5}


@cache
def _encoder() -> ErnieRnaModel:
    torch.manual_seed(0)
    return ErnieRnaModel(_small_config(), add_pooling_layer=False).eval()


_embed_anew = partial(embed, _RNA, progress=False, force=True)


def _embedding_seeds(path: Path) -> list[bytes]:
    poolings = [("mean",)] if path.suffix == ".parquet" else [("mean", "token"), ("cls",)]
    contents = []
    for pooling in poolings:
        _embed_anew(_encoder(), path, pooling=pooling, layers=(0, -1))
        contents.append(path.read_bytes())
    return contents


def _read_embeddings(path: Path) -> object:
    embeddings = list(read_embeddings(path.with_name(path.name.removesuffix(".index.json"))))
    for embedding in embeddings:
        for name, array in embedding.arrays.items():
            shape = (embedding.length,) if name.startswith("token") else ()
            assert array.shape[:-1] == shape
    return embeddings


def _index_seeds(path: Path) -> list[bytes]:
    """The index of two shards, which are written beside it and stay undamaged."""
    names = [f"in-{number:05d}-of-00002.safetensors" for number in (1, 2)]
    for name in names:
        _embed_anew(_encoder(), path.with_name(name))
    shards = [{"file": name, "start": i, "stop": i + 3} for i, name in enumerate(names)]
    return [json.dumps({"metadata": {}, "shards": shards}, indent=1).encode()]


def _cut_off_seeds(path: Path) -> list[bytes]:
    """A file in the folder of a run that was interrupted when it began to write its output."""
    _embed_anew(_encoder(), path.with_name("whole.npz"))
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr("ernie_rna.embeddings.embed.write_parts", _interrupt)
        _embed_anew(_encoder(), path.with_name("again.npz"))
    kept = path.with_name("again.npz.partial").rename(path.with_name("kept.partial"))
    (original,) = kept.glob(f"{path.stem}*")
    return [original.read_bytes()]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _resume(path: Path) -> object:
    """Resume the run; its output must equal that of an uninterrupted run, or must not exist."""
    output = path.with_name("again.npz")
    partial_folder = path.with_name("again.npz.partial")
    output.unlink(missing_ok=True)
    shutil.rmtree(partial_folder, ignore_errors=True)
    shutil.copytree(path.with_name("kept.partial"), partial_folder)
    (damaged,) = partial_folder.glob(f"{path.stem}*")
    shutil.copy(path, damaged)
    try:
        embed(_RNA, _encoder(), output, progress=False)
    except OutputError:
        assert not output.exists()
        raise
    assert output.read_bytes() == path.with_name("whole.npz").read_bytes()
    return output


def _folder_seeds(path: Path) -> list[bytes]:
    _encoder().save_pretrained(path.parent)
    return [path.read_bytes()]


def _load_and_embed(path: Path) -> object:
    try:
        model = load_model(path.parent, device="cpu")
    except (ValueError, OSError) as error:
        if str(path.parent) not in str(error):
            raise RuntimeError("the folder is not named") from error
        raise
    # A damaged model may load although it is useless, for example because values are not finite.
    with contextlib.suppress(EncodingError, InputError):
        return list(embed(_RNA, model, progress=False))
    return model


# ---------------------------------------------------------------------------------------------
# Whole commands, from FASTA to the output


def _run_seeds(path: Path) -> list[bytes]:
    real = b"".join(FASTA.read_bytes().splitlines(keepends=True)[:2])
    return [real + b"# comment\r\n>a first\r\nACGU\r\nacgt\r\n\r\n>b\r\nNRYN\r\n", real]


def _embed(path: Path) -> object:
    """Embed; the output must have every sequence, or no output and no other new file may exist."""
    output = path.with_name("out.npz")
    output.unlink(missing_ok=True)
    try:
        embed(path, _encoder(), output, long="window", overlap=8, progress=False)
        lengths = [(embedding.id, embedding.length) for embedding in read_embeddings(output)]
    except Exception:
        assert not list(path.parent.glob("out*"))
        raise
    assert lengths == [(record.id, len(record.sequence)) for record in read_fasta(path)]
    return lengths


def _fold(path: Path) -> object:
    """Fold; all structures must be the same after they are written and read again."""

    def fields(structures: Iterable[Structure]) -> list[object]:
        return [(structure.id, structure.sequence, structure.pairs) for structure in structures]

    output = path.with_name("out.dbn")
    folds = list(fold(path, _encoder(), head=0, long="window", overlap=8))
    assert not [folded for folded in folds if folded.problem]
    structures = [folded.structure for folded in folds]
    write_structures(output, structures)
    assert fields(read_structures(output)) == fields(structures)
    return structures


def _each(kind: str, files: Iterable[str], *arguments: Any) -> list[Reader]:
    """A reader for each file name or extension, all with the same other arguments."""
    names = {file: f"in{file}" if file.startswith(".") else file for file in files}
    return [Reader(f"{kind}, {file}", name, *arguments) for file, name in names.items()]


_BAD_CHECKPOINT, _BAD_MODEL = (CheckpointError,), (ValueError, OSError)
_NO_SHARD = (InputError, FileNotFoundError)  # the latter names the missing shard
_FAILURES = (InputError, EncodingError, OutputError)
_read_alignment = partial(_read_fasta, degap=True, keep_letters=False)
_read_published = partial(read_cls_embedding, shape=(2, 3, 4))
_EMBEDDINGS = (".safetensors", ".h5", ".npz", ".parquet")
_PARTIAL = ("manifest.json", "part-000000.safetensors")
_FOLDER = ("config.json", "model.safetensors")
READERS = (
    Reader("FASTA", "in.fasta", _fasta_seeds, _read_fasta),
    Reader("FASTA, gzip", "in.fasta.gz", _fasta_seeds, _read_fasta),
    Reader("FASTA, bzip2", "in.fasta.bz2", _fasta_seeds, _read_fasta),
    Reader("FASTA, xz", "in.fasta.xz", _fasta_seeds, _read_fasta),
    Reader("alignments, --degap", "in.sto", _aligned_seeds, _read_alignment),
    *_each("structures", (".ct", ".bpseq", ".dbn", ".tsv"), _structure_seeds, _read_structures),
    *_each("reactivities", _PROBED, _reactivity_seeds, _read_reactivities),
    *_each("labels", (".csv", ".tsv"), _label_seeds, _read_labels),
    Reader("checkpoint, torch zip", "in.pt", _torch_seeds, _convert, _BAD_CHECKPOINT),
    Reader(
        "checkpoint, safetensors", "in.safetensors", _safetensors_seeds, _convert, _BAD_CHECKPOINT
    ),
    *_each("checkpoint", _MULTIMOLECULE, _multimolecule_seeds, _convert, _BAD_CHECKPOINT),
    Reader("published values, .npy", "in.npy", _published_seeds, _read_published, (VerifyError,)),
    *_each("embeddings", _EMBEDDINGS, _embedding_seeds, _read_embeddings),
    Reader(
        "embeddings, index of shards",
        "in.safetensors.index.json",
        _index_seeds,
        _read_embeddings,
        _NO_SHARD,
    ),
    *_each("unfinished run", _PARTIAL, _cut_off_seeds, _resume, (OutputError,)),
    *_each("folder of a model", _FOLDER, _folder_seeds, _load_and_embed, _BAD_MODEL),
    Reader("embed, from FASTA to the end", "in.fasta", _run_seeds, _embed, _FAILURES),
    Reader("fold, from FASTA to the end", "in.fasta", _run_seeds, _fold, _FAILURES),
)
