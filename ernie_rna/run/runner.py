"""How something is computed of all sequences of an input, whatever it is.

    class Lengths(Task[int]): ...                  # what is computed of a batch of sequences
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
from ernie_rna.run.find_model import find_model
from ernie_rna.run.outputs import (
    STANDARD_OUTPUT,
    OutputError,
    behind_link,
    clear_dead,
    describe,
    exists_already,
    full_disk_explained,
    open_text,
)
from ernie_rna.run.parts import Part, Results, pack, unpack
from ernie_rna.run.progress import Progress, show_loading
from ernie_rna.run.store import Store, check_place
from ernie_rna.sequences.chunks import Chunk, Piece, Plan
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
from ernie_rna.sequences.tables import as_named

Result = TypeVar("Result")

# Takes a result; raises ValueError where the format cannot hold it.
Write = Callable[[Result], object]
# The files that were written, and what could not be written, a sentence each.
Written = tuple[list[Path], list[str]]

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
    check_id: Callable[[str], object] | None = None


def text_output(
    path: str, header: str | Callable[[], str], lines: Callable[[Result], str | Iterable[str]]
) -> Output[Result]:
    """A text file of a header and lines for each result, whose line ends are part of them.

    Cells have tabs between them, commas in a .csv file.

    Args:
        header: or what gives it once the model is loaded.
    """

    @contextlib.contextmanager
    def opened(path: str) -> Iterator[Write[Result]]:
        with open_text(path) as file:
            file.write(as_named(path, header if isinstance(header, str) else header()))
            yield lambda result: file.write(as_named(path, "".join(lines(result))))

    return Output(path, opened)


class Task(ABC, Generic[Result]):
    """What is computed of sequences. Made of options, then given a model.

    Attributes:
        name: of what is computed, in messages and manifests.
        result: the dataclass of a result, as `parts.pack` takes it; with a `pack` of its own a task
            needs none.
        options: as given.
        model: what `load` has made.
        plan: how the input is cut.
        source: what of the model the results come from, in words; "" where that needs none.
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
        """Set `model` and `plan`.

        Args:
            source: what `find_model` returns.

        Raises:
            ValueError: an option does not fit the model, or it has no such head.
        """

    @abstractmethod
    def compute(self, records: list[FastaRecord], pieces: list[Piece]) -> Iterable[Any]:
        """What each piece of a batch gives, in order.

        Args:
            records: that of each piece.

        Raises:
            EncodingError: a result is not finite.
        """

    def merge(self, record: FastaRecord, pieces: list[Piece], values: list[Any]) -> Result:
        """The result of a record, of what `compute` gave of its pieces in this chunk.

        By default a record has one piece, which gives the result.
        """
        (result,) = values
        return result  # type: ignore[no-any-return]

    def pack(self, results: list[Result]) -> Results:
        """Results as the store keeps them."""
        return pack(results)

    def unpack(self, part: Part) -> Iterator[Result]:
        """The inverse of `pack`."""
        return unpack(part, self.result)

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

    def write(self, results: Iterable[Any], outputs: Sequence[Output[Result]]) -> Written:
        """Write results to outputs."""

        def room_for(path: str) -> contextlib.AbstractContextManager[None]:
            # A stream is not resumed.
            return full_disk_explained(describe([path]), _MAKE_ROOM * (path != STANDARD_OUTPUT))

        problems: list[str] = []
        with contextlib.ExitStack() as stack:
            writers = {}
            for output in outputs:
                stack.enter_context(room_for(output.path))
                assert output.open is not None
                writers[output.path] = stack.enter_context(output.open(output.path))
            for result in results:
                for path, write in writers.items():
                    try:
                        with room_for(path):
                            write(result)
                    except ValueError as error:
                        problems.append(f"{result.id} is not in {describe([path])}: {error}")
        return [Path(output.path) for output in outputs], problems

    def assemble(
        self, parts: list[Part], outputs: Sequence[Output[Result]], metadata: dict[str, Any]
    ) -> Written:
        """Make the outputs of the parts, in their order."""
        results = (result for part in parts for result in self.unpack(part))
        return self.write(self.join(results), outputs)

    def metrics(self) -> dict[str, float]:
        """How well what was written agrees with labels that the input has, by name."""
        return {}

    def metadata(self, found: Survey, given: Any) -> dict[str, Any]:
        """All that the results depend on, but the machine; for JSON.

        Args:
            found: in the input.
            given: what the caller named as the model.
        """
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
    return task.join(_results(task, source, _load(task, source, model)[1]))


def _checked(task: Task[Any], source: Source, outputs: Sequence[Output[Any]] = ()) -> Source:
    """The records of a source, of which task and outputs can take every one."""
    checks = [output.check_id for output in outputs if output.check_id is not None]

    def read() -> Iterator[FastaRecord]:
        for record in task.check(source.read()):
            for check in checks:
                check(record.id)
            yield record

    return Source(read, source.once)


