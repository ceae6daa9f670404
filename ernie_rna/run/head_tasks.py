"""The authors' fine-tuned models at work, in memory or into a file that a killed run goes on with.

Shapes: batch sequences, seq tokens, length bases of the longest sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, Generic, TypeVar

from ernie_rna.run.attention_scores import check_pairing_scores
from ernie_rna.run.by_window import compute_window, compute_windows
from ernie_rna.run.loading import class_names, load_head
from ernie_rna.run.outputs import behind_link
from ernie_rna.run.processes import World
from ernie_rna.run.progress import Progress
from ernie_rna.run.provenance import Options, describe
from ernie_rna.run.resumable import Job, Results, RunSummary, Step, run_job
from ernie_rna.run.store import Part
from ernie_rna.run.threads import use_threads
from ernie_rna.sequences.batches import WINDOW_BATCHES, Plan, Window, resolve_batch_tokens
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.sequences.long import nucleotide_limit
from ernie_rna.sequences.sources import WHOLE, Intake, Sequences, Source
from ernie_rna.sequences.survey import Survey, check_lengths

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class HeadOptions(Options):
    """The arguments of `closeness` and `ribosome_loading` that say what is computed."""

    pairing_scores: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pairing_scores(self.pairing_scores)


@dataclass(frozen=True)
class HeadTask(Generic[Result]):
    """What a head computes of sequences, and how it is put into a file.

    Attributes:
        name: of the task, in messages and beside unfinished results.
        kind: class of the model.
        width: of its configuration, for `batches.work`.
        squared_from, window_tokens: as for `batches.Plan`; a window's results are held in memory.
        compute: of a model, `pairing_scores` and the records of a batch, a result for each.
        pack: of the results of a window, what the store keeps.
        nbytes: about what the results of an input take.
        write: makes a file of the store's parts.
    """

    name: str
    kind: type
    width: Callable[[Any], float]
    squared_from: int
    window_tokens: int
    compute: Callable[[Any, str | None, list[FastaRecord]], Iterable[Result]]
    pack: Callable[[list[Result]], Results]
    nbytes: Callable[[Survey], int]
    write: Callable[[list[Part], Path], None]

    def load(self, model: Any, options: HeadOptions) -> Any:
        """The model with its head.

        Raises:
            ValueError: it has no such head.
        """
        names = class_names(model, options.revision)
        if self.kind.__name__ not in names:
            what = model if isinstance(model, (str, PathLike)) else "the model"
            raise ValueError(
                f"{what} has no head for {self.name}: it is {names[0] if names else 'unnamed'}, "
                f"not {self.kind.__name__}; `ernie-rna convert` makes one of the authors' "
                "fine-tuned checkpoint"
            )
        return load_head(self.kind, model, **options.loading)

    def plan(self, model: Any, options: HeadOptions) -> Plan:
        tokens = resolve_batch_tokens(options.batch_tokens, model.device)
        return Plan(
            tokens,
            nucleotide_limit(model.config),
            long=options.long,
            window_tokens=min(self.window_tokens, WINDOW_BATCHES * tokens),
            squared_from=self.squared_from,
        )


def iterate(
    task: HeadTask[Result],
    sequences: Sequences,
    model: Any,
    options: HeadOptions,
    progress: bool | None,
) -> Iterator[Result]:
    """The results of all sequences, in input order; errors as for `closeness.closeness`."""
    intake = Intake(sequences, options.long, options.unknown)
    loaded = task.load(model, options)
    records = intake.records(loaded.config)
    plan, width = task.plan(loaded, options), task.width(loaded.config)
    bar = Progress(progress, width, intake.found, lambda length: plan.cost(length, width))

    def compute(records: list[FastaRecord]) -> list[Result]:
        with use_threads(options.threads):
            return list(task.compute(loaded, options.pairing_scores, records))

    return chain.from_iterable(compute_windows(plan.windows(records), compute, bar))


def write_file(
    task: HeadTask[Any],
    source: Source,
    model: Any,
    output: Path,
    options: HeadOptions,
    force: bool,
    progress: bool | None,
) -> RunSummary:
    """Write the results of a source to a file; errors as for `closeness.closeness`."""
    output = behind_link(output)

    def prepare(world: World, found: Survey) -> Job:
        own = replace(options, device=world.own_device(options.device))
        loaded = task.load(model, own)
        world.lead(lambda: check_lengths(found, loaded.config, own.long, WHOLE))
        plan = task.plan(loaded, own)

        def compute(window: Window, step: Step) -> Results:
            run = partial(task.compute, loaded, own.pairing_scores)
            results = compute_window(window, run, step)
            return {"ids": window.ids, **task.pack(results)}

        def assemble(parts: list[Part], folder: Path) -> list[Path]:
            unfinished = folder / f"output-{output.name}"
            task.write(parts, unfinished)
            unfinished.replace(output)
            return [output]

        metadata = _metadata(task, loaded, plan, own, found, model)
        width = task.width(loaded.config)
        device, nbytes = loaded.device, task.nbytes(found)
        return Job(metadata, device, plan, width, nbytes, compute, assemble)

    return run_job(source, output, prepare, force=force, progress=progress)


def _metadata(
    task: HeadTask[Any], model: Any, plan: Plan, options: HeadOptions, found: Survey, given: Any
) -> dict[str, Any]:
    """All that the results depend on."""
    metadata = describe(given, model, options, plan)
    metadata["settings"]["pairing_scores"] = options.pairing_scores or model.config.pairing_scores
    return {
        "format": f"ernie-rna {task.name}",
        "records": found.records,
        "input_sha256": found.sha256,
        **metadata,
    }
