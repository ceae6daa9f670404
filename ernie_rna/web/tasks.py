"""The jobs of the page: records in, files in a folder and a line about them out.

Files whose names end in .svg are pictures to be shown, in this order; all can be downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from ernie_rna.data import examples
from ernie_rna.embeddings.embed import embed
from ernie_rna.embeddings.readers import read_embeddings
from ernie_rna.plots.arcs import plot_arcs
from ernie_rna.plots.layout import plot_layout
from ernie_rna.plots.maps import plot_all_heads, plot_pairing_map
from ernie_rna.plots.substitutions import plot_effects
from ernie_rna.plots.vectors import plot_components
from ernie_rna.run.loading import load_masked_lm, resolve_device
from ernie_rna.scoring.letter_scores import NUCLEOTIDES
from ernie_rna.scoring.mutate import mutate
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.sequences.long import nucleotide_limit
from ernie_rna.structures.confidence import (
    BASES_HEADER,
    PAIRS_HEADER,
    base_lines,
    base_reliabilities,
    pair_lines,
)
from ernie_rna.structures.fold import Fold, fold
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.structures.formats.dot_bracket import BasePair
from ernie_rna.structures.formats.output import MatrixWriter, Write, open_output, open_table
from ernie_rna.structures.pairing_maps import HEAD, PairingMaps, head_maps, load_maps


@dataclass(frozen=True)
class Description:
    """What the page needs to know of a model.

    Attributes:
        nucleotides: of the longest sequence that it was trained on.
        layers, heads: how many.
        source: what structures are read off.
        has_random_weights: whether it was never trained.
    """

    nucleotides: int
    layers: int
    heads: int
    source: str
    has_random_weights: bool


@dataclass(frozen=True)
class Result:
    """What a job has made: files, of which the pictures are shown, and a text about them."""

    text: str
    files: list[Path]

    @property
    def pictures(self) -> list[Path]:
        return [file for file in self.files if file.suffix == ".svg"]


class Tasks:
    """The models, loaded when they are first needed, and what can be done with them.

    Args:
        models: name -> folder or Hub id.
        device: of torch.
        threads: of torch on a CPU; None leaves them as they are.
    """

    def __init__(self, models: Mapping[str, str], device: str, threads: int | None):
        logging.disable_progress_bar()
        self.device = resolve_device(device)
        self._models = models
        if threads is not None:
            torch.set_num_threads(threads)
        # A model stays loaded: there are few, and the page is for nothing else.
        self._maps = cache(self._load_maps)
        self._masked_lm = cache(self._load_masked_lm)

    def _load_maps(self, model: str) -> PairingMaps:
        maps = load_maps(self._models[model], None, None, None, device=str(self.device))
        # Where the folder is on the server is in no file that somebody downloads.
        maps.model.config._name_or_path = model
        return maps

    def _load_masked_lm(self, model: str) -> Any:
        return load_masked_lm(self._models[model], device=str(self.device))

    def _encoder(self, model: str) -> Any:
        loaded = self._maps(model).model
        return getattr(loaded, "ernie_rna", loaded)

    def describe(self) -> dict[str, Description]:
        """Load all models and tell what they are.

        Raises:
            ValueError, OSError: one of them cannot be loaded.
        """
        return {name: self._describe(name) for name in self._models}

    def _describe(self, model: str) -> Description:
        maps = self._maps(model)
        config = maps.model.config
        return Description(
            nucleotides=nucleotide_limit(config),
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            source=maps.source,
            has_random_weights=config.weights_origin == "random",
        )

    def fold(self, folder: Path, model: str, records: list[FastaRecord]) -> Result:
        """Structures of all records as text and files."""
        files = [folder / name for name in ("structures.dbn", "structures.ct", "pairs.tsv")]
        files += [folder / "bases.tsv", folder / "probabilities.npz"]
        problems = []
        with ExitStack() as stack:
            openings = [open_output(str(file)) for file in (*files[:2], files[-1])]
            openings.append(open_table(str(files[2]), PAIRS_HEADER, pair_lines))
            openings.append(open_table(str(files[3]), BASES_HEADER, base_lines))
            writers = [stack.enter_context(opening) for opening in openings]
            for folded in fold(records, self._maps(model).model, matrix="probabilities"):
                problems += _write(folded, writers)
        text = files[0].read_text(encoding="utf-8")
        return Result("\n".join([text.rstrip(), *problems]), files)

    def draw(self, folder: Path, model: str, record: FastaRecord) -> Result:
        """The structure of one record, with its loops and as arcs."""
        maps = self._maps(model)
        (folded,) = fold([record], maps.model, matrix="probabilities")
        if folded.problem is not None:
            raise ValueError(f"{record.id} has no structure: {folded.problem}")
        assert folded.matrix is not None
        structure, files = folded.structure, [folder / "drawing.svg", folder / "arcs.svg"]
        title = _title(record, model, maps.source)
        plot_layout(
            record.sequence,
            structure.pairs,
            values=base_reliabilities(folded.matrix, structure).tolist(),
            title=title,
            path=files[0],
        )
        known = _known_pairs(record)
        plot_arcs(record.sequence, structure.pairs, known, title=title, path=files[1])
        below = "" if known is None else "; its known structure is below the arcs"
        return Result(f"{record.id}: {len(structure.pairs)} base pairs{below}", files)

    def pairing_map(
        self,
        folder: Path,
        model: str,
        record: FastaRecord,
        layer: int | None,
        head: int | None,
    ) -> Result:
        """What structures are read off; or the scores of a layer, of one head or of all (None)."""
        picture, matrix = folder / "map.svg", folder / "map.npz"
        if layer is not None and head is None:
            encoder = self._encoder(model)
            values = head_maps(encoder, record.sequence, layer).float().cpu().numpy()
            title = _title(record, model, f"layer {layer}")
            plot_all_heads(values, record.sequence, highlight=HEAD, title=title, path=picture)
            text = f"{len(values)} heads; structures without training are read off head {HEAD}"
        else:
            chosen = self._maps(model).model if layer is None else self._encoder(model)
            source = self._maps(model) if layer is None else load_maps(chosen, layer, head, None)
            (folded,) = fold([record], chosen, layer=layer, head=head, matrix="scores")
            if folded.problem is not None or folded.matrix is None:
                raise ValueError(f"{record.id} has no structure: {folded.problem}")
            values, pairs = folded.matrix, folded.structure.pairs
            plot_pairing_map(
                values,
                record.sequence,
                pairs=pairs,
                title=_title(record, model, source.source),
                label=source.label,
                path=picture,
            )
            text = f"{record.id}: {len(pairs)} base pairs are read off this map"
        with MatrixWriter(matrix) as writer:
            writer.write(record.id, values)
        return Result(text, [picture, matrix])

    def substitutions(self, folder: Path, model: str, record: FastaRecord, masked: bool) -> Result:
        """What every other letter would do at each position."""
        (scores,) = mutate([record], self._masked_lm(model), masked=masked)
        picture, arrays = folder / "substitutions.svg", folder / "substitutions.npz"
        plot_effects(scores, title=_title(record, model, "substitutions"), path=picture)
        np.savez_compressed(
            arrays,
            sequence=np.array(scores.sequence),
            letters=np.array(NUCLEOTIDES),
            log_probabilities=scores.log_probabilities,
            effects=scores.effects,
        )
        perplexity = f"pseudo-perplexity {scores.pseudo_perplexity:.2f}"
        text = f"{record.id}: {perplexity} (1 at best, 4 for a guess)"
        return Result(text, [picture, arrays])

    def embeddings(self, folder: Path, model: str, records: list[FastaRecord]) -> Result:
        """A vector for each record, drawn in two dimensions."""
        picture, vectors = folder / "embeddings.svg", folder / "embeddings.npz"
        embed(records, self._encoder(model), vectors, progress=False)
        means = [next(iter(one.arrays.values())) for one in read_embeddings(vectors)]
        plot_components(
            np.array(means),
            [record.id for record in records],
            groups=_families(records),
            title=f"{len(records)} RNAs\n{model}, mean vectors of the last layer",
            path=picture,
        )
        text = f"{len(records)} vectors of {len(means[0])} numbers, in two principal components"
        return Result(text, [picture, vectors])


def _write(folded: Fold, writers: Sequence[Write]) -> list[str]:
    """Write a structure; return why it is missing from an output."""
    id = folded.structure.id
    if folded.problem is not None:
        return [f"{id} has no structure: {folded.problem}"]
    try:
        for write in writers:
            write(folded)
    except ValueError as error:
        return [f"{id} is not in every file: {error}"]
    return []


def _families(records: list[FastaRecord]) -> list[str] | None:
    """The last word of each header, if all have more than an id and some share it."""
    words = [record.description.split()[-1:] for record in records]
    families = [word for some in words for word in some]
    is_shared = len(set(families)) < len(families) == len(records)
    return families if is_shared else None


def _title(record: FastaRecord, model: str, source: str) -> str:
    return f"{record.id}, {len(record.sequence)} nt\n{model}, {source}"


@cache
def _examples() -> dict[str, list[BasePair]]:
    known = read_structures(examples() / "rna.dbn")
    return {structure.sequence: structure.pairs for structure in known}


def _known_pairs(record: FastaRecord) -> list[BasePair] | None:
    """The known pairs of an RNA that comes with this package."""
    return _examples().get(record.sequence)
