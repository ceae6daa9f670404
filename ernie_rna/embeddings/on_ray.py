"""Embeddings by Ray Data, on one machine or many (extra `ray`).

    records (FASTA or Parquet) -> blocks of records -> actors that hold the model -> Parquet

Ray restarts an actor that dies and has its records computed again. Where the process that calls
`embed_on_ray` dies, the work starts over: see `embed` for runs that can be resumed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ernie_rna.embeddings.embed import embed
from ernie_rna.embeddings.embedding import check_pooling
from ernie_rna.extras import import_extra
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.run.loading import load_model
from ernie_rna.run.outputs import OutputError, replacing_folder
from ernie_rna.run.provenance import versions
from ernie_rna.sequences.fasta import FastaRecord, FilePath, InputError, check_records, read_fasta
from ernie_rna.sequences.long import nucleotide_limit
from ernie_rna.sequences.sources import Source

# Records that an actor gets at once; inside, they are batched by length.
RECORDS_AT_ONCE = 1024
# In the folder with the Parquet files; readers of Parquet pass over names with an underscore.
METADATA_FILE = "_metadata.json"


def embed_on_ray(
    inputs: FilePath | Sequence[FilePath],
    output: FilePath,
    model: str | PathLike[str],
    *,
    actors: int = 2,
    cpus_per_actor: float = 1,
    gpus_per_actor: float = 0,
    records_at_once: int = RECORDS_AT_ONCE,
    layers: Sequence[int] | None = (-1,),
    pooling: Sequence[str] = ("mean",),
    dtype: str = "float32",
    batch_tokens: int | None = None,
    long: str = "error",
    overlap: int = 256,
    attention: str = "sdpa",
    unknown: str = "error",
    revision: str | None = None,
    force: bool = False,
) -> int:
    """Embed the sequences of FASTA or Parquet files into a folder of Parquet files.

    Ray is started on this machine unless `ray.init` has been called. Every machine must see the
    paths. The input is gone through once before the model is loaded.

    Args:
        inputs: FASTA files, or Parquet files (by the extension .parquet) with the columns id
            and sequence.
        output: folder to make, with files whose order and rows are those of the input: id,
            length and the vectors, as `ernie-rna embed` names them; and `METADATA_FILE`.
        model: folder or Hub id.
        actors: how many hold the model.
        cpus_per_actor, gpus_per_actor: what each of them takes. With a GPU it computes there.
            Together they must leave a CPU of the cluster for reading and writing.
        records_at_once: how many an actor gets, and loses if it dies.
        force: replace a folder that exists.

    The other arguments are those of `embed.embed`; poolings are "cls" and "mean".

    Returns:
        Number of sequences.

    Raises:
        InputError: a record is unfit or too long. Ids are compared within a FASTA file only.
        OutputError: the output exists, or has not as many rows as the input.
        ValueError: an argument is off.
        ImportError: Ray is not installed.
    """
    if "token" in check_pooling(pooling):
        raise ValueError("Parquet holds a row a sequence, so no token vectors")
    ray = import_extra("ray", "ray", "embedding on Ray")
    target = Path(output).absolute()
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is to be a folder, but there is a file of that name")
    if target.exists() and not force:
        raise OutputError(f"{target} exists already; force=True replaces it")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Workers may run in another folder.
    name = str(Path(model).absolute()) if Path(model).is_dir() else fspath(model)

    given = [inputs] if isinstance(inputs, (str, PathLike)) else list(inputs)
    paths = [str(Path(path).absolute()) for path in given]
    _check_cpus(ray, actors * cpus_per_actor)
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    arguments: dict[str, Any] = {
        "layers": layers,
        "pooling": tuple(pooling),
        "batch_tokens": batch_tokens,
    }
    arguments |= {"long": long, "overlap": overlap, "unknown": unknown}
    loading = {"revision": revision, "dtype": dtype, "attention": attention}
    loading["device"] = "cuda" if gpus_per_actor else "cpu"
    try:
        records = _read(ray, paths, unknown)
        count: int = _check(records, name, revision, unknown, long).count()
        with replacing_folder(target) as folder:
            records.repartition(target_num_rows_per_block=records_at_once).map_batches(
                EmbedActor,
                fn_constructor_args=(name, loading, arguments),
                batch_size=records_at_once,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=actors),
                num_cpus=cpus_per_actor,
                num_gpus=gpus_per_actor,
            ).write_parquet(str(folder))
            written = ray.data.read_parquet(str(folder)).count()
            if written != count:
                raise OutputError(f"{written} rows were written for {count} sequences")
            metadata = {"model": name, "records": count, **loading, **arguments}
            metadata["versions"] = versions()
            (folder / METADATA_FILE).write_text(json.dumps(metadata, indent=1))
    except ray.exceptions.RayTaskError as error:
        raise _cause(error) from error
    return count


def _check_cpus(ray: Any, taken: float) -> None:
    """Refuse actors that take all CPUs: reading and writing would wait for one for ever."""
    if not ray.is_initialized():
        ray.init()
    there = ray.cluster_resources().get("CPU", 0)
    if taken > there - 1:
        raise ValueError(
            f"the actors would take {taken:g} CPUs of the {there:g} that Ray has, and reading and "
            "writing need one: lower actors or cpus_per_actor"
        )


def _read(ray: Any, paths: list[str], unknown: str) -> Any:
    """A Ray dataset with the columns id and sequence."""
    parquet = [path for path in paths if path.endswith(".parquet")]
    if parquet and len(parquet) < len(paths):
        raise InputError("the input is either FASTA or Parquet, not both")
    if parquet:
        return ray.data.read_parquet(parquet).select_columns(["id", "sequence"])
    files = ray.data.from_items([{"path": path, "unknown": unknown} for path in paths])
    return files.map_batches(_read_batch, batch_size=1)


def _read_batch(files: dict[str, Any]) -> Iterator[dict[str, list[str]]]:
    """The records of one FASTA file, some at a time."""
    (path,), (unknown,) = files["path"], files["unknown"]
    ids: list[str] = []
    sequences: list[str] = []
    for record in read_fasta(str(path), str(unknown)):
        ids.append(record.id)
        sequences.append(record.sequence)
        if len(ids) == RECORDS_AT_ONCE:
            yield {"id": ids, "sequence": sequences}
            ids, sequences = [], []
    if ids:
        yield {"id": ids, "sequence": sequences}


def _check(records: Any, model: str, revision: str | None, unknown: str, long: str) -> Any:
    """The ids of records that are fit, so that what is not is found before the work begins."""
    config = ErnieRnaConfig.from_pretrained(model, revision=revision or "main")
    limit = nucleotide_limit(config) if long == "error" else None
    arguments = {"unknown": unknown, "limit": limit}
    return records.map_batches(_check_batch, fn_kwargs=arguments, batch_format="pyarrow")


def _check_batch(block: Any, unknown: str, limit: int | None) -> Any:
    for record in check_records(_records(block), "input", unknown, unique=False):
        if limit is not None and len(record.sequence) > limit:
            raise InputError(
                f"{record.id} has {len(record.sequence)} nt, over the limit of {limit}; "
                'long="window" embeds it by overlapping windows, "full" as it is'
            )
    return block.select(["id"])


def _records(block: Any) -> list[FastaRecord]:
    columns = zip(block["id"].to_pylist(), block["sequence"].to_pylist(), strict=True)
    return [FastaRecord(id, sequence) for id, sequence in columns]


class EmbedActor:
    """Holds the model; called with a block of records, it returns their vectors."""

    def __init__(self, model: str, loading: dict[str, Any], arguments: dict[str, Any]):
        self._model = load_model(model, **loading)
        self._arguments = arguments

    def __call__(self, block: Any) -> Any:
        """Arrow table (id, sequence) -> Arrow table (id, length, a column for each vector)."""
        pa = import_extra("pyarrow", "parquet", "writing Parquet")
        records = _records(block)
        source = Source(lambda: iter(records))  # They have been checked.
        embeddings = list(embed(source, self._model, progress=False, **self._arguments))
        table = {
            "id": pa.array([embedding.id for embedding in embeddings]),
            "length": pa.array([embedding.length for embedding in embeddings]),
        }
        for name in embeddings[0].arrays:
            vectors = [embedding.arrays[name] for embedding in embeddings]
            values = pa.concat_arrays([pa.array(vector) for vector in vectors])
            table[name] = pa.FixedSizeListArray.from_arrays(values, len(vectors[0]))
        return pa.table(table)


def _cause(error: Any) -> Exception:
    """What was raised in a worker; of an InputError, Ray may keep nothing but the text."""
    name = f"{InputError.__module__}.{InputError.__name__}: "
    for line in map(str.strip, str(error).splitlines()):
        if line.startswith(name):
            return InputError(line.removeprefix(name))
    return error.cause if isinstance(error.cause, Exception) else error
