"""What a process of the page computes: pictures and files, by models that stay loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ernie_rna.data import MINI, examples
from ernie_rna.embeddings.embed import embed
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM
from ernie_rna.options import ServeOptions
from ernie_rna.plots.pictures import plot
from ernie_rna.run.loading import load, resolve_device
from ernie_rna.sequences.chunks import nucleotide_limit
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.structures.fold import fold
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.structures.pairing_maps import load_maps


@dataclass(frozen=True)
class Description:
    """A line about a model, its longest sequence, and how many layers and heads it has."""

    note: str
    nucleotides: int
    layers: int
    heads: int


@dataclass(frozen=True)
class Result:
    """What comes of a request.

    Attributes:
        captions: of pictures, by their files.
        files: others.
        text: structures in dot-bracket, and why some are missing.
    """

    captions: dict[Path, str]
    files: list[Path]
    text: str = ""


class Tasks:
    """Models that stay loaded, and what is computed by them.

    Args:
        models: name -> folder or Hub id.
        options: how they are loaded.
    """

    def __init__(self, models: Mapping[str, str], options: ServeOptions):
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        self.device = resolve_device(options.device)
        loading = {**options.loading, "device": str(self.device)}
        self._maps = {name: load_maps(source, **loading) for name, source in models.items()}
        self._masked_lm = cache(lambda name: load(ErnieRnaForMaskedLM, models[name], **loading))

    def describe(self) -> dict[str, Description]:
        return {name: self._describe(name) for name in self._maps}

    def _describe(self, name: str) -> Description:
        maps = self._maps[name]
        config = maps.model.config
        limit, is_random = nucleotide_limit(config), config.weights_origin == "random"
        note = "a small model of this project, not the authors'; " * (name == MINI)
        note += "**its weights are random, and nothing here means anything**; " * is_random
        note = f"{name}: {note}structures by {maps.source}; up to {limit} nt"
        return Description(note, limit, config.num_hidden_layers, config.num_attention_heads)

    def answer(
        self,
        folder: Path,
        what: str,
        model: str,
        records: list[FastaRecord],
        drawn: FastaRecord,
        **choices: Any,
    ) -> Result:
        """What comes of a request, see `requests.Requests.check`.

        Raises:
            ValueError: there is nothing to draw.
            EncodingError: a result is not finite, or memory does not suffice.
        """
        loaded: Any = self._maps[model].model
        if what == "substitutions":
            loaded = self._masked_lm(model)
        elif what == "embeddings":
            loaded = getattr(loaded, "ernie_rna", loaded)
        # Where the folder is on the server is in no file that somebody downloads.
        loaded.config._name_or_path = model
        if what == "fold":
            return _fold(records, drawn, loaded, folder)
        data, picture = folder / f"{what}.npz", folder / f"{what}.svg"
        if what == "embeddings":
            embed(records, loaded, data, progress=False)
            captions = {picture: plot(records, loaded, picture, what=what, progress=False).caption}
        else:
            captions = {picture: _draw(drawn, loaded, picture, what=what, values=data, **choices)}
        return Result(captions, [data])


def _fold(records: list[FastaRecord], drawn: FastaRecord, loaded: Any, folder: Path) -> Result:
    """Structures of all records, and pictures of that of one."""
    names = ("structures.dbn", "structures.ct", "probabilities.npz", "pairs.tsv", "bases.tsv")
    *files, pairs, bases = [folder / name for name in names]
    how: Any = {"matrix": "probabilities", "progress": False}
    done = fold(records, loaded, files, pairs=pairs, bases=bases, **how)
    text = "\n".join([files[0].read_text(encoding="utf-8").rstrip(), *done.problems])
    captions = {}
    if not any(problem.startswith(f"{drawn.id} has no") for problem in done.problems):
        for what in ("layout", "arcs"):
            picture = folder / f"{what}.svg"
            captions[picture] = _draw(drawn, loaded, picture, what=what)
    return Result(captions, [*files, pairs, bases], text)


def _draw(drawn: FastaRecord, loaded: Any, picture: Path, **choices: Any) -> str:
    known = _known().get(drawn.sequence)
    return plot([drawn], loaded, picture, known=known, progress=False, **choices).caption


@cache
def _known() -> dict[str, Any]:
    """The known pairs of the RNAs that come with this package, by sequence."""
    return {one.sequence: one.pairs for one in read_structures(examples() / "rna.dbn")}
