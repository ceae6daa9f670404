"""How something is computed of all sequences of an input, whatever it is.

    class Lengths(Task[int]): ...                  # what is computed of a chunk of records
    for result in iterate(Lengths(options), sequences, model): ...
    run(Lengths(options), sequences, model, outputs)

`iterate` gives the results in input order as they come. `run` writes outputs: the input is looked
through before the model is loaded, results are kept beside the first output (`store`), so that a
run that was killed is resumed by the same call, and each output appears whole or not at all.
Several processes share a run (`options.own_share`): each computes the chunks that are its own, and
the one that finds all of them there puts the outputs together. Torch is imported when the input has
been found fit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, ClassVar, Generic, TypeVar

from ernie_rna.options import OptionError, RunOptions, Share, own_share
from ernie_rna.run.find_model import find_model
from ernie_rna.run.outputs import (
    STANDARD_OUTPUT,
    OutputError,
    behind_link,
    clear_unfinished,
    describe,
    full_disk_explained,
    open_text,
)
from ernie_rna.run.progress import Progress
from ernie_rna.run.store import Part, Results, Store, check_place
from ernie_rna.sequences.chunks import Chunk, Plan
from ernie_rna.sequences.fasta import FastaRecord, InputError
from ernie_rna.sequences.sources import (
    Digest,
    Sequences,
    Source,
    Survey,
    as_source,
    check_lengths,
    short_enough,
    survey,
)

Result = TypeVar("Result")

# Is called with the number of each batch of a chunk that is done.
Step = Callable[[int], None]
# Takes a result; raises ValueError where the format cannot hold it.
Write = Callable[[Result], None]

_MAKE_ROOM = "; make room and run the same command again: it resumes"


@dataclass(frozen=True)
class Output(Generic[Result]):
    """A file or folder that results are written to.

    Attributes:
        path: "-" is standard output.
        open: given the path, a context that gives a function for each result; the output appears
            once it has ended well. None where the task writes the parts itself, see
            `Task.assemble`.
        check_id: raises InputError for an id that it cannot hold; before any work.
    """

    path: str
    open: Callable[[str], contextlib.AbstractContextManager[Write[Result]]] | None = None
    check_id: Callable[[str], None] | None = None


def text_output(
    path: str, header: str | Callable[[], str], lines: Callable[[Result], str | Iterable[str]]
) -> Output[Result]:
    """A text file of a header and lines for each result, whose line ends are part of them.

    Args:
        header: or what gives it once the model is loaded.
    """

    @contextlib.contextmanager
    def opened(path: str) -> Iterator[Write[Result]]:
        with open_text(path) as file:
            file.write(header if isinstance(header, str) else header())
            yield partial(_write_lines, file, lines)

    return Output(path, opened)


def _write_lines(
    file: IO[str], lines: Callable[[Result], str | Iterable[str]], result: Result
) -> None:
    text = lines(result)
    file.write(text if isinstance(text, str) else "".join(text))


def _room_for(path: str) -> contextlib.AbstractContextManager[None]:
    """An OutputError with the way out where the disk is full; a stream is not resumed."""
    return full_disk_explained(describe([path]), _MAKE_ROOM * (path != STANDARD_OUTPUT))


class Task(ABC, Generic[Result]):
    """What is computed of sequences. Made of options, then given a model.

    Attributes:
        name: of what is computed, in messages and manifests.
        options: as given.
        model: what `load` has made.
        plan: how the input is cut.
        source: what of the model the results come from, in words; "" where that needs none.
    """

    name: ClassVar[str]
    model: Any
    plan: Plan
    source: str = ""

    def __init__(self, options: RunOptions):
        self.options = options

    @abstractmethod
    def load(self, source: Any, device: str | None) -> None:
        """Set `model` and `plan`.

        Args:
            source: what `find_model` returns.
            device: in place of that of the options.

        Raises:
            ValueError: an option does not fit the model, or it has no such head.
        """

    @abstractmethod
    def compute(self, chunk: Chunk, step: Step) -> list[Result]:
        """The results of the records of a chunk, or of its pieces of them, in their order.

        Raises:
            EncodingError: memory does not suffice, or a result is not finite.
        """

    @abstractmethod
    def pack(self, results: list[Result]) -> Results:
        """Results as the store keeps them."""

    @abstractmethod
    def unpack(self, part: Part) -> Iterator[Result]:
        """The inverse of `pack`."""

    def join(self, results: Iterable[Result]) -> Iterator[Result]:
        """Results of chunks as results of records, where the plan divides records."""
        yield from results

    def check(self, records: Iterable[FastaRecord]) -> Iterator[FastaRecord]:
        """Pass records on; InputError for one that this task cannot take. No torch."""
        yield from records

    def describe_settings(self) -> dict[str, Any]:
        """Settings that results depend on, beside those that the options record; for JSON."""
        return {}

    def existing(self, outputs: Sequence[Output[Result]]) -> list[Path]:
        """The files of outputs that are there already."""
        paths = [Path(output.path) for output in outputs if output.path != STANDARD_OUTPUT]
        return [path for path in paths if path.exists()]

    def nbytes(self, found: Survey) -> int:
        """About what the outputs take on the disk."""
        return 0

    def write(
        self, results: Iterable[Result], outputs: Sequence[Output[Result]]
    ) -> tuple[list[Path], list[str]]:
        """Write results to outputs.

        Returns:
            The files, and what could not be written, a sentence each.
        """
        problems: list[str] = []
        with contextlib.ExitStack() as stack:
            writers = {}
            for output in outputs:
                stack.enter_context(_room_for(output.path))
                assert output.open is not None
                writers[output.path] = stack.enter_context(output.open(output.path))
            for result in results:
                problems += self._write_one(result, writers)
        return [Path(output.path) for output in outputs], problems

    def _write_one(self, result: Result, writers: dict[str, Write[Result]]) -> Iterator[str]:
        problem = self.problem(result)
        if problem is not None:
            yield problem
            return
        for path, write in writers.items():
            try:
                with _room_for(path):
                    write(result)
            except ValueError as error:
                yield f"{self.id_of(result)} is not in {describe([path])}: {error}"

    def problem(self, result: Result) -> str | None:
        """Why there is nothing to write of a result, in a sentence; None where there is."""
        return None

    def id_of(self, result: Any) -> str:
        """The id of the sequence that a result is of."""
        return str(result.id)

    def assemble(
        self, parts: list[Part], outputs: Sequence[Output[Result]], metadata: dict[str, Any]
    ) -> tuple[list[Path], list[str]]:
        """Make the outputs of the parts, in their order; returns as `write`."""
        results = (result for part in parts for result in self.unpack(part))
        return self.write(self.join(results), outputs)

    def metadata(self, found: Survey, given: Any) -> dict[str, Any]:
        """All that the results depend on, but the machine."""
        from ernie_rna.run.provenance import describe as describe_run

        about = describe_run(given, self.model, self.options, self.plan.batch_tokens)
        about["settings"] |= self.describe_settings()
        return {
            "format": f"ernie-rna {self.name}",
            "records": found.records,
            "nucleotides": found.nucleotides,
            "input_sha256": found.sha256,
            **about,
        }

    def part_metadata(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """What each part says of itself, for JSON."""
        return {}

    def compute_whole(
        self, chunk: Chunk, step: Step, batch: Callable[[list[FastaRecord]], Iterable[Result]]
    ) -> list[Result]:
        """The results of a chunk whose records have a piece each, batch by batch."""
        from ernie_rna.run.loading import memory_explained

        results: dict[int, Result] = {}
        for number in range(len(chunk.batches)):
            places = [piece.record for piece in chunk.batch(number)]
            records = [chunk.records[place] for place in places]
            with memory_explained(records):
                results.update(zip(places, batch(records), strict=True))
            step(number)
        return [results[place] for place in range(len(chunk.records))]


@dataclass(frozen=True)
class RunSummary:
    """What a run has written.

    Attributes:
        files: the outputs; none while parts of other processes are missing.
        records, nucleotides: of the whole input.
        seconds: what this run took.
        sequences_per_second: of this process, in this run.
        padding: share of the tokens computed in this run that was padding.
        problems: what could not be computed or written, a sentence each.
        resumed: whether an earlier run, or another process, had done a part of it.
        share: what this process computed.
        source: of the task.
        metrics: how well results agree with labels that the input has, by name.
        threads: the most that were used, on a CPU.
        estimate: what the run will take, of a dry run.
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
        """A line that says it, and one of where the results come from, if that is to be said."""
        noun = "sequence" if self.records == 1 else "sequences"
        size = f"{self.records} {noun}, {self.nucleotides} nt"
        if self.estimate:
            return f"{size}: {self.estimate}"
        files = describe([str(file) for file in self.files])
        if len(self.files) > 8:
            files = f"{self.files[-1]} and {len(self.files) - 1} more files"
        if not self.files:
            files = f"{self.share.text}, done; the output follows when all parts are"
        resumed = ", of which a part was there already" if self.resumed else ""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return (
            f"{self.source}\n" * bool(self.source) + f"{files}: {size}{resumed}; "
            f"{self.seconds:.1f} s, {self.sequences_per_second:.1f} sequences a second, "
            f"{100 * self.padding:.1f} % padding, {threads}"
        )


