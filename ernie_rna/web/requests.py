"""Visitors' requests: parsed as on the command line, checked before they are queued, and computed
in processes that can be stopped and whose failure does not affect the page.

pebble runs a fixed number of these processes and ends one whose request takes too long. Each loads
the models once, before the time limit of a request starts. The operating system limits memory
(Linux, on a CPU).
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

# The id of a sequence without a header.
UNNAMED = "RNA"
# Most nucleotides of a sequence that is masked at each position in turn.
MASKED = 400
# Most bytes of all served files together; above that the oldest are deleted.
_BYTES = 1 << 30
_SMALLER = "take fewer or shorter sequences"

# Name -> folder or Hub id.
Models = tuple[tuple[str, str], ...]


class TaskError(RuntimeError):
    """A request has no result; the message is shown to the visitor."""


@dataclass(frozen=True)
class Description:
    """A line about a model, the length of its longest sequence, its numbers of layers and heads,
    and whether an energy prior can be added to its structures."""

    note: str
    nucleotides: int
    layers: int
    heads: int
    has_prior: bool


@dataclass(frozen=True)
class Result:
    """The result of a request.

    Attributes:
        captions: file of a picture -> its caption.
        files: the other files.
        text: structures in dot-bracket, and why some are missing.
    """

    captions: dict[Path, str]
    files: list[Path]
    text: str = ""


class Requests:
    """A context manager that checks requests and runs them in processes with loaded models.

    Args:
        models: name -> folder or Hub id.
        limits: the number of processes, their limits, and the limits of a request.
        folder: where files are served from; each request has a folder in it.

    Attributes:
        models: name -> description; empty until `load`.
    """

    def __init__(self, models: Mapping[str, str], limits: ServeOptions, folder: Path):
        self._pebble = import_extra("pebble", "web", "the web page")
        self._setup, self.limits, self.folder = (tuple(models.items()), limits), limits, folder
        self.models: dict[str, Description] = {}
        # torch's threads do not survive a fork.
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
        """Load the models; TaskError if one cannot be loaded."""
        self.models = self.run(describe)

    def run(self, task: Callable[..., Any], **arguments: Any) -> Any:
        """Run `compute`, which has a time limit, or `describe` in a process; return its result.

        Raises:
            TaskError: it failed, or took too long or too much memory; or a model cannot be loaded.
        """
        seconds = self.limits.seconds if task is compute else None
        with self._lock:
            if not self._pool.active:  # The pool stops when an idle process is killed.
                self.__exit__()
                self._pool = self._start()
            future = self._pool.schedule(_run, (task, *self._setup, arguments), timeout=seconds)
        try:
            return future.result()
        except TimeoutError:
            problem = f"this took longer than the {seconds:g} seconds that a request may take"
        except (self._pebble.ProcessExpired, BrokenProcessPool):
            problem = "the computing process ended unexpectedly, maybe for lack of memory"
        raise TaskError(f"{problem}: {_SMALLER}")

    def ids(self, text: str | None) -> list[str]:
        """The ids of the records in a text; empty if it is invalid, which `check` reports."""
        try:
            return [record.id for record in read_text(text, self.limits)]
        except InputError:
            return []

    def check(
        self, what: str, text: str | None, model: str, id: str | None = None, **choices: Any
    ) -> dict[str, Any]:
        """Check a request; return the arguments of `compute`.

        Args:
            what: "fold", "embeddings", or a drawing of one sequence, see `options.PlotOptions`.
            id: the sequence to draw; the first one if the text, which may have changed since the
                choice, does not have it.
            choices: the prior of "fold", and options of `options.PlotOptions` for the others.

        Raises:
            InputError: the request is invalid.
        """
        if model not in self.models:
            raise InputError(f"there is no model {model!r} here; choose {', '.join(self.models)}")
        records = read_text(text, self.limits)
        for record in records:
            _check_size(record.id, len(record.sequence), self.models[model].nucleotides, "nt")
        if choices.get("prior") and not self.models[model].has_prior:
            raise InputError(f"{model} has no weights for an energy prior: choose none")
        if what == "embeddings" and len(records) < 2:
            raise InputError("a plot of vectors needs two RNAs or more: paste them as FASTA")
        drawn = next((record for record in records if record.id == id), records[0])
        if what == "substitutions" and choices["masked"] and len(drawn.sequence) > MASKED:
            raise InputError(
                f"{drawn.id} has {len(drawn.sequence)} nt; masking each position in turn is for up "
                f"to {MASKED} nt here: choose the single pass"
            )
        return {"what": what, "model": model, "records": records, "drawn": drawn, **choices}

    def answer(self, request: dict[str, Any]) -> Result:
        """Compute what `check` returned, into files in a folder whose name cannot be guessed.

        Raises:
            TaskError: see `run`.
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


