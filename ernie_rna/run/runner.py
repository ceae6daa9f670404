"""Runs a task, any computation for every sequence of an input.

    class Lengths(Task[int]): ...                  # what to compute for a batch of sequences
    for result in iterate(Lengths(options), sequences, model): ...
    run(Lengths(options), sequences, model, outputs)

`iterate` yields the results in input order. `run` writes outputs. It checks the whole input before
it loads the model, and stores results beside the first output (`store`), so that the same call
resumes a run that was killed. Each output appears complete or not at all. Several processes can
share a run (`options.own_share`): each computes the chunks of its share, and the process that finds
the parts of all chunks assembles the outputs. Torch is imported only after the input is checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Generic, TypeVar

from ernie_rna.options import OptionError, RunOptions, Share, own_share
from ernie_rna.run.find_model import find_model, model_files
from ernie_rna.run.outputs import (
    STANDARD_OUTPUT,
    OutputError,
    behind_link,
    clear_dead,
    describe,
    exists_already,
    explain,
    full_disk_explained,
    open_text,
    refuse_inputs,
)
from ernie_rna.run.parts import Part, Results, pack, unpack
from ernie_rna.run.progress import Progress, show_loading
from ernie_rna.run.store import Store, check_place, partial_folder
from ernie_rna.sequences.chunks import Chunk, Piece, Plan
from ernie_rna.sequences.fasta import FastaRecord, InputError
from ernie_rna.sequences.sources import (
    Sequences,
    Source,
    Survey,
    as_source,
    check_lengths,
    digested,
    short_enough,
    survey,
)
from ernie_rna.sequences.tables import as_named

Result = TypeVar("Result")

# Takes a result; raises ValueError if the format cannot hold it.
Write = Callable[[Result], object]
# The files that were written, and a sentence for each result that could not be written.
Written = tuple[list[Path], list[str]]

_MAKE_ROOM = "; free some space and run the same command again: it resumes"


@dataclass(frozen=True)
class Output(Generic[Result]):
    """A file or folder that results are written to.

    Attributes:
        path: "-" is standard output.
        open: takes the path, and returns a context that yields a function to write a result; the
            output appears if the context ends without an error. None if the task writes the output
            from the parts itself, see `Task.assemble`.
        check_id: raises InputError for an id that the format cannot hold; called before any work.
    """

    path: str
    open: Callable[[str], contextlib.AbstractContextManager[Write[Result]]] | None = None
    check_id: Callable[[str], object] | None = None


def text_output(
    path: str, header: str | Callable[[], str], lines: Callable[[Result], str | Iterable[str]]
) -> Output[Result]:
    """Return the output of a text file: a header, and the lines of each result with their ends.

    Tabs between cells become commas in a .csv file. `header` may be a function, which is called
    once the model is loaded.
    """

    @contextlib.contextmanager
    def opened(path: str) -> Iterator[Write[Result]]:
        with open_text(path) as file:
            file.write(as_named(path, header if isinstance(header, str) else header()))
            yield lambda result: file.write(as_named(path, "".join(lines(result))))

    return Output(path, opened)


class Task(ABC, Generic[Result]):
    """A computation for every sequence, made from options; `load` then loads its model.

    Attributes:
        name: of the results, in messages and manifests.
        result: the dataclass of a result, see `parts.pack`; unused if the task overrides `pack`.
        options: those of the caller.
        model: set by `load`.
        plan: how the input is cut; set by `load`.
        source: a text on which head or scores of the model the results come from; "" for none.
    """

    name: ClassVar[str]
    result: ClassVar[type[Any]]
    model: Any
    plan: Plan
    source: str = ""

    def __init__(self, options: RunOptions):
        self.options = options

    @abstractmethod
    def load(self, source: Any) -> None:
        """Set `model` and `plan`; `source` is what `find_model` returns.

        Raises:
            ValueError: an option is invalid for the model, or the model lacks the head.
        """

    @abstractmethod
    def compute(self, records: list[FastaRecord], pieces: list[Piece]) -> Iterable[Any]:
        """Return a value for each piece of a batch, in order; `records` has the record of each.

        Raises:
            EncodingError: a result is not finite.
        """

    def merge(self, record: FastaRecord, pieces: list[Piece], values: list[Any]) -> Result:
        """Return the result of a record from the values of its pieces in this chunk.

        By default a record has one piece, whose value is the result.
        """
        (result,) = values
        return result  # type: ignore[no-any-return]

    def pack(self, results: list[Result]) -> Results:
        """Turn results into the arrays of a part."""
        return pack(results)

    def unpack(self, part: Part) -> Iterator[Result]:
        """The inverse of `pack`."""
        return unpack(part, self.result)

    def join(self, results: Iterable[Result]) -> Iterator[Result]:
        """Join the results of chunks to results of records, if the plan divides records."""
        yield from results

    def check(self, records: Iterable[FastaRecord]) -> Iterator[FastaRecord]:
        """Yield records unchanged; raise InputError for an invalid one. Must not import torch."""
        yield from records

    def describe_settings(self) -> dict[str, Any]:
        """Settings that results depend on, besides those that the options record; for JSON."""
        return {}

    def existing(self, outputs: Sequence[Output[Result]]) -> list[Path]:
        """The files of outputs that exist."""
        paths = [Path(output.path) for output in outputs if output.path != STANDARD_OUTPUT]
        return [path for path in paths if path.exists()]

    def nbytes(self, found: Survey) -> int:
        """Estimate the size of the outputs on the disk, in bytes, from a survey of the input."""
        return 0

    def write(self, results: Iterable[Any], outputs: Sequence[Output[Result]]) -> Written:
        """Write results to outputs."""

        def explained(path: str) -> contextlib.AbstractContextManager[None]:
            # Writing to a stream cannot be resumed.
            way_out = "" if path == STANDARD_OUTPUT else _MAKE_ROOM
            return full_disk_explained(describe([path]), way_out)

        problems: list[str] = []
        with contextlib.ExitStack() as stack:
            writers = {}
            for output in outputs:
                stack.enter_context(explained(output.path))
                assert output.open is not None
                writers[output.path] = stack.enter_context(output.open(output.path))
            for result in results:
                for path, write in writers.items():
                    try:
                        with explained(path):
                            write(result)
                    except ValueError as error:
                        missing = f"{result.id} is not in {describe([path])}"
                        problems.append(f"{missing}: {explain(error)}")
        return [Path(output.path) for output in outputs], problems

    def assemble(
        self, parts: list[Part], outputs: Sequence[Output[Result]], metadata: dict[str, Any]
    ) -> Written:
        """Write the outputs from the parts, in their order."""
        results = (result for part in parts for result in self.unpack(part))
        return self.write(self.join(results), outputs)

    def metrics(self) -> dict[str, float]:
        """How well the written results agree with labels in the input, by name of the metric."""
        return {}

    def metadata(self, found: Survey, given: Any) -> dict[str, Any]:
        """All that the results depend on, except the machine; for JSON. `found` is the survey of
        the input, and `given` the model as the caller gave it."""
        from ernie_rna.run.provenance import model_name, model_sha256, versions

        model, options = self.model, self.options
        return {
            "format": f"ernie-rna {self.name}",
            "records": found.records,
            "nucleotides": found.nucleotides,
            "input_sha256": found.sha256,
            "model": {
                "name": model_name(given),
                "revision": getattr(model.config, "_commit_hash", None),
                "sha256": model_sha256(model),
            },
            "settings": {
                "dtype": str(model.dtype).removeprefix("torch."),
                "device": model.device.type,
                "attention": model.config._attn_implementation,
                "threads": options.threads if model.device.type == "cpu" else None,
                "batch_tokens": self.plan.batch_tokens,
                **options.recorded(),
                **self.describe_settings(),
            },
            "versions": versions(),
        }


@dataclass(frozen=True)
class RunSummary:
    """What a run has written.

    Attributes:
        files: the outputs; empty while parts of other processes are missing.
        records, nucleotides: of the whole input.
        seconds: duration of this run.
        sequences_per_second: of this process, in this run.
        padding: fraction of the tokens computed in this run that was padding.
        problems: a sentence for each result that could not be computed or written.
        resumed: whether an earlier run, or another process, had computed some of it.
        share: what this process computed.
        source: that of the task.
        metrics: how well results agree with labels in the input, by name of the metric.
        threads: the most that were used, on a CPU.
        estimate: the text of a dry run's estimate; otherwise "".
    """

    files: list[Path]
    records: int
    nucleotides: int
    seconds: float
    sequences_per_second: float
    padding: float
    problems: list[str] = field(default_factory=list)
    resumed: bool = False
    share: Share = field(default_factory=Share)
    source: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    threads: int = 1
    estimate: str = ""

    @property
    def text(self) -> str:
        """The summary as a line of text, after a line with `source` if that is not empty."""
        noun = "sequence" if self.records == 1 else "sequences"
        size = f"{self.records} {noun}, {self.nucleotides} nt"
        if self.estimate:
            return f"{size}: {self.estimate}"
        files = describe([str(file) for file in self.files])
        if len(self.files) > 8:
            files = f"{self.files[-1]} and {len(self.files) - 1} more files"
        if not self.files:
            files = f"{self.share.text} is done; the output is written after the last part"
        resumed = ", partly computed before" if self.resumed else ""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        source = f"{self.source}\n" if self.source else ""
        return (
            f"{source}{files}: {size}{resumed}; "
            f"{self.seconds:.1f} s, {self.sequences_per_second:.1f} sequences a second, "
            f"{100 * self.padding:.1f} % padding, {threads}"
        )


# ---------------------------------------------------------------------------------------------
# In memory


def iterate(task: Task[Result], sequences: Sequences, model: Any) -> Iterator[Result]:
    """Yield the results of all sequences, in input order.

    Raises:
        InputError: a sequence is invalid or too long. Raised before any computation, unless the
            input can be read only once.
        ValueError: the model cannot be loaded, or an option is invalid for it.
        EncodingError: a result is not finite, or there is not enough memory; names the id.
    """
    if task.options.part is not None:
        raise OptionError("part", f"needs outputs that are files; got {task.options.part!r}")
    if task.options.dry_run:
        raise OptionError("dry_run", "estimates a run that writes an output: name one")
    source = _checked(task, as_source(sequences, **task.options.reading))
    return task.join(_results(task, source, _load(task, source, model)[1]))


def _checked(task: Task[Any], source: Source, outputs: Sequence[Output[Any]] = ()) -> Source:
    """Return a source that checks each record for the task and the outputs."""
    checks = [output.check_id for output in outputs if output.check_id is not None]

    def read() -> Iterator[FastaRecord]:
        for record in task.check(source.read()):
            for check in checks:
                check(record.id)
            yield record

    return Source(read, source.once)


def _load(task: Task[Any], source: Source, model: Any) -> tuple[Any, Progress]:
    """Read the whole input, load the model of a task, and check the lengths of the sequences.

    Returns:
        The survey of the input, None if it can be read only once; and a progress bar.
    """
    input_survey = None if source.once else survey(source.read())
    model_source, long = find_model(model, task.options.revision), task.options.long
    if input_survey is not None and long == "error" and isinstance(model_source, str):
        # Checked before torch is imported if there is a config.json; loading reports its errors.
        config = SimpleNamespace(max_position_embeddings=sys.maxsize)
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            values = json.loads((Path(model_source) / "config.json").read_bytes())
            config.max_position_embeddings = int(values["max_position_embeddings"])
        check_lengths(input_survey, config, long, _long_choices(task))
    with show_loading(task.options.progress):
        task.load(model_source)
    if input_survey is not None:
        check_lengths(input_survey, task.model.config, long, _long_choices(task))
    return input_survey, Progress(task.options.progress, task.plan, input_survey)


def _long_choices(task: Task[Any]) -> Sequence[str]:
    """The values that the option `long` can have for this task."""
    choices: Sequence[str] = type(task.options).__dataclass_fields__["long"].metadata["choices"]
    return choices


def _results(task: Task[Result], source: Source, bar: Progress) -> Iterator[Result]:
    records = short_enough(source.read(), task.model.config, task.options.long, _long_choices(task))
    with contextlib.closing(bar):
        for chunk in task.plan.chunks(records):
            results = _compute_chunk(task, chunk, bar)
            with bar.cleared():
                yield from results


def _compute_chunk(task: Task[Result], chunk: Chunk, bar: Progress) -> list[Result]:
    """The results of the records of a chunk, or of those pieces of them that it has, in order."""
    import torch

    values: dict[int, Any] = {}  # by index into `chunk.pieces`
    for indices, (pieces, batch) in zip(chunk.batches, compute_batches(task, chunk), strict=True):
        values |= zip(indices, batch, strict=True)
        bar.advance(chunk, pieces, torch.get_num_threads())
    indices_of: list[list[int]] = [[] for _ in chunk.records]
    for index, piece in enumerate(chunk.pieces):
        indices_of[piece.record].append(index)
    return [
        task.merge(record, [chunk.pieces[i] for i in indices], [values[i] for i in indices])
        for record, indices in zip(chunk.records, indices_of, strict=True)
    ]


def compute_batches(task: Task[Any], chunk: Chunk) -> Iterator[tuple[list[Piece], list[Any]]]:
    """Yield the pieces of each batch of a chunk, and the values that the task computes for them.

    The number of torch's threads is the option `threads`, or by default what suits the chunk.

    Raises:
        EncodingError: there is not enough memory, or a result is not finite.
    """
    from ernie_rna.run.loading import memory_explained, suitable_threads, use_threads

    with use_threads(task.options.threads or suitable_threads(task.model.config, task.plan, chunk)):
        for number in range(len(chunk.batches)):
            pieces = chunk.batch(number)
            records = [chunk.records[piece.record] for piece in pieces]
            with memory_explained(records):
                values = list(task.compute(records, pieces))
            yield pieces, values


# ---------------------------------------------------------------------------------------------
# Into outputs


def run(
    task: Task[Result], sequences: Sequences, model: Any, outputs: Sequence[Output[Result]]
) -> RunSummary:
    """Write the results of all sequences to outputs whose paths were checked. A run that was killed
    is resumed; if all outputs are standard output, no results are stored for that.

    Raises:
        InputError: the input is invalid, or changed while it was being read.
        OutputError: an output exists or is an input, another process is writing it, the disk is
            full, or the unfinished results beside it have other settings.
        And what `iterate` raises.
    """
    options = task.options
    source = _checked(task, as_source(sequences, **options.reading), outputs)
    files = [Path(output.path) for output in outputs if output.path != STANDARD_OUTPUT]
    places = [*files, *task.existing(outputs), *(partial_folder(behind_link(p)) for p in files[:1])]
    refuse_inputs(places, [sequences, *model_files(model)])
    share = own_share(options.part)
    if not files and share.count > 1:
        problem = f"needs outputs that are files; this is {share.text}; 1/1 computes all"
        raise OptionError("part", problem)
    if share.origin.startswith("SLURM") and share.count > 1:  # Each task may have its own input.
        warnings.warn(
            f"only {share.text} is computed, and {describe([outputs[0].path])} is written after "
            "the last part; --part 1/1 computes all",
            stacklevel=2,
        )
    if options.dry_run or not files:
        return _run_without_store(task, source, model, outputs)
    first = behind_link(files[0])
    check_place(first)
    with full_disk_explained(first, _MAKE_ROOM), Store(first, share, options.force) as store:
        _refuse_existing(task, outputs, store)
        if source.once and share.count > 1:
            raise InputError(
                "an input that can be read only once cannot be shared by several processes: give "
                f"each the same file ({share.text}; --part 1/1 computes all)"
            )
        if source.once:
            source = source.kept_in(store.input_path)
        task.options = replace(options, device=_own_device(task, share))
        input_survey, bar = _load(task, source, model)
        with contextlib.closing(bar):
            metadata = task.metadata(input_survey, model)
            manifest = _manifest(task, metadata, outputs, first)
            resumed = store.begin(manifest, lambda: _all_exist(task, outputs))
            _warn_of_room(store, 2 * task.nbytes(input_survey))
            sha256 = input_survey.sha256
            parts = [] if store.done else _compute(task, source, sha256, store, bar, metadata)
            with store.assembling() as outcome:
                written = [] if outcome is None else task.existing(outputs)
                if outcome is None and parts and all(part.path.exists() for part in parts):
                    written, outcome = _assemble(task, parts, outputs, store, metadata)
                store.finish_share()
    more = {"resumed": resumed, "share": share, **(outcome or {})}
    return _summary(task, bar, input_survey, files=written, **more)


def _run_without_store(
    task: Task[Result], source: Source, model: Any, outputs: Sequence[Output[Result]]
) -> RunSummary:
    """Write results to standard output as they are computed, or make the estimate of a dry run."""
    with source.readable_twice() as rereadable:
        input_survey, bar = _load(task, rereadable, model)
        with contextlib.closing(bar):
            if task.options.dry_run:
                from ernie_rna.run.estimate import forecast

                text = forecast(task, rereadable, input_survey, outputs[0].path)
                return _summary(task, bar, input_survey, files=[], estimate=text)
            results = task.join(_results(task, rereadable, bar))
            written, outcome = _with_outcome(task, task.write(results, outputs))
            return _summary(task, bar, input_survey, files=written, **outcome)


def _with_outcome(task: Task[Any], written: Written) -> tuple[list[Path], dict[str, Any]]:
    """The files that were written; and the problems and metrics of the summary, by field."""
    files, problems = written
    return files, {"problems": problems, "metrics": task.metrics()}


def _summary(task: Task[Any], bar: Progress, input_survey: Survey, **more: Any) -> RunSummary:
    return RunSummary(
        records=input_survey.records,
        nucleotides=input_survey.nucleotides,
        seconds=bar.seconds,
        sequences_per_second=bar.done / bar.seconds,
        padding=bar.padding / max(bar.tokens, 1),
        threads=bar.threads,
        source=task.source,
        **more,
    )


def _own_device(task: Task[Any], share: Share) -> str | None:
    """The device of this process. Processes that share a machine use its GPUs in turn."""
    device = task.options.device
    if share.local is None or device not in (None, "auto", "cuda"):
        return device
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{share.local % count}" if count else device


def _manifest(
    task: Task[Any], metadata: dict[str, Any], outputs: Sequence[Output[Any]], first: Path
) -> dict[str, Any]:
    """The manifest, which must be equal to resume a run."""
    from ernie_rna.run.provenance import describe_machine

    # Relative to the folder of the first output, because that may be moved.
    paths = [
        path if path == STANDARD_OUTPUT else os.path.relpath(behind_link(Path(path)), first.parent)
        for path in (output.path for output in outputs)
    ]
    return {
        **metadata,
        "chunk_tokens": task.plan.limit,
        "machine": describe_machine(task.model.device, task.options.threads),
        # A resumed run replaces existing outputs, so it must have the same ones.
        "outputs": paths,
    }


def _warn_of_room(store: Store, expected: int) -> None:
    """Warn if the disk has no room for the bytes that are expected, minus those of the parts."""
    stored = 0
    for path in store.folder.glob("part-*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # Another process has just ended the run.
            stored += path.stat().st_size
    free = shutil.disk_usage(store.folder).free
    if expected - stored > free:
        warnings.warn(
            f"{store.output} and unfinished results will take up to {expected / 1e6:,.0f} MB, but "
            f"only {free / 1e6:,.0f} MB are free",
            stacklevel=3,
        )


def _compute(
    task: Task[Any], source: Source, sha256: str, store: Store, bar: Progress, metadata: Any
) -> list[Part]:
    """Compute the chunks of this process. Returns the parts of all chunks, even missing ones."""
    digest, parts = hashlib.sha256(), []
    for chunk in task.plan.chunks(digested(source.read(), digest)):
        part = store.part(chunk.number, chunk.records)
        parts.append(part)
        if store.owns(chunk.number) and not part.is_whole():
            part.put(task.pack(_compute_chunk(task, chunk, bar)), metadata)
        else:
            bar.skip(chunk)
    if digest.hexdigest() != sha256:
        store.invalidate()
        raise InputError("the input changed while it was being read; run it again")
    return parts


def _assemble(
    task: Task[Any],
    parts: list[Part],
    outputs: Sequence[Output[Any]],
    store: Store,
    metadata: dict[str, Any],
) -> tuple[list[Path], dict[str, Any]]:
    """Write the outputs from all parts; returns what `_with_outcome` returns."""
    for number, part in enumerate(parts):
        if not part.is_whole():  # It was damaged after its process wrote it.
            store.finish_share()
            raise OutputError(
                f"{part.path} is damaged: run part {store.owner(number)} again, which computes it"
            )
    for output in outputs:
        clear_dead(Path(output.path))
    _refuse_existing(task, outputs, store)
    store.claim(task.existing(outputs))
    written, outcome = _with_outcome(task, task.assemble(parts, outputs, metadata))
    store.finish(**outcome)
    return written, outcome


def _all_exist(task: Task[Any], outputs: Sequence[Output[Any]]) -> bool:
    """Whether all outputs exist, which is False if one went to standard output."""
    return all(task.existing([output]) for output in outputs)


def _refuse_existing(task: Task[Any], outputs: Sequence[Output[Any]], store: Store) -> None:
    """Raise OutputError for an output that this run has not written, unless it may be replaced."""
    one_is_missing = store.done and not _all_exist(task, outputs)
    for output in outputs:
        for path in task.existing([output])[:1]:  # The first file of shards is their index.
            if one_is_missing and not task.options.force:
                raise exists_already(path)
            store.check_ours(path)
