"""Secondary structures, by a head that was trained on them or without any training.

>>> for folded in fold(["GGGGAAAACCCC", "AUGC"], "folder-or-hub-id"):  # doctest: +SKIP
...     print(folded.structure.id, folded.structure.dot_bracket)
0 ((((....))))
1 ....

If the folder has a secondary-structure head, its logits are the map that pairs are read off.
Without one that is the last layer's scores of head 5, without the special tokens, made symmetric.
Either map is handed to `solve_each` and `predict_pairs` of `model.structures_ernie_rna`. The
authors' script runs with pairing scores of zero everywhere (it hands an array of another form to
the function that makes them), with no shortest loop and no shortest stem: `as_authors=True` does
the same. The defaults take the encoder as it was pretrained, the shortest loop that a real RNA has,
and no pair that stacks on no other.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ernie_rna.options import FoldOptions, OptionError, takes
from ernie_rna.run.matrices import MATRICES
from ernie_rna.run.runner import Output, RunSummary, Task, Written, iterate, run
from ernie_rna.sequences import chunks
from ernie_rna.sequences.chunks import Piece
from ernie_rna.sequences.fasta import FastaRecord, FilePath
from ernie_rna.sequences.sources import Sequences, Survey
from ernie_rna.structures.constraints import Constraints
from ernie_rna.structures.formats.dot_bracket import nested_pages
from ernie_rna.structures.formats.output import fold_outputs, suffix_of
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.structures.prior import Prior
from ernie_rna.structures.reactivities import Probing, Reactivities

if TYPE_CHECKING:
    from torch import Tensor

# Whose heads know the pairing scores; no checkpoint of the authors says with which it was trained.
_TRAINED_WITH_SCORES = ("pretrained", "fine-tuned")
# Of memory, for each two bases of a long sequence; 18.7 and 24.5 were measured at 6000 and 3000 nt.
_BYTES_A_PAIR = 20


@dataclass(frozen=True)
class Fold:
    """The structure of one sequence.

    Attributes:
        structure: id, sequence (its letters as they came) and base pairs.
        matrix: (length, length) in float32, if one was asked for, else None.
        problem: why there is no structure; None where there is one. The structure then has no
            pairs, and the arrays are None.
        reliabilities: (length,) in float32, see `confidence.base_reliabilities`.
    """

    structure: Structure
    matrix: np.ndarray | None = None
    problem: str | None = None
    reliabilities: np.ndarray | None = None

    @property
    def id(self) -> str:
        return self.structure.id

    def _repr_svg_(self) -> str | None:  # a notebook shows the arcs of the pairs
        from ernie_rna.plots.drawings import as_svg, plot_arcs

        return as_svg(plot_arcs, self.structure.sequence, self.structure.pairs)


@overload
def fold(
    sequences: Sequences, model: Any, output: None = None, **options: Any
) -> Iterator[Fold]: ...


@overload
def fold(
    sequences: Sequences, model: Any, output: FilePath | Sequence[FilePath], **options: Any
) -> RunSummary: ...


@takes(FoldOptions)
def fold(
    sequences: Sequences,
    model: Any,
    output: FilePath | Sequence[FilePath] | None = None,
    *,
    pairs: FilePath | None = None,
    bases: FilePath | None = None,
    reactivities: Reactivities | FilePath | None = None,
    constraints: Mapping[str, str] | None = None,
    options: FoldOptions,
) -> Iterator[Fold] | RunSummary:
    """Predict secondary structures and yield them, or write them to files.

    Order, resuming and sharing are those of `embeddings.embed.embed`. A batch gives what each
    sequence gives alone (contacts to 1e-6). Only A-U, G-C and G-U pair; T is U, and N and the other
    letters stay unpaired.

    Args:
        sequences: as for `embeddings.embed.embed`.
        model: folder, Hub id, "mini", an `ErnieRnaForSecondaryStructure` or an `ErnieRnaModel`.
        output: file or folder, or several, whose extensions name the formats, see
            `formats.output`; "-" is standard output.
        pairs: table with a line for each pair and how likely it is; yields without any output.
        bases: table with a line for each base, its partner and how likely that is.
        reactivities: of chemical probing, which shift the map as `reactivities` says: a file or
            folder, or by id a number for each base.
        constraints: by id, a character of `.x|<>()` for each base, see `structures.constraints`.

    Yields:
        A `Fold` for every sequence. One whose optimisation diverges or whose scores are not finite
        has a `problem`; the others are not affected.

    Raises:
        InputError: also for a sequence without reactivities.
        And as `embeddings.embed.embed`; EncodingError only where memory does not suffice.
    """
    given = [output] if isinstance(output, (str, PathLike)) else output or []
    paths = [fspath(path) for path in given]
    tables = [None if path is None else fspath(path) for path in (pairs, bases)]
    outputs = fold_outputs(paths, *tables)
    if outputs:
        with_matrix = any(suffix_of(path) == MATRICES for path in paths)
        if options.matrix and not with_matrix:
            raise OptionError("matrix", f"{options.matrix} is for an .npz output: name one")
        options = replace(options, matrix=(options.matrix or "contacts") if with_matrix else None)
    probing = None if reactivities is None else Probing(reactivities, options)
    task = FoldTask(options, probing, constraints, with_reliabilities=any(tables))
    return run(task, sequences, model, outputs) if outputs else iterate(task, sequences, model)


class FoldTask(Task[Fold]):
    """Structures, by the options.

    Args:
        probing: the reactivities, if there are any.
        constraints: as for `fold`.
        with_reliabilities: whether those are wanted of each base.
    """

    name, result = "structures", Fold
    options: FoldOptions

    def __init__(
        self,
        options: FoldOptions,
        probing: Probing | None = None,
        constraints: Mapping[str, str] | None = None,
        with_reliabilities: bool = False,
    ):
        super().__init__(options.resolved())
        options = self.options
        assert options.min_loop is not None
        if probing is None:
            options.check_unused()
        self.probing, self.with_reliabilities = probing, with_reliabilities
        self.constraints = Constraints(constraints, options.min_loop) if constraints else None
        self.prior = Prior(options.prior, probing, self.constraints) if options.prior else None

    def check(self, records: Iterable[FastaRecord]) -> Iterator[FastaRecord]:
        longest = FastaRecord("", "")
        for condition in (self.probing, self.constraints, self.prior):
            records = records if condition is None else condition.check(records)
        for record in records:
            longest = max(longest, record, key=lambda one: len(one.sequence))
            yield record
        gigabytes = _BYTES_A_PAIR * len(longest.sequence) ** 2 / 1e9
        if self.options.long == "window" and gigabytes >= 1:
            warnings.warn(
                f"{longest.id} has {len(longest.sequence)} nt: its map, assembled from windows, "
                f"and the optimisation take {gigabytes:.1f} GB of memory",
                stacklevel=2,
            )

    def load(self, source: Any) -> None:
        from ernie_rna.structures.pairing_maps import load_maps

        options = self.options
        how = options.layer, options.head, options.pairing_scores
        self.maps = load_maps(source, *how, **options.loading)
        self.model, self.source = self.maps.model, self.maps.origin
        if self.prior:
            self.maps.check_prior()
            self.source += f", and {self.prior.name}"
        config = self.model.config
        if options.pairing_scores == "zero" != config.pairing_scores and (
            config.weights_origin in _TRAINED_WITH_SCORES
        ):
            warnings.warn(
                "this model was trained with pairing scores; without them (--pairing-scores zero, "
                "--as-authors) it finds few pairs or none",
                stacklevel=2,
            )
        limit = chunks.nucleotide_limit(config)
        self.window = (limit, options.overlap) if options.long == "window" else None
        if self.window:
            chunks.check_overlap(options.overlap, limit)
        tokens = chunks.resolve_batch_tokens(options.batch_tokens, self.model.device)
        most = min(chunks.TOKENS_OF_MAPS, chunks.CHUNK_BATCHES * tokens)
        self.plan = chunks.Plan(
            tokens,
            self.maps.cost,
            chunk_tokens=most if options.matrix else None,
            squared_from=self.maps.squared_from,
        )

    def compute(self, records: list[FastaRecord], pieces: list[Piece]) -> Iterator[Fold]:
        import torch

        from ernie_rna.model.structures_ernie_rna import solve_each

        texts, how = [record.sequence for record in records], self.maps
        maps = how.of(texts, self.window)  # (batch, length, length)
        if self.probing or self.prior or self.constraints:
            maps = maps.to(torch.float32, copy=True)
        inside = [slice(len(text)) for text in texts]  # without the padding
        own = [scores[part, part] for scores, part in zip(maps, inside, strict=True)]
        odds = [self._log_odds(*both) for both in zip(records, own, strict=True)]
        least: Any = self.options.min_loop
        solved = solve_each(maps, texts, min_loop=least, threshold=how.threshold)
        for record, part, scores, log_odds, contacts in zip(
            records, inside, own, odds, solved, strict=True
        ):
            if isinstance(contacts, str):
                nothing = Structure(record.id, record.sequence, [], record.description)
                yield Fold(nothing, problem=contacts)
            else:
                yield self._read_off(record, scores, log_odds, contacts[part, part])

    def _log_odds(self, record: FastaRecord, scores: Tensor) -> Tensor | None:
        """Those of the pairs of a sequence, if they are wanted and its map says something of them.

        Args:
            scores: its map, (length, length), to which is added what else is known of it.
        """
        import torch

        from ernie_rna.model.structures_ernie_rna import allowed_pairs

        prior = log_odds = None
        if self.probing is not None:
            shift = torch.from_numpy(self.probing.log_odds(record)).to(scores) / self.maps.slope
            scores += shift[:, None] + shift
        if self.prior is not None:
            prior = torch.from_numpy(self.prior.log_odds(record)).to(scores)
        if self.with_reliabilities or self.options.matrix == "probabilities":
            log_odds = self.maps.log_odds(scores, prior)
        if prior is not None:
            scores.copy_(self.maps.add_prior(scores, prior))
        if self.constraints is not None:
            how: Any = {"min_loop": self.options.min_loop, "device": scores.device}
            (allowed,) = allowed_pairs([record.sequence], **how)
            self.constraints.apply(record, scores, allowed, self.maps.threshold)
            if log_odds is not None:
                self.constraints.apply(record, log_odds, allowed, 0.0)
        return log_odds

    def _read_off(
        self, record: FastaRecord, scores: Tensor, log_odds: Tensor | None, contacts: Tensor
    ) -> Fold:
        """What is wanted of a sequence, by its maps, (length, length) each."""
        from ernie_rna.model.structures_ernie_rna import pair_probabilities, predict_pairs
        from ernie_rna.structures.confidence import base_reliabilities

        options: Any = self.options
        pairs = predict_pairs(contacts, min_stem=options.min_stem, pseudoknots=options.pseudoknots)
        asked = self.constraints.pairs(record) if self.constraints else []
        if asked and not options.pseudoknots:  # of those asked for, none cross
            pairs = [one for one in pairs if len(nested_pages(sorted({one, *asked}))) == 1]
        pairs = sorted({*pairs, *asked})
        structure = Structure(record.id, record.sequence, pairs, record.description)
        maps = {"scores": scores, "contacts": contacts}
        if log_odds is not None:
            how: Any = {"min_loop": options.min_loop}
            (maps["probabilities"],) = pair_probabilities(log_odds[None], [record.sequence], **how)
        else:  # A base keeps to about one partner, not exactly, so that a contact may pass 1.
            maps["probabilities"] = contacts.float().clamp(max=1.0)
        for i, j in asked:
            maps["probabilities"][[i, j], [j, i]] = 1.0
        matrix = sure = None
        if options.matrix:
            matrix = maps[options.matrix].to("cpu").float().numpy().copy()
        if self.with_reliabilities:
            sure = base_reliabilities(maps["probabilities"].cpu().numpy(), structure)
        return Fold(structure, matrix, reliabilities=sure)

    def write(self, results: Iterable[Any], outputs: Sequence[Output[Fold]]) -> Written:
        unsolved: list[str] = []
        pairs = 0

        def solved() -> Iterator[Fold]:
            nonlocal pairs
            for one in results:
                pairs += len(one.structure.pairs)
                if one.problem is None:
                    yield one
                else:
                    unsolved.append(f"{one.id} has no structure: {one.problem}")

        files, unwritten = super().write(solved(), outputs)
        if not pairs:
            warnings.warn("no structure has any pair", stacklevel=2)
        return files, [*unsolved, *unwritten]

    def nbytes(self, found: Survey) -> int:
        squares = sum(length**2 * count for length, count in found.lengths.items())
        return 4 * squares if self.options.matrix else 4 * found.nucleotides

    def describe_settings(self) -> dict[str, Any]:
        options, config = self.options, self.model.config
        return {
            "source": self.maps.source,
            "threshold": self.maps.threshold,
            "pairing_scores": options.pairing_scores or config.pairing_scores,
            "reliabilities": self.with_reliabilities,
            "overlap": options.overlap if self.window else None,
            "reactivities": self.probing and self.probing.digest,
            "constraints": self.constraints and self.constraints.digest,
            # With the numbers by which it enters logits and probabilities.
            "prior": self.prior
            and [self.prior.name, config.pair_prior, config.pair_prior_calibration],
        }
