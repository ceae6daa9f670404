"""Functions over many files on a local Ray cluster of two workers, one of which is killed."""

import json
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ernie_rna.embeddings.embed import embed
from ernie_rna.embeddings.formats import read_embeddings
from ernie_rna.options import OptionError
from ernie_rna.run.on_ray import on_ray
from ernie_rna.run.outputs import OutputError
from ernie_rna.scoring.mutate import mutate
from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.fold import fold
from tests.conftest import ROOT
from tests.run.conftest import names

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _ray():
    # The workers unpickle functions of this package.
    environment = {"env_vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield
    ray.shutdown()


@pytest.fixture
def folder(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("model")
    for name, count in (("a.fasta", 60), ("b.fa", 3)):
        lines = [f">{name[0]}{i}\n{'ACGUN' * (1 + i % 9)}\n" for i in range(count)]
        (tmp_path / name).write_text("".join(lines))
    return tmp_path


EXACT = {"batch_tokens": 16, "layers": None, "threads": 1}


def run(inputs=("a.fasta", "b.fa"), output="out", **options):
    options = {"format": ".npz", "parts": 3, "cpus_per_part": 0.5, **EXACT, **options}
    return on_ray(embed, inputs, output, "model", **options)


def test_outputs_equal_those_of_the_function(folder):
    summaries = run()
    files = [[folder / "out" / "a.npz"], [folder / "out" / "b.npz"]]
    assert [summary.files for summary in summaries] == files
    assert names(Path("out")) == ["a.npz", "b.npz", "on_ray.json"]
    for name, source in (("a", "a.fasta"), ("b", "b.fa")):
        embed(source, folder / "model", f"{name}.npz", **EXACT)
        assert Path(f"{name}.npz").read_bytes() == Path(f"out/{name}.npz").read_bytes()
    on_ray(mutate, "b.fa", "scores", "model", format=".tsv", masked=False, threads=1)
    mutate("b.fa", "model", "b.tsv", masked=False, threads=1)
    assert Path("scores/b.tsv").read_bytes() == Path("b.tsv").read_bytes()


def test_the_same_call_resumes(folder):
    run(inputs=["a.fasta"])
    before = Path("out/a.npz").stat().st_mtime_ns
    with pytest.raises(OutputError, match=r"belongs to another call: inputs\..*b\.fa was None, is"):
        run()
    assert run(inputs=["a.fasta"], parts=2, force=True) == [None]
    assert Path("out/a.npz").stat().st_mtime_ns == before
    Path("out/a.npz").unlink()
    assert run(inputs=["a.fasta"])[0].records == 60
    with pytest.raises(OutputError, match=r"belongs to another call: options.layers was None, is"):
        run(inputs=["a.fasta"], layers=[1])
    text = Path("a.fasta").read_text()
    Path("a.fasta").write_text(text + ">more\nACGU\n")
    with pytest.raises(OutputError, match=r"belongs to another call: inputs\..*a\.fasta was \["):
        run(inputs=["a.fasta"])
    Path("out/on_ray.json").unlink()
    with pytest.raises(OutputError, match=r"out is not empty, and has no on_ray.json"):
        run(inputs=["a.fasta"])


def test_no_result_is_lost_when_a_worker_is_killed(folder):
    lines = [f">r{i}\n{'ACGUN' * (9 + i % 9)}\n" for i in range(1500)]
    Path("a.fasta").write_text("".join(lines))
    killed = []

    def kill():
        while not list(Path("out").glob("a.npz.partial/part-*.safetensors")):
            time.sleep(0.05)
        for process in Path("/proc").glob("[0-9]*"):
            try:
                title = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::_call"):
                os.kill(int(process.name), signal.SIGKILL)
                killed.append(process.name)
                return

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    (summary,) = run(inputs="a.fasta", batch_tokens=64)
    thread.join(60)
    assert killed
    assert summary.records == 1500
    assert [e.id for e in read_embeddings("out/a.npz")] == [f"r{i}" for i in range(1500)]
    assert names(Path("out")) == ["a.npz", "on_ray.json"]


def test_errors_and_a_corrected_call(folder):
    for change in ({"format": "npz"}, {"lairs": 3}):
        with pytest.raises((ValueError, TypeError)):
            run(inputs="b.fa", output="corrected", **change)
    assert run(inputs="b.fa", output="corrected")[0].records == 3
    Path("c.fasta").write_text(">p\nMKTAYIAKQR\n")
    with pytest.raises(InputError, match=r"c.fasta: record 1 \(p\): it looks like a protein"):
        run(inputs=["b.fa", "c.fasta"])
    with pytest.raises(OutputError, match=r"two inputs would be written to .*/a\.npz: rename one"):
        run(inputs=["a.fasta", "other/a.fa.gz"], output="new")
    with pytest.raises(FileNotFoundError, match=r"there is no folder \./nowhere"):
        on_ray(embed, "b.fa", "new", "./nowhere", format=".npz")
    assert not Path("new").exists()


def test_parquet(folder):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = {"id": ["x", "y"], "sequence": ["ACGU", "GG"], "more": [1, 2]}
    parquet.write_table(pa.table(table), folder / "in.parquet")
    run(inputs="in.parquet", format=".parquet", layers=(-1,))
    assert [e.id for e in read_embeddings("out/in.parquet")] == ["x", "y"]
    assert json.loads(Path("out/on_ray.json").read_text())["function"].endswith("embed.embed")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": 0}, "parts must be a whole number of at least 1; got 0"),
        ({"part": "1/2"}, "part is set by on_ray: give parts; got '1/2'"),
        ({"dry_run": True}, "dry_run is for one input: call the function itself; got True"),
        ({"pairs": "p.tsv"}, "pairs is one file, but there are 2 inputs: call on_ray for each"),
        ({"function": partial(embed)}, "must be a function, with its options given to"),
        ({"function": lambda *a: None}, "and have a name; got <function <lambda>"),
        ({"known": len}, "known must not be a function"),
        ({"pairs": "-"}, "pairs must be a file"),
    ],
)
def test_refuses_invalid_options(folder, options, message):
    options = {"function": fold, "format": ".dbn", **options}
    with pytest.raises(OptionError, match=message):
        on_ray(inputs=["a.fasta", "b.fa"], output="new", model="mini", **options)
    assert not Path("new").exists()


