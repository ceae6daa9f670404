"""Any task over many files on many machines, by Ray (extra `ray`).

    on_ray(embed, ["a.fasta", "b.fasta"], "vectors", "mini", format=".parquet", actors=8)

Each file is cut into parts, which actors compute as processes that share a run do, see
`run.runner`. So outputs and options are those of the function, a machine that dies has its part
computed again from what is kept, and where the process that calls this dies, the same call resumes.
Every machine must see the paths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ernie_rna.extras import import_extra
from ernie_rna.run.find_model import find_model
from ernie_rna.run.outputs import OutputError
from ernie_rna.run.runner import RunSummary
from ernie_rna.sequences.fasta import FilePath


def on_ray(
    function: Callable[..., RunSummary],
    inputs: FilePath | Sequence[FilePath],
    output: FilePath,
    model: str | PathLike[str],
    *,
    format: str,
    actors: int = 2,
    cpus_per_actor: float = 1,
    gpus_per_actor: float = 0,
    **options: Any,
) -> list[RunSummary]:
    """Call a function of this package on every input file.

    Ray is started on this machine unless `ray.init` has been called.

    Args:
        function: `embed`, `fold`, `closeness`, `mutate` or `predict`, or another that takes
            sequences, a model, an output and `part`.
        inputs: FASTA files, no two of one name.
        output: folder for a file for each input, called as it is, with the extension `format`.
        model: folder, Hub id or "mini".
        actors: how many processes compute; each file is cut into so many parts.
        cpus_per_actor, gpus_per_actor: what each of them takes; with a GPU it computes there.
        options: of the function.

    Returns:
        What was written of each input, in order.

    Raises:
        OutputError: two inputs would be written to one file, or as the function.
        ImportError: Ray is not installed.
        And as the function.
    """
    ray = import_extra("ray", "ray", "computing on Ray")
    given = [inputs] if isinstance(inputs, (str, PathLike)) else list(inputs)
    paths = [Path(path).absolute() for path in given]
    folder = Path(output).absolute()
    outputs = [folder / f"{_stem(path)}{format}" for path in paths]
    twice = next((path for path in outputs if outputs.count(path) > 1), None)
    if twice is not None:
        raise OutputError(f"two inputs would be written to {twice}: give them other names")
    folder.mkdir(parents=True, exist_ok=True)
    name = find_model(model, options.get("revision"))
    source = str(Path(name).absolute()) if Path(name).is_dir() else fspath(name)
    options = {"device": "cuda" if gpus_per_actor else "cpu", "progress": False, **options}

    if not ray.is_initialized():
        ray.init()
    # A task that dies with its machine is started again, and resumes what is kept.
    call = ray.remote(num_cpus=cpus_per_actor, num_gpus=gpus_per_actor, max_retries=-1)(_call)
    work = [
        [
            call.remote(function, str(path), source, str(target), f"{part}/{actors}", options)
            for part in range(1, actors + 1)
        ]
        for path, target in zip(paths, outputs, strict=True)
    ]
    try:
        return [_whole(ray.get(parts)) for parts in work]
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _stem(path: Path) -> str:
    """The name of a file without the extensions of FASTA and of its compression."""
    stem = path.stem if path.suffix in (".gz", ".bz2", ".xz") else path.name
    return Path(stem).stem or stem


def _call(
    function: Callable[..., RunSummary],
    path: str,
    model: str,
    output: str,
    part: str,
    options: dict[str, Any],
) -> RunSummary:
    return function(path, model, output, part=part, **options)


def _whole(summaries: Sequence[RunSummary]) -> RunSummary:
    """The summary of the process that has put an output together."""
    return next(one for one in summaries if one.files)
