"""Any task over many files on many machines, by Ray (extra `ray`).

    on_ray(embed, ["a.fasta", "b.fasta"], "vectors", "mini", format=".parquet", parts=8)

Several Ray tasks share the run of each file, as processes do (see `run.runner`), so outputs and
options are those of the function. If a machine dies, another one resumes its share; if the calling
process dies, the same call resumes. Every machine must see the paths.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ernie_rna.extras import import_extra
from ernie_rna.options import OptionError, function_name, whole
from ernie_rna.run.find_model import find_model
from ernie_rna.run.outputs import STANDARD_OUTPUT, OutputError, output_path, replacing
from ernie_rna.run.provenance import versions
from ernie_rna.run.runner import RunSummary
from ernie_rna.run.store import differences, partial_folder
from ernie_rna.sequences.fasta import FilePath, to_rna, uncompressed
from ernie_rna.sequences.sources import as_source

# Options that name files which a function writes beside its output.
_MORE_OUTPUTS = ("bases", "pairs", "positions", "summary")


def on_ray(
    function: Callable[..., RunSummary],
    inputs: FilePath | Sequence[FilePath],
    output: FilePath,
    model: str | PathLike[str],
    *,
    format: str,
    parts: int = 2,
    cpus_per_part: float = 1,
    gpus_per_part: float = 0,
    **options: Any,
) -> list[RunSummary | None]:
    """Call a function of this package on every input file.

    Starts Ray on this machine unless `ray.init` has been called. The folder belongs to one call,
    which on_ray.json in it records before any work. An input is finished if all its outputs exist.
    If one is missing, all are computed again; `force` also replaces those outside the folder.

    Args:
        function: `embed`, `fold`, `closeness`, `mutate`, `predict`, or one like them.
        inputs: files, each with a different name.
        output: folder for an output of each input, with its name and the extension `format`.
        model: folder, Hub id or "mini".
        parts: how many tasks share each file.
        cpus_per_part, gpus_per_part: what each task takes; with a GPU it computes there.
        options: of the function; `force` does not recompute an input that is finished. Of a
            function as `prior`, the call records the matrix of the first sequence.

    Returns:
        The summary for each input, in order; None if it was finished before.

    Raises:
        OptionError: an option is invalid for several tasks.
        OutputError: the folder has other files, or belongs to a different call; or an output
            outside the folder exists, but another output is missing.
        And what the function raises; ImportError without Ray.
    """
    ray = import_extra("ray", "ray", "computing on Ray")
    files = [inputs] if isinstance(inputs, (str, PathLike)) else list(inputs)
    _check_options(function, len(files), {"parts": parts, **options})
    paths = [Path(path).absolute() for path in files]
    folder = Path(output).absolute()
    # Text, since a Path would drop the slash at the end of a `format` that makes folders.
    outputs = [f"{folder / uncompressed(path).stem}{format}" for path in paths]
    duplicate = next((path for path in outputs if outputs.count(path) > 1), None)
    if duplicate is not None:
        raise OutputError(f"two inputs would be written to {duplicate}: rename one of them")
    source = find_model(model, options.get("revision"))
    source = str(Path(source).absolute()) if Path(source).is_dir() else source
    options = {"device": "cuda" if gpus_per_part else "cpu", **options, "progress": False}
    options |= {name: str(path) for name, path in _more_outputs(options).items()}
    recorded = {name: value for name, value in options.items() if name != "force"}
    if callable(options.get("prior")):
        recorded["prior"] = [function_name(options["prior"]), _first_matrix(paths[0], options)]
    call = {
        "function": function_name(function),
        "inputs": _state(paths),
        "model": {"name": source, **_state(Path(source).glob("*"))},
        "options": recorded,
        "files": _state(_files(options)),
        "versions": versions(),
    }
    _agree(folder, json.loads(json.dumps(call, default=_as_text)))
    if not ray.is_initialized():
        ray.init()
    # Ray restarts a task that dies with its machine; it resumes from the stored results.
    remote = ray.remote(num_cpus=cpus_per_part, num_gpus=gpus_per_part, max_retries=-1)(_call)
    tasks_of_files = []
    for path, target in zip(paths, outputs, strict=True):
        own = {**options, "force": _replaces(target, options)}
        shares = [{**own, "part": f"{part}/{parts}"} for part in range(1, parts + 1)]
        tasks_of_files.append([remote.remote(function, path, source, target, s) for s in shares])
    try:
        return [next(filter(None, ray.get(tasks)), None) for tasks in tasks_of_files]
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _check_options(
    function: Callable[..., RunSummary], inputs: int, options: dict[str, Any]
) -> None:
    """Raise OptionError for an option that is invalid for several tasks or so many inputs."""
    if getattr(function, "__name__", "<lambda>") == "<lambda>":
        problem = "must be a function, with its options given to on_ray, and have a name"
        raise OptionError("function", f"{problem}; got {function!r}")
    for name, value in options.items():
        if callable(value) and name != "prior":
            raise OptionError(name, "must not be a function, whose changes are not noticed")
        if name in _MORE_OUTPUTS and value == STANDARD_OUTPUT:
            raise OptionError(name, "must be a file; the standard output of a task is not shown")
    problems = {
        "part": "is set by on_ray: give parts",
        "dry_run": "is for one input: call the function itself",
    }
    if inputs > 1:
        one_file = f"is one file, but there are {inputs} inputs: call on_ray for each"
        problems |= dict.fromkeys(_MORE_OUTPUTS, one_file)
    for name, problem in problems.items():
        if options.get(name):
            raise OptionError(name, f"{problem}; got {options[name]!r}")
    problem_of_parts = whole(1)(options["parts"])
    if problem_of_parts:
        raise OptionError("parts", f"{problem_of_parts}; got {options['parts']!r}")


def _agree(folder: Path, call: dict[str, Any]) -> None:
    """Record the call in the folder. Raises OutputError if it has other files or another call."""
    record = folder / "on_ray.json"
    before = json.loads(record.read_bytes()) if record.exists() else None
    if not any(path != record for path in folder.glob("*")):
        before = None  # A call that failed before any work leaves only its record.
    elif before is None:
        raise OutputError(f"{folder} is not empty, and has no {record.name}: name another folder")
    if before not in (None, call):
        raise OutputError(
            f"{folder} belongs to another call: {differences(before, call)}. Name another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(record) as path:
        path.write_text(json.dumps(call, indent=1), encoding="utf-8")


def _state(paths: Iterable[Path]) -> dict[str, list[int]]:
    """Size and modification time of files, which show a change without reading the content."""
    return {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}


def _files(options: dict[str, Any]) -> Iterator[Path]:
    """The input files among the options' values: a file itself, or each file of a folder."""
    for name, value in options.items():
        if name not in _MORE_OUTPUTS and isinstance(value, (str, PathLike)):
            yield from Path(value).glob("*") if os.path.isdir(value) else []
            yield from [Path(value)] if os.path.isfile(value) else []


