"""Predicts secondary structures, with a trained head or without any training on structures.

>>> for folded in fold(["GGGGAAAACCCC", "AUGC"], "folder-or-hub-id"):  # doctest: +SKIP
...     print(folded.structure.id, folded.structure.dot_bracket)
0 ((((....))))
1 ....

If the model has a secondary-structure head, its logits are the pairing map. Otherwise the map is
the attention scores of head 5 in the last layer, without the special tokens and made symmetric.
`solve_each` and `predict_pairs` of `model.structures_ernie_rna` turn the map into pairs. The
authors' script uses pairing scores of zero everywhere (it passes an array of the wrong shape to the
function that computes them), no minimum loop and no minimum stem; `as_authors=True` does the same.
By default the encoder uses pairing scores as in pretraining, a hairpin loop has at least 3 bases,
the fewest in a real RNA, and every pair is stacked on another.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ernie_rna.options import FoldOptions, OptionError, takes
from ernie_rna.run.matrices import MATRICES
from ernie_rna.run.outputs import files_of, output_path, refuse_inputs
from ernie_rna.run.runner import Output, RunSummary, Task, Written, iterate, run
from ernie_rna.sequences import chunks
from ernie_rna.sequences.chunks import Piece
from ernie_rna.sequences.fasta import FastaRecord, FilePath
from ernie_rna.sequences.sources import Sequences, Survey
from ernie_rna.sequences.tables import TABLES
from ernie_rna.structures.constraints import Constraints
from ernie_rna.structures.formats.dot_bracket import nested_pages
from ernie_rna.structures.formats.output import fold_outputs, suffix_of
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.structures.prior import Prior
from ernie_rna.structures.reactivities import Probing, Reactivities

if TYPE_CHECKING:
    from torch import Tensor

# Weights of these origins were trained with pairing scores; the authors' checkpoints do not say.
_TRAINED_WITH_SCORES = ("pretrained", "fine-tuned")
# Memory for each two bases of a long sequence; measured: 18.7 bytes at 6000 nt, 24.5 at 3000 nt.
_BYTES_A_PAIR = 20


@dataclass(frozen=True)
class Fold:
    """The structure of one sequence.

    Attributes:
        structure: id, sequence (with the letters of the input) and base pairs.
        matrix: (length, length) in float32 if one was requested, else None.
        problem: why there is no structure, else None. With a problem, the structure has no pairs
            and the arrays are None.
        reliabilities: (length,) in float32 if requested, see `confidence.base_reliabilities`.
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

    Order, resuming and sharing work as in `embeddings.embed.embed`. A sequence gets the same result
    alone and in any batch (contacts to within 1e-6). Only A-U, G-C and G-U pair; T is read as U,
    and N and the other letters stay unpaired.

    Args:
        sequences: as for `embeddings.embed.embed`.
        model: folder, Hub id, "mini", an `ErnieRnaForSecondaryStructure` or an `ErnieRnaModel`.
        output: one or several files or folders, whose extensions name the formats, see
            `formats.output`; "-" is standard output. Without any output or table, yields.
        pairs: table to write, with a line for each pair and its probability.
        bases: table to write, with a line for each base, its partner and its reliability.
        reactivities: chemical probing data that shift the map, see `structures.reactivities`: a
            file or folder, or a mapping from id to one number for each base.
        constraints: maps an id to one of `.x|<>()` for each base, see `structures.constraints`.

    Yields:
        A `Fold` for every sequence. If its optimisation diverges or its scores are not finite, it
        has a `problem`; the others are not affected.

    Raises:
        InputError: also if reactivities are given, but not for every sequence.
        Other errors are those of `embeddings.embed.embed`; EncodingError only for lack of memory.
    """
    several = isinstance(output, Iterable) and not isinstance(output, (str, PathLike))
    destinations: Any = output if several else [] if output is None else [output]
    paths = [output_path(path) for path in destinations]
    named = {"pairs": pairs, "bases": bases}
    tables = [None if path is None else output_path(path, name) for name, path in named.items()]
    inputs = [*files_of(reactivities, TABLES), *files_of(options.prior, [MATRICES])]
    refuse_inputs([*paths, *filter(None, tables)], inputs)
    outputs = fold_outputs(paths, *tables)
    if outputs:
        has_npz = any(suffix_of(path) == MATRICES for path in paths)
        if options.matrix and not has_npz:
            raise OptionError("matrix", f"{options.matrix} needs an .npz output; name one")
        options = replace(options, matrix=(options.matrix or "contacts") if has_npz else None)
    probing = None if reactivities is None else Probing(reactivities, options)
    task = FoldTask(options, probing, constraints, with_reliabilities=any(tables))
    return run(task, sequences, model, outputs) if outputs else iterate(task, sequences, model)


class FoldTask(Task[Fold]):
    """Predicts a structure for each sequence.

    Args:
        probing: the reactivities, if there are any.
        constraints: as for `fold`.
        with_reliabilities: whether to compute the reliability of each base.
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
        for evidence in (self.probing, self.constraints, self.prior):
            records = evidence.check(records) if evidence else records
        for record in records:
            longest = max(longest, record, key=lambda record: len(record.sequence))
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
        self.maps = load_maps(
            source, options.layer, options.head, options.pairing_scores, **options.loading
        )
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
        most = chunks.TOKENS_OF_MAPS if options.matrix else None
        cost, squared_from = self.maps.cost, self.maps.squared_from
        self.plan = chunks.Plan(tokens, cost, chunk_tokens=most, squared_from=squared_from)

    def compute(self, records: list[FastaRecord], pieces: list[Piece]) -> Iterator[Fold]:
        import torch

        from ernie_rna.model.structures_ernie_rna import solve_each

        texts = [record.sequence for record in records]
        maps = self.maps.of(texts, self.window)  # (batch, length, length)
        if self.probing or self.prior or self.constraints:
            maps = maps.to(torch.float32, copy=True)
        # Views without the padding: evidence that is added to them is added to `maps`.
        all_scores = [maps[n, : len(text), : len(text)] for n, text in enumerate(texts)]
        all_log_odds = [self._add_evidence(*pair) for pair in zip(records, all_scores, strict=True)]
        min_loop: Any = self.options.min_loop
        solved = solve_each(maps, texts, min_loop=min_loop, threshold=self.maps.threshold)
        results = zip(records, all_scores, all_log_odds, solved, strict=True)
        for record, scores, log_odds, contacts in results:
            if isinstance(contacts, str):
                unpaired = Structure(record.id, record.sequence, [], record.description)
                yield Fold(unpaired, problem=contacts)
            else:
                bases = slice(len(record.sequence))
                yield self._read_off(record, scores, log_odds, contacts[bases, bases])

    def _add_evidence(self, record: FastaRecord, scores: Tensor) -> Tensor | None:
        """Add reactivities, prior and constraints to a sequence's map, (length, length), in place.

        Returns the log-odds of its pairs if they are needed and the map can be converted to them.
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
            min_loop: Any = self.options.min_loop
            (allowed,) = allowed_pairs([record.sequence], min_loop=min_loop, device=scores.device)
            self.constraints.apply(record, scores, allowed, self.maps.threshold)
            if log_odds is not None:
                self.constraints.apply(record, log_odds, allowed, 0.0)
        return log_odds

    def _read_off(
        self, record: FastaRecord, scores: Tensor, log_odds: Tensor | None, contacts: Tensor
    ) -> Fold:
        """Build the result of a sequence from its maps, (length, length) each."""
        from ernie_rna.model.structures_ernie_rna import pair_probabilities, predict_pairs
        from ernie_rna.structures.confidence import base_reliabilities

        options: Any = self.options
        pairs = predict_pairs(contacts, min_stem=options.min_stem, pseudoknots=options.pseudoknots)
        required = self.constraints.pairs(record) if self.constraints else []
        if required and not options.pseudoknots:  # Required pairs never cross one another.
            pairs = [pair for pair in pairs if len(nested_pages(sorted({pair, *required}))) == 1]
        pairs = sorted({*pairs, *required})
        structure = Structure(record.id, record.sequence, pairs, record.description)
        if log_odds is None:  # The optimisation may exceed one partner, and so a contact 1.
            probabilities = contacts.float().clamp(max=1.0)
        else:
            (probabilities,) = pair_probabilities(
                log_odds[None], [record.sequence], min_loop=options.min_loop
            )
        for i, j in required:
            probabilities[[i, j], [j, i]] = 1.0
        matrix = reliabilities = None
        if options.matrix:
            maps = {"scores": scores, "contacts": contacts, "probabilities": probabilities}
            matrix = maps[options.matrix].to("cpu").float().numpy().copy()
        if self.with_reliabilities:
            reliabilities = base_reliabilities(probabilities.cpu().numpy(), structure)
        return Fold(structure, matrix, reliabilities=reliabilities)

    def write(self, results: Iterable[Any], outputs: Sequence[Output[Fold]]) -> Written:
        unsolved: list[str] = []
        num_pairs = 0

        def solved() -> Iterator[Fold]:
            nonlocal num_pairs
            for folded in results:
                num_pairs += len(folded.structure.pairs)
                if folded.problem is None:
                    yield folded
                else:
                    unsolved.append(f"{folded.id} has no structure: {folded.problem}")

        files, unwritten = super().write(solved(), outputs)
        if not num_pairs:
            warnings.warn("no structure has any pair", stacklevel=2)
        return files, [*unsolved, *unwritten]

    def nbytes(self, survey: Survey) -> int:
        if not self.options.matrix:
            return 4 * survey.nucleotides
        return sum(4 * length**2 * count for length, count in survey.lengths.items())

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
            # With the weights with which it enters the logits and the probabilities.
            "prior": self.prior
            and [self.prior.name, config.pair_prior, config.pair_prior_calibration],
        }
