"""What is fuzzed: everything in the package that reads bytes which came from elsewhere.

A reader is a function of a path, with real files to damage and the errors that it may raise. Any
other exception, a crash, a hang and half an output are findings.
"""

import argparse
import bz2
import contextlib
import gzip
import json
import lzma
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random

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
from tests.conversion.test_weights import their_names
from tests.fuzz import mutations
from tests.fuzz.mutations import Through, mutate

EXAMPLES = Path(__file__).parents[2] / "examples"
FASTA, STRUCTURES = EXAMPLES / "rna.fasta", EXAMPLES / "rna.dbn"
GOLDEN = Path(__file__).parents[1] / "golden"


@dataclass(frozen=True)
class Reader:
    """One way into the package.

    Attributes:
        file: under which name the damaged file lies; the extension decides much.
        seeds: real files, given a folder to work in.
        read: reads the file at a path to its end; what it asserts of the result must hold.
        refuses: the errors in which it may end.
        through: how to get at what lies within a container.
    """

    name: str
    file: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]
    refuses: tuple[type[Exception], ...]
    through: Through | None = None

    def inputs(self, folder: Path, first: int, stop: int) -> Iterator[bytes]:
        """The damaged files with these numbers; always the same ones."""
        seeds = self.seeds(folder)
        for number in range(first, stop):
            yield self.damage(Random(f"{self.name} {number}"), seeds)

    def damage(self, random: Random, seeds: list[bytes]) -> bytes:
        """A damaged copy of one of the seeds; half of the time, damaged within the container."""
        seed = random.choice(seeds)
        if self.through is None or random.random() < 0.5:
            return mutate(random, seed, seeds)
        return self.through(random, seed, partial(mutate, random))


# ---------------------------------------------------------------------------------------------
# Sequences


def _fasta_seeds(folder: Path, compress: Callable[[bytes], bytes] = bytes) -> list[bytes]:
    plain = FASTA.read_bytes()
    short = b"# comment\r\n>a first RNA\r\nACGU\r\nacgt\r\n\r\n>b\r\nNRYN\r\n"
    return [compress(plain), compress(short)]


def _read_fasta(path: Path, **how: bool) -> object:
    records = list(read_fasta(path, **how))
    assert records
    assert all(record.id and record.sequence for record in records)
    return records


_FASTA_LIKE = (
    Reader("FASTA", "in.fasta", _fasta_seeds, _read_fasta, (InputError,)),
    *(
        Reader(
            f"FASTA, {name}",
            f"in.fasta.{extension}",
            partial(_fasta_seeds, compress=compress),
            _read_fasta,
            (InputError,),
            through,
        )
        for name, extension, compress, through in (
            ("gzip", "gz", gzip.compress, mutations.within_gzip),
            ("bzip2", "bz2", bz2.compress, mutations.within_bzip2),
            ("xz", "xz", lzma.compress, mutations.within_xz),
        )
    ),
)

_ALIGNED = b"# STOCKHOLM 1.0\n#=GS a DE of a kind\na AC-GU\nb .NRY_\n\na acgt\nb N~--\n//\n"


def _aligned_seeds(folder: Path) -> list[bytes]:
    clustal = b"CLUSTAL W (1.83)\n\na AC-GU 4\nb -NRY- 3\n    *\n\na acgt 8\nb ---N 4\n"
    below = b">a\nGGGAAACCC\n(((...))) ( -4.10)\n>b\nGG-AA\n"
    return [_ALIGNED, clustal, below]


_ALIGNMENTS = (
    Reader(
        "alignments, --degap",
        "in.sto",
        _aligned_seeds,
        partial(_read_fasta, degap=True, keep_letters=False),
        (InputError,),
    ),
)


# ---------------------------------------------------------------------------------------------
# Structures and tables


def _structure_seeds(folder: Path, suffix: str) -> list[bytes]:
    real = read_structures(STRUCTURES)
    knotted = Structure("knot", "GGGAAACCCUUUGGG", [(0, 8), (1, 7), (4, 12), (5, 11)])
    path = folder / f"seed{suffix}"
    contents = []
    for structures in ([real[0]], [knotted], [knotted, *real[1:3]]):
        if suffix != ".bpseq" or len(structures) == 1:
            write_structures(path, structures)
            contents.append(path.read_bytes())
    return contents


def _read_structures(path: Path) -> object:
    structures = read_structures(path)
    for structure in structures:
        assert all(0 <= i < j < len(structure.sequence) for i, j in structure.pairs)
        with contextlib.suppress(ValueError):  # A format may have no place for it, and say so.
            FORMATTERS[path.suffix](structure)
    return structures


_STRUCTURES = tuple(
    Reader(
        f"structures, {suffix}",
        f"in{suffix}",
        partial(_structure_seeds, suffix=suffix),
        _read_structures,
        (InputError,),
    )
    for suffix in (".ct", ".bpseq", ".dbn", ".tsv")
)

# Three bases, the last without data; an RDAT file of them with two rows.
_PROBED = {
    ".shape": b"1 0.5\n2 1.25\n3 -999\n",
    ".map": b"1\t0.5\t0.01\tG\n2\t1.25\t0.02\tA\n3\tNaN\t0\tC\n",
    ".tsv": b"id\tposition\treactivity\na\t1\t0.5\na\t2\t1.25\nb\t1\tNA\n",
    ".rdat": b"RDAT_VERSION 0.34\nNAME a\nSEQUENCE GAC\nOFFSET 7\nSEQPOS G8 A9\n"
    b"ANNOTATION_DATA:1 modifier:1M7\nREACTIVITY:1 0.5 1.25\nAREA_PEAK 2 0.25 -0.5\n",
}


