"""What visitors ask for: read as on the command line, and checked before it waits."""

from __future__ import annotations

import contextlib
import io
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernie_rna.options import ServeOptions
from ernie_rna.sequences.fasta import OPTION, FastaRecord, InputError, check_records, read_fasta
from ernie_rna.web.tasks import Description, Pool, Result, answer

# What a sequence without a header is called.
UNNAMED = "RNA"
# Nucleotides of a sequence that is masked at each position in turn.
MASKED = 400
# Of all files that are served; the oldest go when there are more.
_BYTES = 1 << 30


def read_text(text: str, limits: ServeOptions) -> list[FastaRecord]:
    """The records of FASTA text, or one sequence without a header, on one line.

    Raises:
        InputError: there is nothing in it, a record is unfit, or it is more than the limits allow.
    """
    text = text.replace("\ufeff", "").strip()
    if not text:
        raise InputError("there is no RNA yet: paste one, load a file, or take an example")
    # Headers have some room.
    _check_size("the input", len(text), limits.nucleotides + 1000 * limits.sequences, "characters")
    lines = len(text.splitlines())
    if text[0] not in ">#" and lines > 1:
        raise InputError(
            f"{lines} lines without a header: write a line >name above them if they are one RNA, "
            "or above each of them if they are several"
        )
    try:
        if text[0] in ">#":
            records = list(read_fasta(io.BytesIO(text.encode("utf-8", "replace"))))
        else:
            bare = FastaRecord(UNNAMED, "".join(text.split()))
            records = list(check_records([bare], "the input"))
    except InputError as error:
        raise InputError(str(error).partition(OPTION)[0]) from None
    _check_size("the input", len(records), limits.sequences, "sequences")
    together = sum(len(record.sequence) for record in records)
    _check_size("the input", together, limits.nucleotides, "nt together")
    return records


def _check_size(what: str, size: int, most: int, unit: str) -> None:
    if size > most:
        raise InputError(
            f"{what} has {size} {unit}; this page takes up to {most} at a time, ernie-rna on a "
            "machine of your own takes more"
        )


def decode(content: bytes) -> str:
    """The text of a file that somebody loads; InputError if it is none."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(
            "this file is no plain text: take a FASTA file as it is, not compressed"
        ) from None


@dataclass(frozen=True)
class Requests:
    """What is computed for visitors.

    Attributes:
        pool: computes it.
        models: name -> what it is.
        limits: of a request.
        folder: where files are served from; each request has a folder in it.
    """

    pool: Pool
    models: dict[str, Description]
    limits: ServeOptions
    folder: Path

    def ids(self, text: str) -> list[str]:
        """The ids of a text; none if something is wrong with it, which is said when it is used."""
        try:
            return [record.id for record in read_text(text, self.limits)]
        except InputError:
            return []

    def check(
        self, what: str, text: str, model: str, id: str | None = None, **choices: Any
    ) -> dict[str, Any]:
        """What `answer` takes.

        Args:
            what: "fold", "embeddings", or what is drawn of one sequence, see `options.PlotOptions`.
            id: of that sequence; of one that is gone, as the text may have changed since, the first
                takes the place.
            choices: the prior of "fold", and options of `options.PlotOptions` for the others.

        Raises:
            InputError: it cannot be computed.
        """
        if model not in self.models:
            raise InputError(f"there is no model {model!r} here; choose {', '.join(self.models)}")
        records = read_text(text, self.limits)
        for record in records:
            _check_size(record.id, len(record.sequence), self.models[model].nucleotides, "nt")
        if choices.get("prior") and not self.models[model].has_prior:
            raise InputError(f"{model} has no weights for an energy prior: choose none")
        if what == "embeddings" and len(records) < 2:
            raise InputError("a plot of vectors needs two RNAs or more, in FASTA")
        drawn = next((record for record in records if record.id == id), records[0])
        if what == "substitutions" and choices["masked"] and len(drawn.sequence) > MASKED:
            raise InputError(
                f"{drawn.id} has {len(drawn.sequence)} nt; masking each position in turn is for up "
                f"to {MASKED} nt here: choose the single pass"
            )
        return {"what": what, "model": model, "records": records, "drawn": drawn, **choices}

    def answer(self, request: dict[str, Any]) -> Result:
        """What comes of a request, in files whose folder has a name that nobody can guess.

        Raises:
            TaskError: nothing comes of it.
        """
        make_room(self.folder)
        folder = self.folder / secrets.token_urlsafe(16)
        folder.mkdir()
        try:
            result: Result = self.pool.run(answer, folder=folder, **request)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return result


def make_room(folder: Path, size: int = _BYTES) -> None:
    """Remove the oldest files of requests while they take more than so many bytes."""
    found = []
    for path in folder.glob("*/*"):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = 0
    for _, bytes, path in sorted(found, reverse=True):
        total += bytes
        if total > size:
            path.unlink(missing_ok=True)