def read_text(text: str | None, limits: ServeOptions) -> list[FastaRecord]:
    """The records of FASTA text, or of a line with one sequence that has no header.

    Raises:
        InputError: the text is None or empty, a record is invalid, or a limit is exceeded.
    """
    text = (text or "").replace("\ufeff", "").strip()
    if not text:
        raise InputError("there is no RNA yet: paste one, load a file, or choose an example")
    # A header may take up to 1000 characters.
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
    total = sum(len(record.sequence) for record in records)
    _check_size("the input", total, limits.nucleotides, "nt in total")
    return records


def _check_size(what: str, size: int, most: int, unit: str) -> None:
    if size > most:
        raise InputError(
            f"{what} has {size} {unit}; this page takes up to {most} at a time: for more, run "
            "ernie-rna on your own machine"
        )


def decode(content: bytes) -> str:
    """The text of a loaded file; InputError if it is not text."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("this file is not plain text: load an uncompressed FASTA file") from None


def make_room(folder: Path, max_bytes: int = _BYTES) -> None:
    """Delete the oldest files of requests until the rest take at most `max_bytes`."""
    files = []
    for path in folder.glob("*/*"):
        with contextlib.suppress(FileNotFoundError):
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    total = 0
    for _, size, path in sorted(files, reverse=True):
        total += size
        if total > max_bytes:
            path.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------
# In the computing processes


def _load_first(models: Models, options: ServeOptions) -> None:
    """Load the models of this process and limit its memory; if a model cannot be loaded, each task
    fails with that error."""
    # Warnings look as on the command line, without lines of code.
    warnings.formatwarning = lambda message, *_, **__: f"ernie-rna: warning: {message}\n"
    with contextlib.suppress(Exception):
        loaded = _load(models, options)
        on_cpu = all(maps.model.device.type == "cpu" for maps in loaded.values())
        if sys.platform == "linux" and on_cpu:
            import resource

            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            resource.setrlimit(resource.RLIMIT_DATA, (int(options.gigabytes * 2**30), hard))


@cache
def _load(models: Models, options: ServeOptions) -> dict[str, Any]:
    """Name -> a loaded model with the maps that its structures are predicted from."""
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
    """Run a task; TaskError if it fails. Only the server's log shows unexpected errors."""
    from ernie_rna.run.loading import EncodingError, is_out_of_memory

    try:
        return task(models, options, **arguments)
    except Exception as error:
        message = str(error)
        if is_out_of_memory(error):
            message = f"not enough memory for this: {_SMALLER}"
        elif task is not describe and not isinstance(error, (ValueError, EncodingError)):
            traceback.print_exc()
            message = "internal error; see the log of the server"
    for name, source in models:  # Visitors must not see where a model is on the server.
        message = message.replace(source, name)
    raise TaskError(message)


def describe(models: Models, options: ServeOptions) -> dict[str, Description]:
    """Name -> description of each model."""
    descriptions = {}
    for name, maps in _load(models, options).items():
        config, limit = maps.model.config, nucleotide_limit(maps.model.config)
        note = f"{name}: "
        if name == MINI:
            note += "a small model of this project, not the authors'; "
        if config.weights_origin == "random":
            note += "**its weights are random, so all results are meaningless**; "
        note += f"structures by its {maps.source}; up to {limit} nt"
        layers, heads = config.num_hidden_layers, config.num_attention_heads
        # A model whose head was removed may still have the weights for a prior.
        has_prior = config.pair_prior is not None and maps.offset is not None
        descriptions[name] = Description(note, limit, layers, heads, has_prior)
    return descriptions


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
    """Compute a request, see `Requests.check`, and write its files into a folder.

    Raises:
        ValueError: there is nothing to draw.
        EncodingError: a result is not finite, or there is not enough memory.
    """
    loaded: Any = _load(models, options)[model].model
    if what == "substitutions":
        loaded = _load_masked_lm(dict(models)[model], options)
    elif what == "embeddings":
        loaded = getattr(loaded, "ernie_rna", loaded)
    # Downloaded files must not show where the model's folder is on the server.
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
    """Predict the structures of all records, and draw one of them."""
    names = ("structures.dbn", "structures.ct", "probabilities.npz", "pairs.tsv", "bases.tsv")
    *files, pairs, bases = [str(folder / name) for name in names]
    options = FoldOptions(matrix="probabilities", prior=prior, progress=False).resolved()
    task = FoldTask(options, None, with_reliabilities=True)
    folds = list(iterate(task, records, loaded))
    written, problems = task.write(folds, fold_outputs(files, pairs, bases))
    problems = [problem.replace(f"{folder}{os.sep}", "") for problem in problems]
    text = "\n".join([written[0].read_text(encoding="utf-8").rstrip(), *problems])
    (to_draw,) = (folded for folded in folds if folded.id == drawn.id)
    captions = {}
    for what in ("layout", "arcs") if to_draw.problem is None else ():
        picture, path = draw_fold(to_draw, task, what, known), folder / f"{what}.svg"
        save(picture.figure, path, picture.title(loaded))
        captions[path] = picture.caption
    return Result(captions, written, text)


@cache
def _known() -> dict[str, Any]:
    """Sequence -> known pairs, for the RNAs that come with this package."""
    return {rna.sequence: rna.pairs for rna in read_structures(examples() / "rna.dbn")}