# ---------------------------------------------------------------------------------------------
# In memory


def iterate(task: Task[Result], sequences: Sequences, model: Any) -> Iterator[Result]:
    """The results of all sequences, in input order.

    Raises:
        InputError: a sequence is unfit or too long; before any of it is computed, unless the
            input can be read only once.
        ValueError: the model cannot be loaded, or an option does not fit it.
        EncodingError: a result is not finite, or memory does not suffice; named by id.
    """
    if task.options.part is not None:
        raise OptionError("part", f"needs outputs that are files; got {task.options.part!r}")
    if task.options.dry_run:
        raise OptionError("dry_run", "estimates the writing of an output: name one")
    source = _checked(task, as_source(sequences, **task.options.reading))
    found = None if source.once else survey(source.read())
    return task.join(_results(task, source, _load(task, found, model)))


def _load(task: Task[Any], found: Survey | None, model: Any, device: str | None = None) -> Progress:
    """Load the model of a task, and check that it can take the input.

    Args:
        found: in the input; None if it can be read only once.
        device: in place of that of the options.
    """
    task.load(find_model(model, task.options.revision), device or task.options.device)
    if found is not None:
        check_lengths(found, task.model.config, task.options.long, _long_choices(task))
    return Progress(task.options.progress, task.plan, found)


