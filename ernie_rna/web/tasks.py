"""What the page computes, in processes that can be stopped and cannot take the page down.

pebble keeps as many of them as are asked for, and ends one whose request takes too long. Each loads
the models once, before the time of a request counts. Memory is limited by the operating system
(Linux, on a CPU).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
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
from ernie_rna.options import FoldOptions, ServeOptions
from ernie_rna.plots.drawings import save
from ernie_rna.plots.pictures import draw_fold, plot
from ernie_rna.run.runner import iterate
from ernie_rna.sequences.chunks import nucleotide_limit
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.structures.fold import FoldTask
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.structures.formats.output import fold_outputs

# Name -> folder or Hub id.
Models = tuple[tuple[str, str], ...]

_SMALLER = "take fewer or shorter sequences"


class TaskError(RuntimeError):
    """A task has no result; the message is for whoever asked."""


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


class Pool:
    """A context with processes that have loaded some models.

    Args:
        models: name -> folder or Hub id.
        options: how many processes, and how much one may take.
    """

    def __init__(self, models: Mapping[str, str], options: ServeOptions):
        self._pebble = import_extra("pebble", "web", "the web page")
        self._setup, self._seconds = (tuple(models.items()), options), options.seconds
        # Torch's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._start = partial(
            self._pebble.ProcessPool, options.workers, 0, _load_first, self._setup, context
        )
        self._pool, self._lock = self._start(), threading.Lock()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.stop()
        self._pool.join()

    def run(self, task: Callable[..., Any], **arguments: Any) -> Any:
        """The result of `answer`, which is limited in time, or `describe`.

        Raises:
            TaskError: it failed, took too long or too much memory; or no model can be loaded.
        """
        seconds = self._seconds if task is answer else None
        with self._lock:
            if not self._pool.active:  # A process that had nothing to do was killed.
                self.__exit__()
                self._pool = self._start()
            future = self._pool.schedule(_run, (task, self._setup, arguments), timeout=seconds)
        try:
            succeeded, value = future.result()
        except TimeoutError:
            value = f"this took longer than the {seconds:g} seconds of a request: {_SMALLER}"
            raise TaskError(value) from None
        except (self._pebble.ProcessExpired, BrokenProcessPool):
            value = f"the process that computes ended, maybe for lack of memory: {_SMALLER}"
            raise TaskError(value) from None
        if not succeeded:
            raise TaskError(value)
        return value


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
    task: Callable[..., Any], setup: tuple[Models, ServeOptions], arguments: Mapping[str, Any]
) -> tuple[bool, Any]:
    """(True, result) or (False, message); the unforeseen is told to the server's log alone."""
    from ernie_rna.run.loading import EncodingError, is_out_of_memory

    try:
        return True, task(*setup, **arguments)
    except Exception as error:
        if is_out_of_memory(error):
            return False, f"not enough memory for this: {_SMALLER}"
        if task is not describe and not isinstance(error, (ValueError, EncodingError)):
            traceback.print_exc()
            return False, "internal error; the log of the server says more"
        message = str(error)
        for name, source in setup[0]:  # Where a model is on the server is nobody's business.
            message = message.replace(source, name)
        return False, message


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


def answer(
    models: Models,
    options: ServeOptions,
    folder: Path,
    what: str,
    model: str,
    records: list[FastaRecord],
    drawn: FastaRecord,
    **choices: Any,
) -> Result:
    """What comes of a request, see `requests.Requests.check`, in files of a folder.

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
    given: dict[str, Any] = {"values": data, "known": known, **choices}
    if what == "embeddings":
        embed(records, loaded, data, progress=False)
        given = {}
    chosen = records if what == "embeddings" else [drawn]
    caption = plot(chosen, loaded, picture, what=what, progress=False, **given).caption
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
