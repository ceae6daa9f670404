"""Secondary structures, by a head that was trained on them or without any training.

>>> for folded in fold(["GGGGAAAACCCC", "AUGC"], "folder-or-hub-id"):  # doctest: +SKIP
...     print(folded.structure.id, folded.structure.dot_bracket)
0 ((((....))))
1 ....

If the folder has a secondary-structure head, its logits are the map that pairs are read off.
Without one that is the last layer's scores of head 5, without the special tokens, made symmetric.
Either map is handed to `contacts.solve_contacts` and `pairs.predict_pairs`. The authors' script
runs with pairing scores of zero everywhere (it hands an array of another form to the function that
makes them), with no shortest loop and no shortest stem: `pairing_scores="zero", min_loop=0,
min_stem=1` does the same. The defaults take the encoder as it was pretrained, the shortest loop
that a real RNA has, and no pair that stacks on no other.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ernie_rna.run.by_window import compute_windows
from ernie_rna.run.loading import tokenize
from ernie_rna.run.progress import Progress
from ernie_rna.sequences.batches import Plan, resolve_batch_tokens
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.sequences.long import LONG, check_long, nucleotide_limit
from ernie_rna.sequences.sources import Intake, Sequences, as_source
from ernie_rna.sequences.survey import Survey
from ernie_rna.structures.contacts import solve_each
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.structures.pairing_maps import FoldingModel, PairingMaps, load_maps
from ernie_rna.structures.pairs import predict_pairs
from ernie_rna.structures.reactivities import Probing
from ernie_rna.structures.windows import windowed_map

# Of memory, for each two bases of a long sequence; 18.7 and 24.5 were measured at 6000 and 3000 nt.
_BYTES_A_PAIR = 20
MATRICES = ("contacts", "scores", "probabilities")


@dataclass(frozen=True)
class Fold:
    """The structure of one sequence.

    Attributes:
        structure: id, sequence (its letters as they came) and base pairs.
        matrix: (length, length) in float32, if one was asked for, else None.
        problem: why there is no structure; None where there is one. The structure then has no
            pairs, and `matrix` is None.
    """

    structure: Structure
    matrix: np.ndarray | None = None
    problem: str | None = None


def fold(
    sequences: Sequences,
    model: FoldingModel,
    *,
    layer: int | None = None,
    head: int | None = None,
    pairing_scores: str | None = None,
    min_loop: int = 3,
    min_stem: int = 2,
    matrix: str | None = None,
    long: str = "error",
    overlap: int = 256,
    reactivities: Probing | Mapping[str, Sequence[float]] | None = None,
    unknown: str = "error",
    batch_tokens: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
    attention: str | None = None,
    revision: str | None = None,
    progress: bool | None = False,
) -> Iterator[Fold]:
    """Predict secondary structures, in input order, batched by length.

    A batch gives what each sequence gives alone (contacts to 1e-6). Only A-U, G-C and G-U pair;
    T is U, and N and the other letters stay unpaired.

    Args:
        sequences: path of a FASTA file or "-" for standard input; a mapping of ids to sequences;
            or an iterable of records, (id, sequence) pairs or sequences.
        model: folder, Hub id, an `ErnieRnaForSecondaryStructure` or an `ErnieRnaModel`.
        layer: whose scores: 0, the projected pairing scores, to the number of layers; None is
            the last one, or a head that was trained on structures where there is one.
        head: whose scores, counted from 0; None is 5, the authors' choice, or the trained head.
        pairing_scores: "sequence", or "zero" as in the authors' script; None is what the
            model's configuration says, "sequence" unless it was made otherwise.
        min_loop: fewest bases between partners; 3 is the shortest hairpin loop of a real RNA, the
            authors ask for none (0).
        min_stem: fewest pairs that stack on one another; the authors take single ones too (1).
        matrix: "contacts", those of `contacts.solve_contacts`, or "scores", the symmetric map
            that they come from (of a trained head, its logits), or "probabilities", see
            `confidence`; None for none of them.
        long: what to do with a sequence longer than the model was trained on: "error", "window"
            (overlapping windows, merged as `windows` says) or "full" (computed whole).
        overlap: bases that neighbouring windows share at least.
        reactivities: of chemical probing, by id, which shift the map as `reactivities` says; a
            mapping is taken for SHAPE.
        unknown: "error" or "unk", see `fasta`.
        batch_tokens: tokens in a batch; None is 2048 on a CPU, else 16384.
        dtype: "float32", "bfloat16" or "float16"; None is "float32", or the type of a model
            that is given itself.
        device: of torch; None, or "auto", is CUDA where there is one, else the CPU.
        attention: "sdpa" or "eager"; None is "sdpa".
        revision: branch, tag or commit of a model on the Hub.
        progress: whether to show a bar; None shows it on a terminal.

    Yields:
        A `Fold` for every sequence. One whose optimisation diverges or whose scores are not
        finite has a `problem`; the others are not affected.

    Raises:
        InputError: a sequence is unfit or too long; before any of it is computed, unless the
            input can be read only once.
        ValueError: an argument is off.
    """
    _check(min_loop, min_stem, matrix)
    intake = Intake(sequences, long, unknown, choices=LONG)
    probing = Probing(reactivities) if isinstance(reactivities, Mapping) else reactivities
    if probing is not None and intake.found is not None:
        probing.check(as_source(sequences, unknown).read())
    maps = load_maps(
        model,
        layer,
        head,
        pairing_scores,
        revision=revision,
        dtype=dtype,
        device=device,
        attention=attention,
    )
    config, width = maps.model.config, maps.width
    records = intake.records(config)
    tokens = resolve_batch_tokens(batch_tokens, maps.model.device)
    limit = nucleotide_limit(config)
    check_long(long, limit, overlap)
    window = (limit, overlap) if long == "window" else None
    if window and intake.found is not None:
        _warn_of_memory(intake.found)
    # A batch has whole sequences; each is cut where its map is computed.
    whole = "full" if window else long
    plan = Plan(tokens, limit, long=whole, squared_from=maps.squared_from)
    bar = Progress(progress, width, intake.found, lambda length: plan.cost(length, width))
    windows = compute_windows(
        plan.windows(records),
        partial(_fold_batch, maps, min_loop, min_stem, matrix, window, probing),
        bar,
    )
    return chain.from_iterable(windows)


def _warn_of_memory(found: Survey) -> None:
    """Say what the map and the optimisation of the longest sequence take, from 1 GB on."""
    length, id = found.longest[0]
    gigabytes = _BYTES_A_PAIR * length**2 / 1e9
    if gigabytes >= 1:
        warnings.warn(
            f"{id} has {length} nt: its map, put together from windows, and what is read off it "
            f"take {gigabytes:.1f} GB of memory",
            stacklevel=3,
        )


def _check(min_loop: int, min_stem: int, matrix: str | None) -> None:
    if min_loop < 0:
        raise ValueError(f"min_loop must be at least 0; got {min_loop}")
    if min_stem < 1:
        raise ValueError(f"min_stem must be at least 1; got {min_stem}")
    if matrix not in (None, *MATRICES):
        raise ValueError(f"matrix must be None or one of {', '.join(MATRICES)}; got {matrix!r}")


def _fold_batch(
    maps: PairingMaps,
    min_loop: int,
    min_stem: int,
    matrix: str | None,
    window: tuple[int, int] | None,
    probing: Probing | None,
    records: list[FastaRecord],
) -> Iterator[Fold]:
    texts = [record.sequence for record in records]
    pairing_map = _pairing_map(maps, texts, window)  # (batch, length, length)
    if probing is not None:
        pairing_map = _shifted(pairing_map, records, probing, maps.slope)
    solved = solve_each(pairing_map, texts, min_loop=min_loop, threshold=maps.threshold)
    for record, scores, contacts in zip(records, pairing_map, solved, strict=True):
        structure = Structure(record.id, record.sequence, [])
        if isinstance(contacts, str):
            yield Fold(structure, problem=contacts)
            continue
        pairs = predict_pairs(contacts[None], min_stem=min_stem)[0]
        inside = slice(len(record.sequence))  # without the padding
        made = {"contacts": contacts[inside, inside], "scores": scores[inside, inside]}
        if matrix == "probabilities":
            maps_of_one = made["scores"], made["contacts"]
            made[matrix] = maps.probabilities(*maps_of_one, record.sequence, min_loop)
        yield Fold(replace(structure, pairs=pairs), _copy(made.get(matrix or "")))


def _pairing_map(maps: PairingMaps, texts: Sequence[str], window: tuple[int, int] | None) -> Tensor:
    """The maps of a batch, (batch, length, length), by windows where a sequence is too long.

    Args:
        window: the limit and the overlap; None for whole sequences.
    """

    def compute(*some: str) -> Tensor:
        return maps.compute(*tokenize(list(some), maps.model.device))

    longest = max(map(len, texts))
    if window is None or longest <= window[0]:
        return compute(*texts)
    batch = torch.zeros(len(texts), longest, longest)
    for row, text in zip(batch, texts, strict=True):
        inside = slice(len(text))
        row[inside, inside] = windowed_map(lambda part: compute(part)[0], text, *window)
    return batch


def _shifted(
    pairing_map: Tensor, records: Sequence[FastaRecord], probing: Probing, slope: float
) -> Tensor:
    """Maps with what probing says of both bases of each pair, (batch, length, length)."""
    shifted = pairing_map.float().clone()
    for row, record in zip(shifted, records, strict=True):
        inside = slice(len(record.sequence))
        shift = torch.from_numpy(probing.log_odds(record)).to(row) / slope
        row[inside, inside] += shift[:, None] + shift
    return shifted


def _copy(matrix: Tensor | None) -> np.ndarray | None:
    if matrix is None:
        return None
    array: Any = matrix.to("cpu", torch.float32).numpy()
    return np.array(array)