def _results(task: Task[Result], source: Source, bar: Progress) -> Iterator[Result]:
    choices = _long_choices(task)
    records = short_enough(source.read(), task.model.config, task.options.long, choices)
    with contextlib.closing(bar):
        for chunk in task.plan.chunks(records):
            yield from _compute_chunk(task, chunk, bar)


def _compute_chunk(task: Task[Result], chunk: Chunk, bar: Progress) -> list[Result]:
    from ernie_rna.run.threads import use_threads_for

    with use_threads_for(task, chunk) as threads:
        bar.threads = max(bar.threads, threads)
        return task.compute(chunk, partial(bar.advance, chunk))


def _checked(task: Task[Any], source: Source, outputs: Sequence[Output[Any]] = ()) -> Source:
    checks = [output.check_id for output in outputs if output.check_id is not None]

    def read() -> Iterator[FastaRecord]:
        for record in task.check(source.read()):
            for check in checks:
                check(record.id)
            yield record

    return Source(read, source.once)


def _long_choices(task: Task[Any]) -> Sequence[str]:
    choices: Sequence[str] = type(task.options).__dataclass_fields__["long"].metadata["choices"]
    return choices


# ---------------------------------------------------------------------------------------------
# Into outputs


def run(
    task: Task[Result], sequences: Sequences, model: Any, outputs: Sequence[Output[Result]]
) -> RunSummary:
    """Write the results of all sequences to outputs; a run that was killed is resumed.

    Args:
        outputs: checked by whoever makes them. If all are standard output, nothing is kept.

    Raises:
        InputError: the input is unfit, or has changed while it was read.
        OutputError: an output exists, is being written, or the disk is full; or the unfinished
            results beside it are of other settings.
        And as `iterate`.
    """
    source = _checked(task, as_source(sequences, **task.options.reading), outputs)
    files = [output for output in outputs if output.path != STANDARD_OUTPUT]
    share = own_share(task.options.part)
    if not files and share.count > 1:
        raise OptionError("part", f"needs outputs that are files; this is {share.text}")
    if task.options.dry_run:
        return _estimate(task, source, model, place=files[0].path if files else "")
    if not files:
        return _stream(task, source, model, outputs)
    place = behind_link(Path(files[0].path))
    check_place(place)
    with full_disk_explained(place, _MAKE_ROOM), Store(place, share, task.options.force) as store:
        existing = task.existing(files)
        if existing and not store.begun and not task.options.force:
            raise OutputError(f"{existing[0]} exists already; --force replaces it")
        return _Run(task, source, model, outputs, store, share).finish()


def _stream(
    task: Task[Result], source: Source, model: Any, outputs: Sequence[Output[Result]]
) -> RunSummary:
    """Write to standard output as results come; nothing is kept."""
    if sys.stdout.isatty():  # A bar would be drawn between the lines.
        task.options = replace(task.options, progress=False)
    with source.readable_twice() as twice:
        found = survey(twice.read())
        bar = _load(task, found, model)
        files, problems = task.write(task.join(_results(task, twice, bar)), outputs)
    return _summary(bar, found, files, problems, source=task.source)


def _estimate(task: Task[Any], source: Source, model: Any, place: str) -> RunSummary:
    from ernie_rna.run.estimate import disk_rate, estimate

    with source.readable_twice() as twice:
        begin = time.monotonic()
        found = survey(twice.read())
        reading = time.monotonic() - begin
        with contextlib.closing(_load(task, found, model)) as bar:
            about = estimate(task, twice.read(), found)
    text = about.shared
    if task.options.scale_to is not None:
        disk = disk_rate(Path(place).parent)
        text += f"\n{about.scaled(task.options.scale_to, found, reading, disk)}"
    return _summary(bar, found, [], [], estimate=text)


