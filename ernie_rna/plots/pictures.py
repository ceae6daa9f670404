"""Pictures of what a model predicts for an RNA, for `ernie-rna plot` and the web page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ernie_rna.embeddings.embed import embed
from ernie_rna.extras import import_extra
from ernie_rna.options import DRAWN_BESIDE, FOLDED, OptionError, PlotOptions, WindowOptions, takes
from ernie_rna.plots import drawings
from ernie_rna.run.find_model import find_model, model_files
from ernie_rna.run.matrices import MATRICES, write_matrices
from ernie_rna.run.outputs import check_output_files, files_of, output_path, refuse_inputs
from ernie_rna.run.runner import iterate
from ernie_rna.scoring.mutate import NUCLEOTIDES, mutate
from ernie_rna.sequences.fasta import FastaRecord, FilePath
from ernie_rna.sequences.sources import Sequences, as_source, check_lengths, survey
from ernie_rna.structures.closeness import closeness
from ernie_rna.structures.fold import Fold, FoldTask
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.structures.formats.dot_bracket import BasePair
from ernie_rna.structures.formats.structure import differing_base

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A drawn figure and its description.

    Attributes:
        figure: of matplotlib.
        shown: the RNA or RNAs that it shows.
        source: the output of the model that it shows, in a few words.
        caption: a line that explains the figure.
        values: the numbers that are drawn, by name.
    """

    figure: Figure
    shown: str
    source: str
    caption: str
    values: dict[str, np.ndarray]

    def title(self, model: Any) -> str:
        """Two lines: the RNA, and the model, which is a folder, a Hub id or the model itself."""
        from ernie_rna.run.provenance import model_name

        return f"{self.shown}\n{Path(model_name(model)).name}, {self.source}"

    def _repr_svg_(self) -> str | None:  # for notebooks
        return drawings.as_svg(lambda: self.figure)


@takes(PlotOptions)
def plot(
    sequences: Sequences,
    model: Any,
    output: FilePath,
    *,
    values: FilePath | None = None,
    known: Sequence[BasePair] | None = None,
    options: PlotOptions,
) -> Picture:
    """Draw a model's predictions for one sequence, or vectors of all, and save the picture.

    Args:
        sequences, model: as for `embed.embed`.
        output: .png, .svg or .pdf.
        values: .npz file for the numbers that are drawn.
        known: base pairs, counted from 0, to draw beside the predicted ones (map, arcs).

    Raises:
        InputError: a sequence is invalid or too long.
        ValueError: an option is invalid, known pairs are given for a kind that does not show them,
            there is no such sequence or reference, the model lacks the required head, or there is
            nothing to draw.
        OutputError: an output exists or is an input, or the disk is full.
    """
    what = options.what
    if options.matrix is not None:
        raise OptionError("matrix", f"does not apply to pictures; got {options.matrix!r}")
    if known is not None and what not in DRAWN_BESIDE:
        raise OptionError("known", f"pairs apply to {', '.join(DRAWN_BESIDE)}, not to {what}")
    outputs: dict[str, Sequence[str]] = {output_path(output): drawings.EXTENSIONS}
    if values is not None:
        outputs[output_path(values, "values")] = (MATRICES,)
    inputs = [sequences, options.reference, *files_of(options.prior, [MATRICES])]
    refuse_inputs(outputs, [*inputs, *model_files(model)])
    for path, extensions in outputs.items():
        check_output_files([path], options.force, extensions=extensions, streams=False)
    import_extra("matplotlib", "plot", "a plot")
    if what == "layout":
        import_extra("RNA", "vienna", "a drawing of stems and loops")
    resolved: Any = options.resolved() if what in FOLDED else options
    records = as_source(sequences, **options.reading).read()
    chosen = list(records) if what == "embeddings" else [_find_record(records, options.id)]
    if options.reference is not None:
        known = _find_reference(options.reference, chosen[0])
    source = find_model(model, options.revision)
    picture = _DRAW[what](chosen, source, resolved, known)
    title = picture.title(source) if options.title is None else options.title
    if options.title is None and resolved.pairing_scores == "zero":
        title += ", pairing scores zero"
    drawings.save(picture.figure, output, title)
    if values is not None:
        with write_matrices(values) as write:
            for name, array in picture.values.items():
                write(name, array)
    return picture


def _find_record(records: Iterable[FastaRecord], id: str | None) -> FastaRecord:
    """The record with an id, or the only record if the id is None."""
    if id is not None:
        ids = []
        for record in records:
            if record.id == id:
                return record
            ids.append(record.id)
        near = get_close_matches(id, ids, 1) or ids[:1]
        raise ValueError(
            f"no sequence has the id {id!r}, but one has {near[0]!r}; an id ends at the first blank"
        )
    first, *further = islice(records, 2)
    if further:
        raise ValueError(f"there are several sequences: choose one with --id, such as {first.id}")
    return first


def _find_reference(path: FilePath, record: FastaRecord) -> list[BasePair]:
    """The pairs of the structure in a file or folder that has the id of a record."""
    reference = next((known for known in read_structures(path) if known.id == record.id), None)
    if reference is None:
        raise ValueError(f"{path} has no structure with the id {record.id!r}")
    length, known_length = len(record.sequence), len(reference.sequence)
    if length != known_length:
        raise ValueError(f"{record.id} has {length} nt, but {known_length} nt in {path}")
    at = differing_base(record.sequence, reference.sequence)
    if at is not None:
        raise ValueError(f"{record.id} has a different base at position {at + 1} in {path}")
    return reference.pairs