def _load(task: Task[Any], source: Source, model: Any) -> tuple[Any, Progress]:
    """Look through an input, load the model of a task, and check that it can take the input.

    Returns:
        What is in the input, None if it can be read only once; and a bar for it.
    """
    found = None if source.once else survey(source.read())
    where, long = find_model(model, task.options.revision), task.options.long
    if found is not None and long == "error" and isinstance(where, str):
        # Before torch is imported, where config.json is at hand; loading says what is wrong in it.
        config = SimpleNamespace(max_position_embeddings=sys.maxsize)
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            values = json.loads((Path(where) / "config.json").read_bytes())
            config.max_position_embeddings = int(values["max_position_embeddings"])
        check_lengths(found, config, long, _long_choices(task))
    with show_loading(task.options.progress):
        task.load(where)
    if found is not None:
        check_lengths(found, task.model.config, long, _long_choices(task))
    return found, Progress(task.options.progress, task.plan, found)


def _long_choices(task: Task[Any]) -> Sequence[str]:
    choices: Sequence[str] = type(task.options).__dataclass_fields__["long"].metadata["choices"]
    return choices


def _results(task: Task[Result], source: Source, bar: Progress) -> Iterator[Result]:
    choices = _long_choices(task)
    records = short_enough(source.read(), task.model.config, task.options.long, choices)
    with contextlib.closing(bar):
        for chunk in task.plan.chunks(records):
            results = _compute_chunk(task, chunk, bar)
            with bar.cleared():
                yield from results


def _compute_chunk(task: Task[Result], chunk: Chunk, bar: Progress) -> list[Result]:
    """The results of the records of a chunk, or of its pieces of them, in their order."""
    import torch

    values: dict[int, Any] = {}
    for places, (pieces, batch) in zip(chunk.batches, compute_batches(task, chunk), strict=True):
        values |= zip(places, batch, strict=True)
        bar.advance(chunk, pieces, torch.get_num_threads())
    own: list[list[int]] = [[] for _ in chunk.records]
    for place, piece in enumerate(chunk.pieces):
        own[piece.record].append(place)
    return [
        task.merge(record, [chunk.pieces[one] for one in places], [values[one] for one in places])
        for record, places in zip(chunk.records, own, strict=True)
    ]


def compute_batches(task: Task[Any], chunk: Chunk) -> Iterator[tuple[list[Piece], list[Any]]]:
    """The pieces of each batch of a chunk, and what each gives.

    Torch uses the threads of the options for it, else those that suit the chunk.

    Raises:
        EncodingError: memory does not suffice, or a result is not finite.
    """
    from ernie_rna.run.loading import memory_explained, suitable_threads, use_threads

    suitable = suitable_threads(task.model.config, task.plan, chunk)
    with use_threads(task.options.threads or suitable):
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
    """Write the results of all sequences to outputs; a run that was killed is resumed.

    Args:
        outputs: checked by whoever makes them. If all are standard output, nothing is kept.

    Raises:
        InputError: the input is unfit, or has changed while it was read.
        OutputError: an output exists, is being written, or the disk is full; or the unfinished
            results beside it are of other settings.
        And as `iterate`.
    """
    options = task.options
    source = _checked(task, as_source(sequences, **options.reading), outputs)
    files = [Path(output.path) for output in outputs if output.path != STANDARD_OUTPUT]
    share = own_share(options.part)
    if not files and share.count > 1:
        raise OptionError("part", f"needs outputs that are files; this is {share.text}")
    if options.dry_run or not files:
        return _run_unkept(task, source, model, outputs)
    place = behind_link(files[0])
    check_place(place)
    with full_disk_explained(place, _MAKE_ROOM), Store(place, share, options.force) as store:
        _refuse_existing(task, outputs, store)
        if source.once and share.count > 1:
            raise InputError(
                "an input that can be read only once cannot be shared by several processes: give "
                f"each the same file ({share.text})"
            )
        if source.once:
            source = source.kept_in(store.input_path)
        task.options = replace(options, device=_own_device(task, share))
        found, bar = _load(task, source, model)
        with contextlib.closing(bar):
            metadata = task.metadata(found, model)
            manifest = _manifest(task, metadata, outputs, place)
            resumed = store.begin(manifest, lambda: _are_there(task, outputs))
            _warn_of_room(store, 2 * task.nbytes(found))
            parts = [] if store.done else _compute(task, source, found, store, bar, metadata)
            with store.assembling() as said:
                written = [] if said is None else task.existing(outputs)
                if said is None and parts and all(part.path.exists() for part in parts):
                    written, said = _assemble(task, parts, outputs, store, metadata)
                store.finish_share()
    return _summary(task, bar, found, written, said or {}, resumed=resumed, share=share)


