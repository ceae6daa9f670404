"""From one end to the other: damaged folders of models, and damaged FASTA through a model."""

import contextlib
from functools import cache, partial
from pathlib import Path

from ernie_rna.embeddings.embed import embed
from ernie_rna.embeddings.formats import read_embeddings
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from ernie_rna.run.loading import EncodingError, load_model
from ernie_rna.run.outputs import OutputError
from ernie_rna.sequences.fasta import InputError, read_fasta
from ernie_rna.structures.fold import fold
from ernie_rna.structures.formats.by_extension import read_structures, write_structures
from tests.fuzz import mutations
from tests.fuzz.binary_readers import small_encoder
from tests.fuzz.reader import Reader
from tests.fuzz.text_readers import FASTA

# ---------------------------------------------------------------------------------------------
# Folders of models

_RNA = {"a": "GGGAAACCC", "b": "ACGUN"}


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
    for name, through in (
        ("config.json", None),
        ("model.safetensors", mutations.within_header),
    )
)

# ---------------------------------------------------------------------------------------------
# Sequences


@cache
def _encoder() -> ErnieRnaModel:
    return small_encoder()


def _fasta_seeds(folder: Path) -> list[bytes]:
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


_SEQUENCES = tuple(
    Reader(
        f"{name}, from FASTA to the end",
        "in.fasta",
        _fasta_seeds,
        read,
        (InputError, EncodingError, OutputError),
    )
    for name, read in (("embed", _embed), ("fold", _fold))
)

WHOLE_READERS = (*_FOLDERS, *_SEQUENCES)
