"""What visitors ask for: read as on the command line, checked before it waits, and computed in
processes that can be stopped and cannot take the page down.

pebble keeps as many of them as are asked for, and ends one whose request takes too long. Each
loads the models once, before the time of a request counts. Memory is limited by the operating
system (Linux, on a CPU).
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import secrets
import shutil
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from ernie_rna.data import MINI, examples
from ernie_rna.embeddings.embed import embed
from ernie_rna.extras import import_extra
from ernie_rna.options import DRAWN_BESIDE, FoldOptions, ServeOptions
from ernie_rna.plots.drawings import save
from ernie_rna.plots.pictures import draw_fold, plot
from ernie_rna.run.runner import iterate
from ernie_rna.sequences import fasta
from ernie_rna.sequences.chunks import nucleotide_limit
from ernie_rna.sequences.fasta import FastaRecord, InputError
from ernie_rna.structures.fold import FoldTask
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.structures.formats.output import fold_outputs

# What a sequence without a header is called.
UNNAMED = "RNA"
# Nucleotides of a sequence that is masked at each position in turn.
MASKED = 400
# Of all files that are served; the oldest go when there are more.
_BYTES = 1 << 30
_SMALLER = "take fewer or shorter sequences"

# Name -> folder or Hub id.
Models = tuple[tuple[str, str], ...]


class TaskError(RuntimeError):
    """A request has no result; the message is for whoever asked."""


@dataclass(frozen=True)
class Description:
    """A line about a model, its longest sequence, how many layers and heads it has, and whether an
    energy prior can be added to its structures."""

    note: str
    nucleotides: int
    layers: int
    heads: int
    has_prior: bool


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


class Requests:
    """A context with processes that have loaded some models, and what is asked of them.

    Args:
        models: name -> folder or Hub id.
        limits: how many processes, how much one may take, and how much a request may ask for.
        folder: where files are served from; each request has a folder in it.

    Attributes:
        models: name -> what it is, once they are loaded.
    """

    def __init__(self, models: Mapping[str, str], limits: ServeOptions, folder: Path):
        self._pebble = import_extra("pebble", "web", "the web page")
        self._setup, self.limits, self.folder = (tuple(models.items()), limits), limits, folder
        self.models: dict[str, Description] = {}
        # Torch's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._start = partial(
            self._pebble.ProcessPool, limits.workers, 0, _load_first, self._setup, context
        )
        self._pool, self._lock = self._start(), threading.Lock()

    def __enter__(self) -> Requests:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.stop()
        self._pool.join()

    def load(self) -> None:
        """Have the models loaded; TaskError if one cannot be."""
        self.models = self.run(describe)

    def run(self, task: Callable[..., Any], **arguments: Any) -> Any:
        """The result of `compute`, which is limited in time, or `describe`.

        Raises:
            TaskError: it failed, took too long or too much memory; or no model can be loaded.
        """
        seconds = self.limits.seconds if task is compute else None
        with self._lock:
            if not self._pool.active:  # A process that had nothing to do was killed.
                self.__exit__()
                self._pool = self._start()
            future = self._pool.schedule(_run, (task, *self._setup, arguments), timeout=seconds)
        try:
            return future.result()
        except TimeoutError:
            problem = f"this took longer than the {seconds:g} seconds of a request"
        except (self._pebble.ProcessExpired, BrokenProcessPool):
            problem = "the process that computes ended, maybe for lack of memory"
        raise TaskError(f"{problem}: {_SMALLER}")

    def ids(self, text: str) -> list[str]:
        """The ids of a text; none if something is wrong with it, which is said when it is used."""
        try:
            return [record.id for record in read_text(text, self.limits)]
        except InputError:
            return []

    def check(
        self, what: str, text: str, model: str, id: str | None = None, **choices: Any
    ) -> dict[str, Any]:
        """What `compute` takes.

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
            result: Result = self.run(compute, folder=folder, **request)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return result


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
    if text[0] not in ">#":
        lines = len(text.splitlines())
        if lines > 1:
            raise InputError(
                f"{lines} lines without a header: write a line >name above them if they are one "
                "RNA, or above each of them if they are several"
            )
        text = f">{UNNAMED}\n{''.join(text.split())}"
    try:
        records = list(fasta.read_fasta(io.BytesIO(text.encode("utf-8", "replace"))))
    except InputError as error:
        raise InputError(str(error).partition(fasta.OPTION)[0]) from None
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


# ---------------------------------------------------------------------------------------------
# In a process that computes


def _load_first(models: Models, options: ServeOptions) -> None:
    """Load the models of this process and limit its memory; what is wrong with the models is what
    each task answers."""
    # As the command line shows them, without lines of code.
    warnings.formatwarning = lambda message, *_, **__: f"ernie-rna: warning: {message}\n"
    with contextlib.suppress(Exception):
        loaded = _load(models, options)
        on_cpu = all(one.model.device.type == "cpu" for one in loaded.values())
        if sys.platform == "linux" and on_cpu:
            import resource

            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            resource.setrlimit(resource.RLIMIT_DATA, (int(options.gigabytes * 2**30), hard))