def _reactivity_seeds(folder: Path, suffix: str) -> list[bytes]:
    return [_PROBED[suffix], _PROBED[suffix].replace(b"\n", b"\r\n")]


def _read_reactivities(path: Path) -> object:
    found = read_reactivities(path)
    assert found
    assert all(values.ndim == 1 and len(values) for values, _ in found.values())
    return found


_REACTIVITIES = tuple(
    Reader(
        f"reactivities, {suffix}",
        f"in{suffix}",
        partial(_reactivity_seeds, suffix=suffix),
        _read_reactivities,
        (InputError,),
    )
    for suffix in _PROBED
)

_LABELS = b"""\
id,sequence,class,value,flag_a,flag_b,several,bases,split
r1,GGGAAACCC,x,1.5,0,1,x;y,(((...))),train
r2,"ACGU",y,-2e3,1,1,,....,train
r3,ACGUN,x,0,0,0,y,.(.).,test
r4,GGAAACC,y,2.25,1,0,x;y,((...)),train
"""
_LABELLED = {
    "classification": ("class",),
    "multi-label": ("several",),
    "regression": ("value",),
    "token-classification": ("bases",),
}


def _label_seeds(folder: Path, delimiter: bytes) -> list[bytes]:
    labels = _LABELS.replace(b",", delimiter)
    return [labels, labels.replace(b"\n", b"\r\n")]


def _read_labels(path: Path) -> object:
    rows = read_file(path, "sequence")
    for name, columns in [*_LABELLED.items(), ("multi-label", ("flag_a", "flag_b"))]:
        task = TASKS[name](FinetuneOptions(task=name, label_column=columns))
        list(task.learn_names(rows))  # messages
        assert len(task.read_labels(rows)) == len(rows)
    return rows


_TABLES = tuple(
    Reader(
        f"labels, {suffix}",
        f"in{suffix}",
        partial(_label_seeds, delimiter=delimiter),
        _read_labels,
        (InputError,),
    )
    for suffix, delimiter in ((".csv", b","), (".tsv", b"\t"))
)


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
    (path,) = (folder / "kept.partial").glob(f"{Path(name).stem}*")
    return [path.read_bytes()]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _go_on(path: Path) -> object:
    """The output is the one of the run that was never cut off, or there is none."""
    output = path.with_name("again.npz")
    partial_folder = path.with_name("again.npz.partial")
    output.unlink(missing_ok=True)
    shutil.rmtree(partial_folder, ignore_errors=True)
    shutil.copytree(path.with_name("kept.partial"), partial_folder)
    (damaged,) = partial_folder.glob(f"{path.stem}*")
    shutil.copy(path, damaged)
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


# ---------------------------------------------------------------------------------------------
# Folders of models


def _folder_seeds(folder: Path, name: str) -> list[bytes]:
    small_encoder().save_pretrained(folder)
    return [(folder / name).read_bytes()]


def _load_and_embed(path: Path) -> object:
    try:
        model = load_model(path.parent, device="cpu")
    except (ValueError, OSError) as error:
        if str(path.parent) not in str(error):
            raise RuntimeError("the folder is not named") from error
        raise
    # What was read may be of no use: not finite, or for no nucleotide at all.
    with contextlib.suppress(EncodingError, InputError):
        return list(embed(_RNA, model, progress=False))
    return model


_FOLDERS = tuple(
    Reader(
        f"folder of a model, {name}",
        name,
        partial(_folder_seeds, name=name),
        _load_and_embed,
        (ValueError, OSError),
        through,
    )
    for name, through in (("config.json", None), ("model.safetensors", mutations.within_header))
)

# ---------------------------------------------------------------------------------------------
# Sequences


@cache
def _encoder() -> ErnieRnaModel:
    return small_encoder()


def _whole_seeds(folder: Path) -> list[bytes]:
    real = b"".join(FASTA.read_bytes().splitlines(keepends=True)[:2])
    return [real + b"# comment\r\n>a first\r\nACGU\r\nacgt\r\n\r\n>b\r\nNRYN\r\n", real]


def _embed(path: Path) -> object:
    """All of the input is in the output, or there is none, nor anything beside it."""
    output = path.with_name("out.npz")
    output.unlink(missing_ok=True)
    try:
        embed(path, _encoder(), output, long="window", overlap=8, progress=False)
        found = [(embedding.id, embedding.length) for embedding in read_embeddings(output)]
    except Exception:
        assert not list(path.parent.glob("out*"))
        raise
    assert found == [(record.id, len(record.sequence)) for record in read_fasta(path)]
    return found


def _fold(path: Path) -> object:
    """The structures of all of the input, written and read again."""
    output = path.with_name("out.dbn")
    folds = list(fold(path, _encoder(), head=0, long="window", overlap=8))
    assert not [one for one in folds if one.problem]
    structures = [one.structure for one in folds]
    write_structures(output, structures)
    found = [(again.id, again.sequence, again.pairs) for again in read_structures(output)]
    assert found == [(one.id, one.sequence, one.pairs) for one in structures]
    return found


_WHOLE = tuple(
    Reader(
        f"{name}, from FASTA to the end",
        "in.fasta",
        _whole_seeds,
        read,
        (InputError, EncodingError, OutputError),
    )
    for name, read in (("embed", _embed), ("fold", _fold))
)

READERS = (
    *(*_FASTA_LIKE, *_ALIGNMENTS, *_STRUCTURES, *_REACTIVITIES, *_TABLES),
    *(*_CHECKPOINTS, *_REFERENCES, *_EMBEDDINGS, *_CUT_OFF, *_FOLDERS, *_WHOLE),
)
