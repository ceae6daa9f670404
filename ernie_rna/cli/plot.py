"""`ernie-rna plot`: the pairing map, the maps of all heads, or the structure of a sequence."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_rna.cli.checks import check_input, check_model
from ernie_rna.cli.options import (
    add_computing,
    add_fasta,
    add_input_rules,
    add_model,
    add_reading_off,
    computing,
    new_parser,
    reading_off,
)
from ernie_rna.extras import import_extra
from ernie_rna.run.outputs import check_output_files

if TYPE_CHECKING:
    from ernie_rna.sequences.fasta import FastaRecord
    from ernie_rna.structures.fold import Fold
    from ernie_rna.structures.formats.dot_bracket import BasePair
    from ernie_rna.structures.pairing_maps import PairingMaps

_DESCRIPTION = """\
Draw what the model makes of a sequence, by matplotlib (pip install "ernie-rna[plot]").

  map     what structures are read off: the logits of the model's head for structures, or, without
          one or with --layer or --head, the symmetric scores of a layer and head; circles below
          the diagonal mark the base pairs that `ernie-rna fold` finds in it
  heads   the symmetric scores of all heads of a layer, with --head framed
  arcs    the structure that `ernie-rna fold` finds, an arc for each base pair; with --reference
          the known one below it
  layout  the structure that `ernie-rna fold` finds, with its stems and loops, each base coloured
          by its reliability as `ernie-rna fold --bases` writes it (needs the extra vienna as well)
  closeness   the probabilities of two bases to be near one another in space, by a model with a
          head for that, as `ernie-rna closeness` writes them