def _run_unkept(
    task: Task[Result], source: Source, model: Any, outputs: Sequence[Output[Result]]
) -> RunSummary:
    """Write to standard output as results come, or say what a run will take."""
    with source.readable_twice() as twice:
        found, bar = _load(task, twice, model)
        with contextlib.closing(bar):
            if task.options.dry_run:
                from ernie_rna.run.estimate import forecast

                text = forecast(task, twice, found, outputs[0].path)
                return _summary(task, bar, found, [], {}, estimate=text)
            written, said = _said(task, task.write(task.join(_results(task, twice, bar)), outputs))
            return _summary(task, bar, found, written, said)


def _said(task: Task[Any], written: Written) -> tuple[list[Path], dict[str, Any]]:
    """What was written; and the problems and metrics of the summary, by name."""
    files, problems = written
    return files, {"problems": problems, "metrics": task.metrics()}


def _summary(
    task: Task[Any],
    bar: Progress,
    found: Survey,
    written: list[Path],
    said: dict[str, Any],
    **more: Any,
) -> RunSummary:
    return RunSummary(
        files=written,
        records=found.records,
        nucleotides=found.nucleotides,
        seconds=bar.seconds,
        sequences_per_second=bar.done / bar.seconds,
        padding=bar.padding / max(bar.tokens, 1),
        threads=bar.threads,
        source=task.source,
        **said,
        **more,
    )


def _own_device(task: Task[Any], share: Share) -> str | None:
    """The device of this process: of several on one machine, each takes a GPU."""
    device = task.options.device
    if share.local is None or device not in (None, "auto", "cuda"):
        return device
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{share.local % count}" if count else device


def _manifest(
    task: Task[Any], metadata: dict[str, Any], outputs: Sequence[Output[Any]], place: Path
) -> dict[str, Any]:
    """What a run that resumes must agree with."""
    from ernie_rna.run.provenance import describe_machine

    # As seen from the folder of the first one, which may be moved.
    paths = [
        path if path == STANDARD_OUTPUT else os.path.relpath(behind_link(Path(path)), place.parent)
        for path in (output.path for output in outputs)
    ]
    return {
        **metadata,
        "chunk_tokens": task.plan.limit,
        "machine": describe_machine(task.model.device, task.options.threads),
        # Those that exist are replaced when a run is resumed, so they must be the same ones.
        "outputs": paths,
    }


def _warn_of_room(store: Store, expected: int) -> None:
    there = 0
    for path in store.folder.glob("part-*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # Another process has just ended the run.
            there += path.stat().st_size
    free = shutil.disk_usage(store.folder).free
    if expected - there > free:
        warnings.warn(
            f"{store.output} and unfinished results will take up to {expected / 1e6:,.0f} MB, but "
            f"{free / 1e6:,.0f} MB are free",
            stacklevel=3,
        )


def _compute(
    task: Task[Any], source: Source, found: Survey, store: Store, bar: Progress, metadata: Any
) -> list[Part]:
    """Compute the chunks that are this process's; return the parts of all, there or not."""
    digest, parts = Digest(), []
    for chunk in task.plan.chunks(digest.watch(source.read())):
        part = store.part(chunk.number, chunk.records)
        parts.append(part)
        if store.owns(chunk.number) and not part.is_whole():
            part.put(task.pack(_compute_chunk(task, chunk, bar)), metadata)
        else:
            bar.skip(chunk)
    if digest.sha256 != found.sha256:
        store.invalidate()
        raise InputError("the input was changed while it was being read; run it again")
    return parts


def _assemble(
    task: Task[Any],
    parts: list[Part],
    outputs: Sequence[Output[Any]],
    store: Store,
    metadata: dict[str, Any],
) -> tuple[list[Path], dict[str, Any]]:
    """Put the outputs together of all parts; as `_said`."""
    for number, part in enumerate(parts):
        if not part.is_whole():  # It was damaged since its process has computed it.
            store.finish_share()
            raise OutputError(
                f"{part.path} is damaged: run part {store.owner(number)} again, which computes it"
            )
    for output in outputs:
        clear_dead(Path(output.path))
    _refuse_existing(task, outputs, store)
    store.claim(task.existing(outputs))
    written, said = _said(task, task.assemble(parts, outputs, metadata))
    store.finish(**said)
    return written, said


def _are_there(task: Task[Any], outputs: Sequence[Output[Any]]) -> bool:
    """Whether all outputs are there; what went to standard output is not."""
    return all(task.existing([one]) for one in outputs)


def _refuse_existing(task: Task[Any], outputs: Sequence[Output[Any]], store: Store) -> None:
    """Raise OutputError for an output that this run has not written, unless it may be replaced."""
    is_lost = store.done and not _are_there(task, outputs)
    for output in outputs:
        for path in task.existing([output])[:1]:  # of shards their index
            if is_lost and not task.options.force:
                raise exists_already(path)
            store.check_ours(path)
