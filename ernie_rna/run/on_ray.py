"""Any task over many files on many machines, by Ray (extra `ray`).

    on_ray(embed, ["a.fasta", "b.fasta"], "vectors", "mini", format=".parquet", parts=8)

Each file is cut into parts, which Ray's tasks compute as processes that share a run do, see
`run.runner`. So outputs and options are those of the function, the part of a machine that dies is
resumed by another, and where the process that calls this dies, the same call resumes. Every machine
must see the paths.
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
from ernie_rna.run.outputs import OutputError, replacing
from ernie_rna.run.provenance import versions
from ernie_rna.run.runner import RunSummary
from ernie_rna.run.store import differences, partial_folder
from ernie_rna.sequences.fasta import FilePath, uncompressed

# Files that a function writes beside its output.
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

    Ray is started on this machine unless `ray.init` has been called. The folder is for one call:
    on_ray.json in it, written first, says which, and an output that is there is finished.

    Args:
        function: `embed`, `fold`, `closeness`, `mutate`, `predict`, or one like them.
        inputs: files, no two of one name.
        output: folder for a file for each input, called as it is, with the extension `format`.
        model: folder, Hub id or "mini".
        parts: how many tasks each file is cut into.
        cpus_per_part, gpus_per_part: what each takes; with a GPU it computes there.
        options: of the function; `force` computes no output anew that is finished.

    Returns:
        What was written of each input, in order; None where it was finished already.

    Raises:
        OptionError: an option cannot be had for several tasks.
        OutputError: the folder is not empty, and of no call or one that differs.
        And as the function; ImportError without Ray.
    """
    ray = import_extra("ray", "ray", "computing on Ray")
    given = [inputs] if isinstance(inputs, (str, PathLike)) else list(inputs)
    _check_options(function, len(given), {"parts": parts, **options})
    paths = [Path(path).absolute() for path in given]
    folder = Path(output).absolute()
    # As texts, which keep the slash of a folder.
    outputs = [f"{folder / uncompressed(path).stem}{format}" for path in paths]
    twice = next((path for path in outputs if outputs.count(path) > 1), None)
    if twice is not None:
        raise OutputError(f"two inputs would be written to {twice}: give them other names")
    source = find_model(model, options.get("revision"))
    source = str(Path(source).absolute()) if Path(source).is_dir() else source
    options = {"device": "cuda" if gpus_per_part else "cpu", **options, "progress": False}
    call = {
        "function": function.__name__,
        "inputs": _state(paths),
        "model": {"name": source, **_state(Path(source).glob("*"))},
        "options": {name: value for name, value in options.items() if name != "force"},
        "files": _state(_files(options)),
        "versions": versions(),
    }
    _agree(folder, json.loads(json.dumps(call, default=_as_text)))
    if not ray.is_initialized():
        ray.init()
    # A task that dies with its machine is started again, and resumes what is kept.
    remote = ray.remote(num_cpus=cpus_per_part, num_gpus=gpus_per_part, max_retries=-1)(_call)
    work = [
        [
            remote.remote(function, path, source, target, {**options, "part": f"{part}/{parts}"})
            for part in range(1, parts + 1)
        ]
        for path, target in zip(paths, outputs, strict=True)
    ]
    try:
        return [next(filter(None, ray.get(tasks)), None) for tasks in work]
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _check_options(
    function: Callable[..., RunSummary], inputs: int, options: dict[str, Any]
) -> None:
    """Raise OptionError for what cannot be had for so many inputs, each in parts."""
    if not hasattr(function, "__name__"):
        raise OptionError(
            "function", f"must be a function, its options those of on_ray; got {function!r}"
        )
    problems = {
        "part": "is for on_ray to give, by parts",
        "dry_run": "is for one input: call the function itself",
    }
    if inputs > 1:
        one = f"is one file, and there are {inputs} inputs: call on_ray for each"
        problems |= dict.fromkeys(_MORE_OUTPUTS, one)
    for name, problem in problems.items():
        if options.get(name):
            raise OptionError(name, f"{problem}; got {options[name]!r}")
    wrong = whole(1)(options["parts"])
    if wrong:
        raise OptionError("parts", f"{wrong}; got {options['parts']!r}")


def _agree(folder: Path, call: dict[str, Any]) -> None:
    """Have the folder say what is computed in it; OutputError if it is of a call that differs."""
    record = folder / "on_ray.json"
    before = json.loads(record.read_bytes()) if record.exists() else None
    if not any(path != record for path in folder.glob("*")):
        before = None  # A call that was refused has left nothing but its record.
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
    """Size and time of change of files, by which other content is noticed without reading it."""
    return {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}


def _files(options: dict[str, Any]) -> Iterator[Path]:
    """Those that options name, alone or by their folder, to be read."""
    for name, value in options.items():
        if name not in _MORE_OUTPUTS and isinstance(value, (str, PathLike)):
            yield from Path(value).glob("*") if os.path.isdir(value) else []
            yield from [Path(value)] if os.path.isfile(value) else []


def _as_text(value: Any) -> str:
    """What JSON has no word for; of arrays the digest."""
    if callable(value):
        return function_name(value)
    if isinstance(value, (set, frozenset)):
        return str(sorted(value))
    if hasattr(value, "shape"):
        return hashlib.sha256(np.asarray(value).tobytes()).hexdigest()
    return str(value)


def _call(
    function: Callable[..., RunSummary], path: Path, model: str, output: str, options: Any
) -> RunSummary | None:
    """The summary of a task that finds the output whole; None if it is not, or was before."""
    place = Path(output)
    index = place.with_name(f"{place.name}.index.json")  # of shards
    if (place.exists() or index.exists()) and not partial_folder(place).exists():
        return None
    summary = function(path, model, output, **options)
    return summary if summary.files else None