def draw_fold(
    folded: Fold, task: FoldTask, what: str, known: Any = None, sure: bool = False
) -> Picture:
    """Draw a predicted structure.

    Args:
        folded: with its reliabilities, and a matrix: the scores for a map with `sure=False`, else
            the probabilities.
        task: the task that predicted it.
        what: map, arcs or layout.
        known: as for `plot`.
        sure: whether colours show the model's confidence.

    Raises:
        ValueError: there is no structure.
    """
    matrix, maps = folded.matrix, task.maps
    if matrix is None or folded.reliabilities is None:
        raise ValueError(f"{folded.id} has no structure: {folded.problem}")
    sequence, pairs = folded.structure.sequence, folded.structure.pairs
    source, label = maps.source, maps.label
    if task.prior is not None:
        name = task.prior.name.partition(",")[0]  # without the digest that the name of a file has
        source, label = f"{source}, and {name}", f"{label}, with the prior"
    caption = f"{folded.id}: {len(pairs)} base pairs"
    if what == "map":
        colours: Any = {"label": maps.certainty, "limits": (0.0, 1.0)} if sure else {"label": label}
        figure = drawings.plot_pairing_map(matrix, sequence, pairs=pairs, known=known, **colours)
        caption += " are read off this map"
    elif what == "arcs":
        colours = {"label": maps.certainty, "probabilities": matrix if sure else None}
        figure = drawings.plot_arcs(sequence, pairs, known, **colours)
        if known is not None:
            caption += "; its known structure is below the arcs"
    else:
        figure = drawings.plot_layout(sequence, pairs, values=folded.reliabilities.tolist())
    return Picture(figure, _shown(folded.structure), source, caption, {folded.id: matrix})


def _shown(record: Any) -> str:
    return f"{record.id}, {len(record.sequence)} nt"


def _structure(records: list[FastaRecord], model: Any, options: Any, known: Any) -> Picture:
    what, sure = options.what, options.confidence
    matrix = "scores" if what == "map" and not sure else "probabilities"
    task = FoldTask(replace(options, matrix=matrix), None, with_reliabilities=True)
    (folded,) = iterate(task, records, model)
    return draw_fold(folded, task, what, known, sure)


def _heads(records: list[FastaRecord], model: Any, options: Any, known: None) -> Picture:
    from ernie_rna.run.loading import use_threads
    from ernie_rna.structures.pairing_maps import HEAD, LAYER, head_maps, load_maps

    (record,) = records
    layer = LAYER if options.layer is None else options.layer
    head = HEAD if options.head is None else options.head
    maps = load_maps(model, layer, head, options.pairing_scores, **options.loading)
    check_lengths(survey(records), maps.model.config, options.long, ("error", "full"))
    with use_threads(options.threads):
        scores = head_maps(maps.model, record.sequence, layer, options.pairing_scores)
    values = scores.float().cpu().numpy()  # (heads, length, length)
    figure = drawings.plot_pairing_map(values, record.sequence, highlight=head, label=maps.label)
    caption = f"{len(values)} heads; structures without training are read off head {HEAD}"
    source = maps.source.partition(",")[0]
    return Picture(figure, _shown(record), source, caption, {record.id: values})


def _closeness(records: list[FastaRecord], model: Any, options: Any, known: None) -> Picture:
    (close,) = closeness(records, model, options=options)
    label, values = "probability to be close in space", {close.id: close.probabilities}
    figure = drawings.plot_pairing_map(close.probabilities, records[0].sequence, label=label)
    return Picture(figure, _shown(records[0]), "closeness", f"{close.id}: {label}", values)


def _substitutions(records: list[FastaRecord], model: Any, options: Any, known: None) -> Picture:
    results: Any = mutate(records, model, options=options)
    (scores,) = results
    perplexity = f"pseudo-perplexity {scores.pseudo_perplexity:.2f} (1 at best, 4 for a guess)"
    values = {
        "sequence": np.array(scores.sequence),
        "letters": np.array(list(NUCLEOTIDES)),
        "log_probabilities": scores.log_probabilities,
        "effects": scores.effects,
    }
    figure, caption = drawings.plot_effects(scores), f"{scores.id}: {perplexity}"
    return Picture(figure, _shown(scores), "substitutions", caption, values)


def _embeddings(records: list[FastaRecord], model: Any, options: Any, known: None) -> Picture:
    embed_options = {field.name: getattr(options, field.name) for field in fields(WindowOptions)}
    vectors = {result.id: result["mean"] for result in embed(records, model, **embed_options)}
    last_words = [word for record in records for word in record.description.split()[-1:]]
    groups = last_words if len(set(last_words)) < len(last_words) == len(records) else None
    means = np.array(list(vectors.values()))
    figure = drawings.plot_components(means, list(vectors), groups=groups)
    caption = f"{len(means)} vectors of {means.shape[1]} numbers, in two principal components"
    shown, source = f"{len(records)} RNAs", "mean vectors of the last layer"
    return Picture(figure, shown, source, caption, vectors)


_DRAW: dict[str, Callable[..., Picture]] = {
    **dict.fromkeys(FOLDED, _structure),
    "heads": _heads,
    "closeness": _closeness,
    "substitutions": _substitutions,
    "embeddings": _embeddings,
}
