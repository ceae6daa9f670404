"""Requests of the page: checked, handed to a worker, and answered. It knows nothing of Gradio."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_rna.sequences.fasta import FastaRecord, InputError
from ernie_rna.web.inputs import Limits, check_masked, find_record, read_text
from ernie_rna.web.workers import Workers

if TYPE_CHECKING:
    from ernie_rna.web.tasks import Description, Result

# In place of a layer: what structures are read off; in place of a head: all of them.
AS_FOLDED = ALL_HEADS = -1


@dataclass(frozen=True)
class Desk:
    """What the page can do.

    Every method takes the text of the box and the name of a model, and raises InputError for what
    cannot be computed and `workers.TaskError` for what could not.

    Attributes:
        workers: started.
        limits: of a request.
        folder: where results are written, each into a folder of its own.
    """

    workers: Workers
    limits: Limits
    folder: Path

    @property
    def models(self) -> dict[str, Description]:
        models: dict[str, Description] = self.workers.models
        return models

    def records(self, text: str, model: str) -> list[FastaRecord]:
        """The records of a text that this model can take."""
        if model not in self.models:
            raise InputError(f"there is no model {model!r} here; choose {', '.join(self.models)}")
        most = min(self.limits.nucleotides, self.models[model].nucleotides)
        return read_text(text, replace(self.limits, nucleotides=most))

    def ids(self, text: str) -> list[str]:
        """The ids of a text; none if something is wrong with it, which is said when it is used."""
        try:
            return [record.id for record in read_text(text, self.limits)]
        except InputError:
            return []

    def fold(self, text: str, model: str) -> Result:
        return self._run("fold", model=model, records=self.records(text, model))

    def draw(self, text: str, model: str, id: str | None) -> Result:
        return self._run("draw", model=model, record=find_record(self.records(text, model), id))

    def pairing_map(self, text: str, model: str, id: str | None, layer: int, head: int) -> Result:
        return self._run(
            "pairing_map",
            model=model,
            record=find_record(self.records(text, model), id),
            layer=None if layer == AS_FOLDED else layer,
            head=None if ALL_HEADS in (layer, head) else head,
        )

    def check_substitutions(self, text: str, model: str, id: str | None, masked: bool) -> None:
        record = find_record(self.records(text, model), id)
        if masked:
            check_masked(record, self.limits)

    def substitutions(self, text: str, model: str, id: str | None, masked: bool) -> Result:
        self.check_substitutions(text, model, id, masked)
        record = find_record(self.records(text, model), id)
        return self._run("substitutions", model=model, record=record, masked=masked)

    def check_embeddings(self, text: str, model: str) -> None:
        if len(self.records(text, model)) < 2:
            raise InputError("a plot of vectors needs two RNAs or more, in FASTA")

    def embeddings(self, text: str, model: str) -> Result:
        self.check_embeddings(text, model)
        return self._run("embeddings", model=model, records=self.records(text, model))

    def _run(self, task: str, **arguments: Any) -> Result:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            result: Result = self.workers.run(task, folder=folder, **arguments)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return result


def decode(content: bytes) -> str:
    """The text of a file that somebody loads.

    Raises:
        InputError: it is no text.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(
            "this file is no plain text: take a FASTA file as it is, not compressed"
        ) from None