@cache
def _load(models: Models, options: ServeOptions) -> dict[str, Any]:
    """What structures are read off, by the names of models."""
    import torch

    from ernie_rna.structures.pairing_maps import load_maps

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return {name: load_maps(source, **options.loading) for name, source in models}


@cache
def _load_masked_lm(model: str, options: ServeOptions) -> Any:
    from ernie_rna.run.loading import load_masked_lm

    return load_masked_lm(model, **options.loading)


def _run(
    task: Callable[..., Any], models: Models, options: ServeOptions, arguments: Mapping[str, Any]
) -> Any:
    """What a task gives; TaskError if it fails, the unforeseen in the server's log alone."""
    from ernie_rna.run.loading import EncodingError, is_out_of_memory

    try:
        return task(models, options, **arguments)
    except Exception as error:
        message = str(error)
        if is_out_of_memory(error):
            message = f"not enough memory for this: {_SMALLER}"
        elif task is not describe and not isinstance(error, (ValueError, EncodingError)):
            traceback.print_exc()
            message = "internal error; the log of the server says more"
    for name, source in models:  # Where a model is on the server is nobody's business.
        message = message.replace(source, name)
    raise TaskError(message)


def describe(models: Models, options: ServeOptions) -> dict[str, Description]:
    """What each model is, by its name."""
    found = {}
    for name, maps in _load(models, options).items():
        config = maps.model.config
        limit, is_random = nucleotide_limit(config), config.weights_origin == "random"
        note = "a small model of this project, not the authors'; " * (name == MINI)
        note += "**its weights are random, and nothing here means anything**; " * is_random
        note = f"{name}: {note}structures by its {maps.source}; up to {limit} nt"
        layers, heads = config.num_hidden_layers, config.num_attention_heads
        found[name] = Description(note, limit, layers, heads, config.pair_prior is not None)
    return found


def compute(
    models: Models,
    options: ServeOptions,
    folder: Path,
    what: str,
    model: str,
    records: list[FastaRecord],
    drawn: FastaRecord,
    **choices: Any,
) -> Result:
    """What comes of a request, see `Requests.check`, in files of a folder.

    Raises:
        ValueError: there is nothing to draw.
        EncodingError: a result is not finite, or memory does not suffice.
    """
    loaded: Any = _load(models, options)[model].model
    if what == "substitutions":
        loaded = _load_masked_lm(dict(models)[model], options)
    elif what == "embeddings":
        loaded = getattr(loaded, "ernie_rna", loaded)
    # Where the folder is on the server is in no file that somebody downloads.
    loaded.config._name_or_path = model
    known = _known().get(drawn.sequence)
    if what == "fold":
        return _fold(records, drawn, loaded, folder, known, **choices)
    data, picture = folder / f"{what}.npz", folder / f"{what}.svg"
    if what == "embeddings":
        embed(records, loaded, data, progress=False)
    else:
        records, choices = [drawn], {"values": data, **choices}
    if what in DRAWN_BESIDE:
        choices["known"] = known
    caption = plot(records, loaded, picture, what=what, progress=False, **choices).caption
    return Result({picture: caption}, [data])


def _fold(
    records: list[FastaRecord],
    drawn: FastaRecord,
    loaded: Any,
    folder: Path,
    known: Any,
    prior: str | None = None,
) -> Result:
    """Structures of all records, and pictures of that of one."""
    names = ("structures.dbn", "structures.ct", "probabilities.npz", "pairs.tsv", "bases.tsv")
    *files, pairs, bases = [str(folder / name) for name in names]
    options = FoldOptions(matrix="probabilities", prior=prior, progress=False).resolved()
    task = FoldTask(options, None, with_reliabilities=True)
    folds = list(iterate(task, records, loaded))
    written, problems = task.write(folds, fold_outputs(files, pairs, bases))
    problems = [problem.replace(f"{folder}{os.sep}", "") for problem in problems]
    text = "\n".join([written[0].read_text(encoding="utf-8").rstrip(), *problems])
    (chosen,) = (one for one in folds if one.id == drawn.id)
    captions = {}
    for what in ("layout", "arcs") if chosen.problem is None else ():
        picture, path = draw_fold(chosen, task, what, known), folder / f"{what}.svg"
        save(picture.figure, path, picture.title(loaded))
        captions[path] = picture.caption
    return Result(captions, written, text)


@cache
def _known() -> dict[str, Any]:
    """The known pairs of the RNAs that come with this package, by sequence."""
    return {one.sequence: one.pairs for one in read_structures(examples() / "rna.dbn")}
