"""Secondary structures without training, as the authors of ERNIE-RNA read them off the attention.

>>> for folded in fold(["GGGGAAAACCCC", "AUGC"], "folder-or-hub-id"):  # doctest: +SKIP
...     print(folded.structure.id, folded.structure.dot_bracket)
0 ((((....))))
1 ....

The last layer's scores of head 5, without the special tokens, are made symmetric and handed to
`contacts.solve_contacts` and `contacts.predict_pairs`. The authors' script runs with pairing
scores of zero everywhere (it hands an array of another form to the function that makes them), and
with no shortest loop: `pairing_scores="zero", min_loop=0` does the same. The defaults take the
model as it was trained, and the shortest loop that a real RNA has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ernie_rna.inference.attention_scores import attention_scores, check_heads, check_pairing_scores
from ernie_rna.inference.loading import load_model, memory_explained, resolve_layer, tokenize
from ernie_rna.inference.progress import Progress
from ernie_rna.sequences.batches import Plan, Window, resolve_batch_tokens
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.sequences.long import nucleotide_limit
from ernie_rna.sequences.sources import Intake, Sequences
from ernie_rna.structures.contacts import extract_pairing_map, predict_pairs, solve_contacts
from ernie_rna.structures.structure import Structure
from modeling_ernie_rna import ErnieRnaModel

MATRICES = ("contacts", "scores")


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


@dataclass(frozen=True)
class _Options:
    """The arguments of `fold` that say what is computed."""

    layer: int
    head: int
    pairing_scores: str
    min_loop: int
    matrix: str | None

    def check(self, model: ErnieRnaModel) -> None:
        resolve_layer(self.layer, model.config.num_hidden_layers)
        check_heads([self.head], model.config.num_attention_heads)
        check_pairing_scores(self.pairing_scores)
        if self.min_loop < 0:
            raise ValueError(f"min_loop must be at least 0; got {self.min_loop}")
        if self.matrix not in (None, *MATRICES):
            names = " or ".join(MATRICES)
            raise ValueError(f"matrix must be None, {names}; got {self.matrix!r}")


def fold(
    sequences: Sequences,
    model: str | PathLike[str] | ErnieRnaModel,
    *,
    layer: int = -1,
    head: int = 5,
    pairing_scores: str = "sequence",
    min_loop: int = 3,
    matrix: str | None = None,
    long: str = "error",
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
        model: folder, Hub id or an `ErnieRnaModel`.
        layer: whose scores: 0, the projected pairing scores, to the number of layers; -1 is the
            last one.
        head: whose scores, counted from 0; 5 is the authors' choice.
        pairing_scores: "sequence", or "zero" as in the authors' script.
        min_loop: fewest bases between partners; 3 is the shortest hairpin loop of a real RNA, the
            authors ask for none (0).
        matrix: "contacts", those of `contacts.solve_contacts`, or "scores", the symmetric map
            that they come from; None for neither.
        long: what to do with a sequence longer than the model was trained on: "error" or
            "full" (computed whole).
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
    intake = Intake(sequences, long, unknown)
    loaded = load_model(model, revision=revision, dtype=dtype, device=device, attention=attention)
    options = _Options(layer, head, pairing_scores, min_loop, matrix)
    options.check(loaded)
    records = intake.records(loaded.config)
    tokens = resolve_batch_tokens(batch_tokens, loaded.device)
    plan = Plan(tokens, nucleotide_limit(loaded.config), long=long)
    hidden = loaded.config.hidden_size
    bar = Progress(progress, hidden, intake.found, lambda length: plan.cost(length, hidden))
    return _folds(loaded, options, plan.windows(records), bar)


def _folds(
    model: ErnieRnaModel, options: _Options, windows: Iterable[Window], bar: Progress
) -> Iterator[Fold]:
    with contextlib.closing(bar):
        for window in windows:
            yield from _fold_window(model, options, window, bar)


def _fold_window(
    model: ErnieRnaModel, options: _Options, window: Window, bar: Progress
) -> Iterator[Fold]:
    results: dict[int, Fold] = {}
    for number, batch in enumerate(window.batches):
        records = [window.records[window.pieces[index].record] for index in batch]
        with memory_explained(records):
            results.update(zip(batch, _fold_batch(model, options, records), strict=True))
        bar.advance(window, number)
    for index in range(len(window.records)):
        yield results.pop(index)


def _fold_batch(
    model: ErnieRnaModel, options: _Options, records: list[FastaRecord]
) -> Iterator[Fold]:
    texts = [record.sequence for record in records]
    input_ids, mask = tokenize(texts, model.device)
    scores = attention_scores(
        model,
        input_ids,
        mask,
        layer=options.layer,
        heads=[options.head],
        pairing_scores=options.pairing_scores,
    )
    pairing_map = extract_pairing_map([scores], mask, layer=0, head=0)  # (batch, length, length)
    solved = _solve(pairing_map, texts, options.min_loop)
    for record, scores, contacts in zip(records, pairing_map, solved, strict=True):
        structure = Structure(record.id, record.sequence, [])
        if isinstance(contacts, str):
            yield Fold(structure, problem=contacts)
            continue
        pairs = predict_pairs(contacts[None])[0]
        matrix = {"contacts": contacts, "scores": scores}.get(options.matrix or "")
        yield Fold(replace(structure, pairs=pairs), _cut(matrix, len(record.sequence)))


def _cut(matrix: Tensor | None, length: int) -> np.ndarray | None:
    """(padded length, padded length) -> (length, length), a copy."""
    if matrix is None:
        return None
    array: Any = matrix[:length, :length].to("cpu", torch.float32).numpy()
    return np.array(array)


def _solve(pairing_map: Tensor, texts: Sequence[str], min_loop: int) -> Sequence[Tensor | str]:
    """The contacts of each sequence, (length, length), or what keeps it from having any."""
    try:
        return list(solve_contacts(pairing_map, texts, min_loop=min_loop))
    except ValueError as error:
        if len(texts) == 1:
            return [str(error).removeprefix("sequence 0: ")]
    # One of them has no solution, and the others shall not suffer.
    rows = zip(pairing_map, texts, strict=True)
    return [contacts for one, text in rows for contacts in _solve(one[None], [text], min_loop)]