def test_files_and_arrays_in_options_are_part_of_the_call(folder):
    def call(output, reactivities, **options):
        options |= {"format": ".ct/", "cpus_per_part": 0.5, "reactivities": reactivities}
        return on_ray(fold, "b.fa", output, "mini", **options)

    table = folder / "r.tsv"
    arrays = {f"b{i}": np.ones(5 + 5 * i) for i in range(3)}
    rows = [f"{id}\t{i}\t1" for id, values in arrays.items() for i in range(1, 1 + len(values))]
    table.write_text("\n".join(["id\tposition\treactivity", *rows]))
    (summary,) = call("files", table, pairs=folder / "p.tsv")
    assert summary.files == [folder / "files" / "b.ct", folder / "p.tsv"]
    assert call("files", table, pairs=folder / "p.tsv") == [None]
    assert call("arrays", arrays)[0].records == 3
    table.write_text(table.read_text() + ".5\n")
    for change, message in (
        (("files", table), r"files\..*r\.tsv was"),
        (("arrays", {**arrays, "b1": np.ones(10) + 1e-12}), r"options\.reactivities\.b1 was"),
    ):
        with pytest.raises(OutputError, match=f"belongs to another call: .*{message}"):
            call(*change)


@pytest.mark.parametrize("force", [False, True])
def test_an_output_that_is_missing_is_computed_again(folder, force):
    def call():
        how = {"pairs": "p.tsv", "force": force, "min_stem": 1, "min_loop": 0}
        return on_ray(fold, "b.fa", "out", "mini", format=".dbn", **how)

    target, pairs = folder / "out" / "b.dbn", folder / "p.tsv"
    assert call()[0].files == [target, pairs]
    before = target.read_bytes(), pairs.read_bytes()
    pairs.unlink()
    assert call()[0].files == [target, pairs]
    assert call() == [None]
    target.unlink()
    if not force:  # The call cannot know whose file it is.
        with pytest.raises(
            OutputError, match=r"p\.tsv exists, but .*b\.dbn is missing: force=True"
        ):
            call()
        return
    assert call()[0].files == [target, pairs]
    assert (target.read_bytes(), pairs.read_bytes()) == before


def test_functions_of_one_name_are_told_apart(folder):
    def call(probability):
        prior = lambda sequence: np.full((len(sequence), len(sequence)), probability)  # noqa: E731
        return on_ray(fold, "b.fa", "out", "mini", format=".dbn", prior=prior)

    assert call(0.1)[0].records == 3
    assert call(0.1) == [None]
    with pytest.raises(OutputError, match=r"another call: options\.prior was"):
        call(0.9)