def _more_outputs(options: dict[str, Any]) -> dict[str, Path]:
    """The outputs among the options' values, by option."""
    given = [name for name in _MORE_OUTPUTS if options.get(name) is not None]
    return {name: Path(output_path(options[name], name)).absolute() for name in given}


def _first_matrix(path: Path, options: dict[str, Any]) -> str:
    """The digest of the matrix of a function as `prior` for the first sequence of a file."""
    reading = {name: options[name] for name in ("unknown", "degap") if name in options}
    record = next(as_source(path, **reading).read())
    matrix = np.asarray(options["prior"](to_rna(record.sequence)), np.float64)
    return hashlib.sha256(matrix.round(4).tobytes()).hexdigest()  # Last digits may vary.


def _exists(path: Path) -> bool:
    """Whether an output exists, or the index of its shards."""
    return path.exists() or path.with_name(f"{path.name}.index.json").exists()


def _replaces(target: str, options: dict[str, Any]) -> bool:
    """Whether the tasks of an input may replace outputs, because one is missing.

    Raises:
        OutputError: they would replace one outside the folder, without the option `force`.
    """
    force, more = bool(options.get("force")), [*_more_outputs(options).values()]
    if force or partial_folder(Path(target)).exists():
        return force
    missing = [path for path in (Path(target), *more) if not _exists(path)]
    kept = [path for path in more if path.exists()]
    if missing and kept:
        problem = f"{kept[0]} exists, but {missing[0]} is missing"
        raise OutputError(f"{problem}: force=True computes and replaces both")
    return bool(missing) and _exists(Path(target))  # The target belongs to this call.


def _as_text(value: Any) -> str:
    """Text for a value that JSON lacks; for an array its digest."""
    if isinstance(value, (set, frozenset)):
        return str(sorted(value))
    if hasattr(value, "shape"):
        return hashlib.sha256(np.asarray(value).tobytes()).hexdigest()
    return str(value)


def _call(
    function: Callable[..., RunSummary], path: Path, model: str, output: str, options: Any
) -> RunSummary | None:
    """Run a task. Returns None if an output still lacks parts, or all were complete before."""
    target = Path(output)
    outputs = (target, *_more_outputs(options).values())
    if all(map(_exists, outputs)) and not partial_folder(target).exists():
        return None
    summary = function(path, model, output, **options)
    return summary if summary.files else None