The extension of OUT names the format: .png, .svg or .pdf. Positions count from 1.
"""
_EXAMPLES = """\
  ernie-rna plot rna.fasta -m MODEL --id tRNA --what map -o map.png
  ernie-rna plot rna.fasta -m MODEL --id tRNA --what heads --layer 6 -o heads.svg
  ernie-rna plot rna.fasta -m MODEL --id tRNA --what arcs --reference known.ct -o arcs.svg
  ernie-rna plot rna.fasta -m MODEL --id tRNA --what arcs --confidence -o arcs.svg
  ernie-rna plot rna.fasta -m MODEL --id tRNA --what layout -o drawing.svg
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = new_parser(
        subparsers, "plot", "pictures of pairing maps and structures", _DESCRIPTION, _EXAMPLES
    )
    add_fasta(parser)
    add_model(parser)
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="OUT", help="picture to write")
    add("--id", help="which sequence; may be left out where there is just one")
    add("--what", choices=tuple(_DRAW), default="map", help="see above (map)")
    add(
        "--reference",
        metavar="FILE",
        help="known structures (.tsv, .ct, .bpseq, .dbn or a folder); that with the same id is "
        "drawn below the predicted one (arcs), or marked in its place (map)",
    )
    add(
        "--confidence",
        action="store_true",
        help="colours say how sure the model is, of each predicted pair (arcs) or of all (map): "
        "the numbers of `ernie-rna fold --pairs`",
    )
    add("--title", help="line above the picture; by default what it shows")
    add("--force", action="store_true", help="replace OUT if it exists")
    add_input_rules(parser)
    add_reading_off(parser)
    add_computing(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw as the arguments say."""
    from ernie_rna.plots.figures import EXTENSIONS
    from ernie_rna.sequences.fasta import read_fasta

    output = Path(args.output)
    if output.suffix.lower() not in EXTENSIONS:
        raise ValueError(f"{output}: the extension must be one of {', '.join(EXTENSIONS)}")
    if args.what in ("heads", "closeness", "layout") and args.reference:
        raise ValueError(f"--what {args.what} shows no known pairs: leave out --reference")
    if args.what not in ("map", "arcs") and args.confidence:
        raise ValueError(f"--confidence is of --what map and arcs, not of {args.what}")
    check_output_files([args.output], args.force)
    check_input(args.input)
    check_model(args.model, args.revision)
    import_extra("matplotlib", "plot", "a plot")
    if args.what == "layout":
        import_extra("RNA", "vienna", "a drawing of stems and loops")
    reading_off(args)
    record = find_record(read_fasta(args.input, args.unknown), args.id)
    known = find_reference(args.reference, record) if args.reference else None
    # From here on seconds pass.
    from transformers.utils import logging

    from ernie_rna.run.threads import use_threads

    logging.disable_progress_bar()
    with use_threads(args.threads):
        _DRAW[args.what](args, record, known, output)
    return 0


def find_record(records: Iterator[FastaRecord], id: str | None) -> FastaRecord:
    """The record with an id; without one, the only record.

    Raises:
        ValueError: there is no such record, or there are several to choose from.
    """
    if id is not None:
        found = next((record for record in records if record.id == id), None)
        if found is None:
            raise ValueError(f"no sequence has the id {id!r}; the ids are first words of headers")
        return found
    first, *others = [record for record, _ in zip(records, range(2), strict=False)]
    if others:
        raise ValueError(f"there are several sequences: name one by --id, such as {first.id}")
    return first


def find_reference(path: str, record: FastaRecord) -> list[BasePair]:
    """The known pairs of a record, from a file or folder of structures.

    Raises:
        ValueError: there is no structure with its id, or it is of another length.
    """
    from ernie_rna.structures.formats.by_extension import read_structures

    known = next((one for one in read_structures(path) if one.id == record.id), None)
    if known is None:
        raise ValueError(f"{path} has no structure with the id {record.id!r}")
    if len(known.sequence) != len(record.sequence):
        raise ValueError(
            f"{record.id} has {len(record.sequence)} nt, {len(known.sequence)} in {path}"
        )
    return known.pairs


def _load(args: argparse.Namespace, layer: int | None) -> PairingMaps:
    from ernie_rna.structures.pairing_maps import load_maps

    loading = {name: getattr(args, name) for name in _LOADING}
    pairing_scores = reading_off(args)["pairing_scores"]
    return load_maps(args.model, layer, args.head, pairing_scores, **loading)


def _fold(
    args: argparse.Namespace, maps: PairingMaps, record: FastaRecord, matrix: str | None
) -> Fold:
    from ernie_rna.structures.fold import fold

    # The model is loaded already, as these say.
    keywords = {name: value for name, value in computing(args).items() if name not in _LOADING}
    (folded,) = fold([record], maps.model, matrix=matrix, **reading_off(args), **keywords)
    if folded.problem is not None:
        raise ValueError(f"{record.id} has no structure: {folded.problem}")
    return folded


def _draw_map(
    args: argparse.Namespace, record: FastaRecord, known: list[BasePair] | None, output: Path
) -> None:
    from ernie_rna.plots.maps import plot_pairing_map

    maps = _load(args, args.layer)
    folded = _fold(args, maps, record, "probabilities" if args.confidence else "scores")
    assert folded.matrix is not None
    plot_pairing_map(
        folded.matrix,
        record.sequence,
        pairs=folded.structure.pairs,
        known=known,
        title=_title(args, record, maps.source),
        label=maps.certainty if args.confidence else maps.label,
        limits=(0.0, 1.0) if args.confidence else None,
        path=output,
    )


def _draw_heads(
    args: argparse.Namespace, record: FastaRecord, known: list[BasePair] | None, output: Path
) -> None:
    from ernie_rna.plots.maps import plot_all_heads
    from ernie_rna.sequences.sources import Intake
    from ernie_rna.structures.pairing_maps import HEAD, LAYER, head_maps

    layer = LAYER if args.layer is None else args.layer
    maps = _load(args, layer)
    Intake([record], args.long, args.unknown).records(maps.model.config)
    plot_all_heads(
        head_maps(maps.model, record.sequence, layer, reading_off(args)["pairing_scores"]),
        record.sequence,
        highlight=HEAD if args.head is None else args.head,
        title=_title(args, record, maps.source.partition(",")[0]),
        label=maps.label,
        path=output,
    )


def _draw_arcs(
    args: argparse.Namespace, record: FastaRecord, known: list[BasePair] | None, output: Path
) -> None:
    from ernie_rna.plots.arcs import plot_arcs

    maps = _load(args, args.layer)
    folded = _fold(args, maps, record, "probabilities" if args.confidence else None)
    plot_arcs(
        record.sequence,
        folded.structure.pairs,
        known,
        probabilities=folded.matrix,
        label=maps.certainty,
        title=_title(args, record, maps.source),
        path=output,
    )


def _draw_layout(
    args: argparse.Namespace, record: FastaRecord, known: list[BasePair] | None, output: Path
) -> None:
    from ernie_rna.plots.layout import plot_layout
    from ernie_rna.structures.confidence import base_reliabilities

    maps = _load(args, args.layer)
    folded = _fold(args, maps, record, "probabilities")
    assert folded.matrix is not None
    plot_layout(
        record.sequence,
        folded.structure.pairs,
        values=base_reliabilities(folded.matrix, folded.structure).tolist(),
        title=_title(args, record, maps.source),
        path=output,
    )


def _draw_closeness(
    args: argparse.Namespace, record: FastaRecord, known: list[BasePair] | None, output: Path
) -> None:
    from ernie_rna.plots.maps import plot_pairing_map
    from ernie_rna.structures.closeness import closeness

    keywords = {"pairing_scores": reading_off(args)["pairing_scores"], **computing(args)}
    (result,) = closeness([record], args.model, **keywords)
    plot_pairing_map(
        result.probabilities,
        record.sequence,
        title=_title(args, record, "closeness"),
        label="probability to be close in space",
        path=output,
    )


def _title(args: argparse.Namespace, record: FastaRecord, source: str) -> str:
    if args.title is not None:
        return str(args.title)
    name = Path(args.model).resolve().name if Path(args.model).is_dir() else args.model
    zero = ", pairing scores zero" if reading_off(args)["pairing_scores"] == "zero" else ""
    return f"{record.id}, {len(record.sequence)} nt\n{name}, {source}{zero}"


_LOADING = ("dtype", "device", "attention", "revision")
_DRAW = {
    "map": _draw_map,
    "heads": _draw_heads,
    "arcs": _draw_arcs,
    "layout": _draw_layout,
    "closeness": _draw_closeness,
}