def _summary(
    bar: Progress, found: Survey, files: list[Path], problems: list[str], **more: Any
) -> RunSummary:
    return RunSummary(
        files=files,
        records=found.records,
        nucleotides=found.nucleotides,
        seconds=bar.seconds,
        sequences_per_second=bar.done / bar.seconds,
        padding=bar.padding / max(bar.tokens, 1),
        threads=bar.threads,
        problems=problems,
        **more,
    )


class _Run(Generic[Result]):
    """A run of this process, its store locked."""

    def __init__(
        self,
        task: Task[Result],
        source: Source,
        model: Any,
        outputs: Sequence[Output[Result]],
        store: Store,
        share: Share,
    ):
        if source.once:
            if share.count > 1:
                raise InputError(
                    "an input that can be read only once cannot be shared by several processes: "
                    f"give each the same file ({share.text})"
                )
            source = source.kept_in(store.input_path)
        self.task, self.source, self.outputs = task, source, outputs
        self.store, self.share = store, share
        self.found = survey(source.read())
        self.bar = _load(task, self.found, model, _own_device(task, share))
        self.metadata = task.metadata(self.found, model)

    def finish(self) -> RunSummary:
        from ernie_rna.run.threads import use_threads

        with use_threads(self.task.options.threads), contextlib.closing(self.bar):
            resumed = self._begin()
            count = 0 if self.store.done else self._compute()
            files, problems = self._assemble(count)
        more = {"resumed": resumed, "share": self.share, "source": self.task.source}
        return _summary(self.bar, self.found, files, problems, **more)

    def _begin(self) -> bool:
        from ernie_rna.run.provenance import describe_machine

        manifest = {
            **self.metadata,
            "chunk_tokens": self.task.plan.limit,
            "machine": describe_machine(self.task.model.device),
            # Those that exist are replaced when a run is resumed, so they must be the same ones.
            "outputs": [self._relative(output.path) for output in self.outputs],
        }
        whole = all(self.task.existing([output]) for output in self._files)
        resumed = self.store.begin(manifest, whole)
        there = sum(path.stat().st_size for path in self.store.folder.glob("part-*"))
        free = shutil.disk_usage(self.store.folder).free
        expected = 2 * self.task.nbytes(self.found)
        if expected - there > free:
            warnings.warn(
                f"{self.store.output} and unfinished results will take up to "
                f"{expected / 1e6:,.0f} MB, but {free / 1e6:,.0f} MB are free",
                stacklevel=2,
            )
        return resumed

    @property
    def _files(self) -> list[Output[Result]]:
        return [output for output in self.outputs if output.path != STANDARD_OUTPUT]

    def _relative(self, output: str) -> str:
        """An output as seen from the folder of the first one, which may be moved."""
        if output == STANDARD_OUTPUT:
            return output
        return os.path.relpath(behind_link(Path(output)), self.store.output.parent)

    def _compute(self) -> int:
        """Compute the chunks that are this process's; return how many there are in all."""
        digest = Digest()
        count = 0
        metadata = self.task.part_metadata(self.metadata)
        for chunk in self.task.plan.chunks(digest.watch(self.source.read())):
            count += 1
            own = chunk.number % self.share.count == self.share.index
            if not own or self.store.done or self.store.part(chunk.number).is_whole():
                self.bar.skip(chunk)
            else:
                results = _compute_chunk(self.task, chunk, self.bar)
                self.store.put(chunk.number, self.task.pack(results), metadata)
        if digest.sha256 != self.found.sha256:
            self.store.invalidate()
            raise InputError("the input was changed while it was being read; run it again")
        return count

    def _assemble(self, count: int) -> tuple[list[Path], list[str]]:
        """Put the outputs together, if all parts are there and nobody else has done it."""
        with self.store.assembling():
            if self.store.done:
                made: tuple[list[Path], list[str]] = self.task.existing(self.outputs), []
            elif not self.store.begun:
                raise OutputError(
                    f"another process has dropped the unfinished results of {self.store.output}; "
                    "run it again"
                )
            else:
                parts = [self.store.part(number) for number in range(count)]
                if not all(part.path.exists() for part in parts):
                    self.store.finish_share()
                    return [], []
                for output in self._files:
                    clear_unfinished(Path(output.path))
                made = self.task.assemble(parts, self.outputs, self.metadata)
                self.store.finish()
            self.store.finish_share()
            return made


def _own_device(task: Task[Any], share: Share) -> str | None:
    """The device of this process: of several on one machine, each takes a GPU."""
    device = task.options.device
    if share.local is None or device not in (None, "auto", "cuda"):
        return device
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{share.local % count}" if count else device
