"""Sequences, structures and tables of labels, as text."""

import bz2
import contextlib
import gzip
import lzma
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ernie_rna.sequences.fasta import InputError, read_fasta
from ernie_rna.structures.formats.by_extension import FORMATTERS, read_structures, write_structures
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.structures.reactivities import read_reactivities
from ernie_rna.training.options import FinetuneOptions
from ernie_rna.training.rows import read_file
from ernie_rna.training.tasks import TASKS
from tests.fuzz import mutations
from tests.fuzz.reader import Reader

EXAMPLES = Path(__file__).parents[2] / "examples"
FASTA, STRUCTURES = EXAMPLES / "rna.fasta", EXAMPLES / "rna.dbn"

# ---------------------------------------------------------------------------------------------
# Sequences


def _fasta_seeds(folder: Path, compress: Callable[[bytes], bytes] = bytes) -> list[bytes]:
    plain = FASTA.read_bytes()
    short = b"# comment\r\n>a first RNA\r\nACGU\r\nacgt\r\n\r\n>b\r\nNRYN\r\n"
    return [compress(plain), compress(short)]


def _read_fasta(path: Path) -> object:
    records = list(read_fasta(path))
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

TEXT_READERS = (*_FASTA_LIKE, *_STRUCTURES, *_REACTIVITIES, *_TABLES)
