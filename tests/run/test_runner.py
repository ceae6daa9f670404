"""Runs that are interrupted, refused, shared by processes, streamed, or short of disk.

By `embed`, whose chunks are few records here, and by `mutate`, which has several outputs.
"""

import io
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ernie_rna.embeddings.embed import embed
from ernie_rna.embeddings.encoder import Encoder
from ernie_rna.embeddings.formats import read_embeddings, read_metadata
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from ernie_rna.options import OptionError, Share
from ernie_rna.run import runner
from ernie_rna.run.outputs import OutputError
from ernie_rna.run.provenance import versions
from ernie_rna.run.runner import RunSummary
from ernie_rna.run.store import Store
from ernie_rna.scoring.mutate import mutate
from ernie_rna.sequences import chunks as chunking
from ernie_rna.sequences.fasta import InputError
from tests.conftest import ROOT

RNA = {f"rna{i}": "ACGUN"[: 1 + i % 5] * (1 + i % 11) for i in range(40)}


@pytest.fixture(autouse=True)
def _small(_reproducible, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(chunking, "CHUNK_RECORDS", 4)  # The first chunk has four batches.


@pytest.fixture
def encoder_model(config):
    return ErnieRnaModel(config, add_pooling_layer=False).eval()


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.npz"


@pytest.fixture
def stop_after(monkeypatch):
    """Has the encoder raise once it has computed so many batches; None takes that back."""
    encode = Encoder.encode

    def stop_after(batches, error=KeyboardInterrupt):
        left = batches

        def counted(self, chunk, batch):
            nonlocal left
            if left == 0:
                raise error
            left -= 1
            return encode(self, chunk, batch)

        monkeypatch.setattr(Encoder, "encode", encode if batches is None else counted)

    return stop_after


@pytest.fixture
def computed(monkeypatch):
    """Grows by (chunk, batch) with each batch computed."""
    batches = []
    encode = Encoder.encode
    monkeypatch.setattr(
        Encoder,
        "encode",
        lambda self, chunk, batch: (
            batches.append((chunk.number, batch)) or encode(self, chunk, batch)
        ),
    )
    return batches


def run(model, output, sequences=RNA, **options):
    options = {"batch_tokens": 100, "progress": False, "pooling": ("token", "mean"), **options}
    return embed(sequences, model, output, **options)


def interrupted(stop_after, batches, *arguments, **options):
    stop_after(batches)
    with pytest.raises(KeyboardInterrupt):
        run(*arguments, **options)
    stop_after(None)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------------------------------------
# Killed


@pytest.mark.parametrize(
    "extension",
    [
        "safetensors",
        pytest.param("h5", marks=pytest.mark.slow),
        pytest.param("npz", marks=pytest.mark.slow),
        pytest.param("parquet", marks=pytest.mark.slow),
        pytest.param("tsv", marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_moment(extension):
    pytest.importorskip({"h5": "h5py", "parquet": "pyarrow"}.get(extension, "numpy"))
    if not hasattr(os, "fork"):
        pytest.skip("forks processes")
    memory = Path("/dev/shm")  # A process that is killed leaves there what it leaves on a disk.
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        command = [sys.executable, "-m", "tests.killed_runs", folder, extension, "6"]
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE
        )
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert result["operations"] > 80
    assert result["different"] == []


@pytest.mark.parametrize("batches", [4, 6])
def test_resumes_where_it_stopped(encoder_model, output, computed, stop_after, batches):
    run(encoder_model, output)
    everything, whole = list(computed), output.read_bytes()
    output.unlink()
    interrupted(stop_after, batches, encoder_model, output)
    assert names(output.parent) == ["out.npz.partial"]
    computed.clear()
    summary = run(encoder_model, output)
    assert summary.resumed
    assert ", of which a part was there already; " in summary.text
    assert computed == everything[4:]  # All but the chunks that were complete.
    assert output.read_bytes() == whole
    assert names(output.parent) == ["out.npz"]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda part: bytes(len(part)), id="zeros"),
        pytest.param(lambda part: part[:-1], id="cut off"),
        pytest.param(lambda part: b"", id="empty"),
    ],
)
def test_results_that_were_damaged_are_computed_again(encoder_model, output, stop_after, damage):
    run(encoder_model, output)
    whole = output.read_bytes()
    output.unlink()
    interrupted(stop_after, 5, encoder_model, output)
    (part,) = output.parent.glob("*/part-*")
    part.write_bytes(damage(part.read_bytes()))
    run(encoder_model, output)
    assert output.read_bytes() == whole


def test_a_kill_while_it_clears_up_costs_nothing(encoder_model, output, monkeypatch):
    run(encoder_model, output)
    whole = output.read_bytes()
    output.unlink()
    with monkeypatch.context() as patch:  # The output is there, and all that was kept as well.
        patch.setattr(Store, "_remove", lambda self: None)
        run(encoder_model, output)
    assert names(output.parent) == ["out.npz", "out.npz.partial"]
    assert run(encoder_model, output).resumed
    assert names(output.parent) == ["out.npz"]
    folder = output.with_name("out.npz.partial")
    folder.mkdir()  # Its manifest was deleted, and nothing else.
    (folder / "part-000000.safetensors").write_bytes(b"")
    with pytest.raises(OutputError, match=r"exists already; --force"):
        run(encoder_model, output)
    assert names(output.parent) == ["out.npz"]
    assert output.read_bytes() == whole


def test_half_an_output_of_a_run_that_was_killed_is_deleted(encoder_model, output):
    left = [f"{name}.0123abcd.tmp" for name in ("out.npz", "out.npz.index.json", ".out.npz")]
    others = ["out.npz.tmp", "out.npz.notes.tmp", "out2.npz.0123abcd.tmp"]
    for name in (*left, *others):
        output.with_name(name).touch()
    run(encoder_model, output)
    assert names(output.parent) == sorted([*others, "out.npz"])


# ---------------------------------------------------------------------------------------------
# Refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": ("mean",)}, r"columns was \['token_layer3', 'mean_layer3'\], is"),
        ({"batch_tokens": 64}, "settings.batch_tokens was 100, is 64"),
        ({"attention": "eager"}, "settings.attention was 'sdpa', is 'eager'"),
        ({"dtype": "bfloat16"}, "settings.dtype was 'float32', is 'bfloat16'"),
        (
            {"long": "window", "overlap": 9},
            "settings.long was 'error', is 'window'; settings.overlap was None",
        ),
        ({"sequences": {**RNA, "more": "ACGU"}}, "records was 40, is 41; .*input_sha256 was"),
        ({"sequences": {**RNA, "rna39": "ACGU" * 11}}, "input_sha256 was"),
    ],
)
def test_a_run_that_differs(encoder_model, output, stop_after, change, message):
    interrupted(stop_after, 4, encoder_model, output)
    with pytest.raises(OutputError, match=message + ".*--force"):
        run(encoder_model, output, **change)
    assert not run(encoder_model, output, **change, force=True).resumed
    whole = output.read_bytes()
    run(encoder_model, output, **change, force=True)
    assert output.read_bytes() == whole


# Any of these lets MKL or oneDNN compute other bits.
MATH_VARIABLES = {
    "MKL_CBWR": "COMPATIBLE",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
}


def test_another_machine(encoder_model, output, stop_after, monkeypatch):
    for name in MATH_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    interrupted(stop_after, 4, encoder_model, output)
    with pytest.raises(OutputError, match=r"machine.threads was 1, is 2\. Run it as before"):
        run(encoder_model, output, threads=2)
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "SVE256")
        with pytest.raises(OutputError, match=r"machine.instructions was '.*', is 'SVE256'"):
            run(encoder_model, output)
    for name, value in MATH_VARIABLES.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(OutputError, match=f"machine.{name} was None, is '{value}'"):
                run(encoder_model, output)
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(OutputError, match=r"products was '(ieee|highest)', is '(bf16|medium)'"):
            run(encoder_model, output)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert run(encoder_model, output).resumed
    assert "machine" not in read_metadata(output)


def test_another_model(encoder_model, output, stop_after):
    interrupted(stop_after, 4, encoder_model, output)
    with torch.no_grad():
        encoder_model.layers[1].fc1.weight[0, 0] += 1e-3
    with pytest.raises(OutputError, match=r"model.sha256 was"):
        run(encoder_model, output)


def test_an_output_that_exists(encoder_model, output):
    output.write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"out.npz exists already; --force replaces it"):
        run(encoder_model, output)
    assert output.read_bytes() == b"precious"
    assert names(output.parent) == ["out.npz"]
    run(encoder_model, output, force=True)
    assert len(list(read_embeddings(output))) == len(RNA)


def test_forced_and_interrupted_it_resumes(encoder_model, output, stop_after):
    output.write_bytes(b"old")
    interrupted(stop_after, 4, encoder_model, output, force=True)
    assert output.read_bytes() == b"old"
    assert run(encoder_model, output, force=True).resumed


def test_two_at_once(encoder_model, output):
    with (
        Store(output, Share()),
        pytest.raises(OutputError, match=r"another process is working on"),
    ):
        run(encoder_model, output)


def test_force_does_not_touch_what_another_run_is_writing(encoder_model, output, monkeypatch):
    busy = pytest.raises(OutputError, match=r"another process is working on")
    encode = Encoder.encode

    def in_the_middle(self, chunk, batch):
        monkeypatch.setattr(Encoder, "encode", encode)
        with busy:
            run(encoder_model, output, force=True)
        with busy:
            run(encoder_model, output, pooling=("cls",), force=True, part="1/2")
        return encode(self, chunk, batch)

    monkeypatch.setattr(Encoder, "encode", in_the_middle)
    run(encoder_model, output)
    assert len(list(read_embeddings(output))) == len(RNA)


def test_a_link_is_written_through(encoder_model, tmp_path):
    link = tmp_path / "link.npz"
    (tmp_path / "folder").mkdir()
    link.symlink_to(tmp_path / "folder" / "target.npz")
    run(encoder_model, link)
    assert link.is_symlink()
    assert names(tmp_path / "folder") == ["target.npz"]


@pytest.mark.parametrize("sequences", [{"a": ""}, {"a": "ACGU" * 100}, []])
def test_unfit_input_leaves_nothing_behind(encoder_model, output, sequences):
    with pytest.raises(InputError):
        run(encoder_model, output, sequences)
    assert names(output.parent) == []


def test_input_that_changes_while_it_is_read(encoder_model, output, monkeypatch):
    rna = dict(RNA)
    encode = Encoder.encode

    def change(self, chunk, batch):
        rna["rna39"] = "GGGG"
        return encode(self, chunk, batch)

    monkeypatch.setattr(Encoder, "encode", change)
    with pytest.raises(InputError, match=r"changed while it was being read"):
        run(encoder_model, output, rna)
    assert names(output.parent) == []
    monkeypatch.setattr(Encoder, "encode", encode)
    assert not run(encoder_model, output, rna).resumed


# ---------------------------------------------------------------------------------------------
# Sources that can be read once, disks, metadata


def test_standard_input_is_checked_whole_and_resumed(
    encoder_model, output, stop_after, monkeypatch
):
    fasta = "".join(f">{id} text\n{rna}\n" for id, rna in RNA.items())

    def pipe(text):
        class Input:
            buffer = io.BufferedReader(io.BytesIO(text.encode()))

        monkeypatch.setattr(sys, "stdin", Input)
        return run(encoder_model, output, "-")

    with pytest.raises(InputError, match=r"standard input: record 41 .*empty"):
        pipe(fasta + ">last\n")
    stop_after(4)
    with pytest.raises(KeyboardInterrupt):
        pipe(fasta)
    stop_after(None)
    with pytest.raises(OutputError, match=r"input_sha256 was"):
        pipe(fasta + "A\n")
    assert pipe(fasta).resumed
    piped = output.read_bytes()
    run(encoder_model, output, iter(RNA.items()), force=True)
    assert output.read_bytes() == piped
    run(encoder_model, output, force=True)
    assert output.read_bytes() == piped


@pytest.mark.parametrize("share", [0.02, 0.25, 0.9])
def test_a_full_disk(encoder_model, output, share):
    run(encoder_model, output)
    whole = output.read_bytes()
    output.unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(len(whole) * share), before[1]))
    try:
        with pytest.raises(OutputError, match=r"no room to write .*out\.npz.*; make room and run"):
            run(encoder_model, output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not output.exists()
    run(encoder_model, output)
    assert output.read_bytes() == whole


def test_warns_if_the_disk_is_too_small(encoder_model, output, monkeypatch):
    usage = type("Usage", (), {"free": 100_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.warns(UserWarning, match=r"will take up to 0 MB, but 0 MB are free"):
        run(encoder_model, output)


def test_the_file_says_how_it_was_made(encoder_model, output, tmp_path):
    encoder_model.save_pretrained(tmp_path / "model")
    run(tmp_path / "model", output, layers=(0, -1))
    metadata = read_metadata(output)
    assert metadata["model"]["name"] == str(tmp_path / "model")
    assert metadata["settings"]["layers"] == [0, 3]
    assert metadata["settings"]["attention"] == "sdpa"
    assert metadata["records"] == 40
    assert metadata["versions"]["torch"] == torch.__version__


def test_versions_are_compared_as_texts():
    assert {type(version) for version in versions().values()} == {str}


def test_threads_are_put_back(encoder_model, output, monkeypatch):
    seen = []
    encode = Encoder.encode
    monkeypatch.setattr(
        Encoder, "encode", lambda *args: seen.append(torch.get_num_threads()) or encode(*args)
    )
    list(embed(["ACGU"], encoder_model, threads=2))
    run(encoder_model, output, ["ACGU"], threads=2)
    assert seen == [2, 2]
    assert torch.get_num_threads() == 1


# ---------------------------------------------------------------------------------------------
# Several processes


@pytest.mark.parametrize("order", [*itertools.permutations(range(1, 4))])
def test_parts_in_any_order(encoder_model, output, computed, order):
    run(encoder_model, output)
    everything, whole = list(computed), output.read_bytes()
    output.unlink()
    computed.clear()
    for number, index in enumerate(order):
        summary = run(encoder_model, output, part=f"{index}/3")
        assert bool(summary.files) == output.exists() == (number == 2)
        assert summary.share == Share(index - 1, 3, "--part")
    assert sorted(computed) == everything
    assert output.read_bytes() == whole
    assert names(output.parent) == ["out.npz"]


def test_a_part_that_is_missing_is_computed_by_a_run_alone(encoder_model, output, computed):
    summary = run(encoder_model, output, part="2/3")
    assert summary.files == []
    assert summary.text.startswith(
        "part 2/3 (by --part), done; the output follows when all parts are: 40 sequences, "
    )
    run(encoder_model, output, part="2/3")
    assert {chunk for chunk, _ in computed} == {1, 4, 7}
    assert run(encoder_model, output).resumed
    assert names(output.parent) == ["out.npz"]


def test_more_parts_than_chunks(encoder_model, output):
    for index in (3, 1, 2, 4):
        assert run(encoder_model, output, {"a": "ACGU"}, part=f"{index}/4").records == 1
    assert [e.id for e in read_embeddings(output)] == ["a"]
    assert names(output.parent) == ["out.npz"]
    with pytest.raises(OutputError, match="exists already"):
        run(encoder_model, output, {"a": "ACGU"}, part="4/4")


def test_processes_that_force_together(encoder_model, output, stop_after):
    interrupted(stop_after, 4, encoder_model, output)
    output.write_bytes(b"old")
    for index in (1, 2):
        run(encoder_model, output, pooling=("cls",), part=f"{index}/2", force=True)
    assert {*next(read_embeddings(output)).arrays} == {"cls_layer3"}
    assert names(output.parent) == ["out.npz"]


@pytest.mark.parametrize(
    ("variables", "index", "count", "local"),
    [
        ({"RANK": "3", "WORLD_SIZE": "8"}, 3, 8, 3),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, 5, 8, 1),
        ({"WORLD_SIZE": "8"}, 0, 1, None),
        ({"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4"}, 2, 4, None),
        (
            {
                "SLURM_ARRAY_TASK_ID": "7",
                "SLURM_ARRAY_TASK_COUNT": "4",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            3,
            4,
            None,
        ),
    ],
)
def test_variables_say_which_part(
    encoder_model, output, monkeypatch, variables, index, count, local
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    share = run(encoder_model, output).share
    assert (share.index, share.count, share.local) == (index, count, local)
    assert run(encoder_model, output, part="1/1", force=True).share.count == 1


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "x", "WORLD_SIZE": "2"}, "part is taken from RANK, .* a number; got 'x'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK and WORLD_SIZE, and number 2 is not below 2"),
        (
            {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "4"},
            "SLURM_ARRAY_TASK_ID, and number 9 is not below 4",
        ),
    ],
)
def test_variables_that_contradict_one_another(
    encoder_model, output, monkeypatch, variables, message
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match=message):
        run(encoder_model, output)


def test_what_is_read_once_is_not_shared(encoder_model, output):
    with pytest.raises(InputError, match=r"read only once .* the same file \(part 1/2 \(by --part"):
        run(encoder_model, output, iter(RNA.items()), part="1/2")
    assert names(output.parent) == []


def test_an_input_that_changes_under_one_of_several(encoder_model, output, monkeypatch):
    rna = dict(RNA)
    encode = Encoder.encode

    def change(self, chunk, batch):
        rna["rna39"] = "GGGG"
        return encode(self, chunk, batch)

    run(encoder_model, output, rna, part="1/2")
    monkeypatch.setattr(Encoder, "encode", change)
    with pytest.raises(InputError, match=r"changed while it was being read"):
        run(encoder_model, output, rna, part="2/2")
    monkeypatch.setattr(Encoder, "encode", encode)
    assert not run(encoder_model, output, rna).resumed


def test_results_that_another_process_dropped(encoder_model, output, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(runner._Run, "_compute", lambda self: self.store.invalidate() or 3)
        with pytest.raises(OutputError, match=r"another process has dropped .* run it again"):
            run(encoder_model, output)
    assert not output.exists()


@pytest.mark.parametrize(("local", "device"), [(None, None), (0, "cuda:0"), (5, "cuda:1")])
def test_processes_on_one_machine_take_a_gpu_each(monkeypatch, local, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for given, own in ((None, device), ("cpu", "cpu"), ("cuda:1", "cuda:1")):
        task = type("Task", (), {"options": type("Options", (), {"device": given})})
        assert runner._own_device(task, Share(local=local)) == own


def test_two_processes_share_the_work(encoder_model, tmp_path):
    encoder_model.save_pretrained(tmp_path / "model")
    rna = {id: rna * 3 for id, rna in RNA.items()}
    fasta = "".join(f">{id}\n{rna}\n" for id, rna in rna.items())
    (tmp_path / "in.fasta").write_text(fasta)
    alone, shared = tmp_path / "alone.safetensors", tmp_path / "shared.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunking, "CHUNK_RECORDS", 4096)
        run(tmp_path / "model", alone, rna, batch_tokens=2, pooling=("mean",))
    assert len(fasta) > 3 * 2 * chunking.CHUNK_BATCHES  # That is, there are several chunks.
    options = ["-m", tmp_path / "model", "-o", shared, "--batch-tokens", "2"]
    done = torchrun(tmp_path / "in.fasta", *options)
    assert done.returncode == 0, done.stderr
    assert 1 <= done.stderr.count("shared.safetensors: 40 sequences") <= 2
    assert shared.read_bytes() == alone.read_bytes()
    assert names(tmp_path) == ["alone.safetensors", "in.fasta", "model", "shared.safetensors"]


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*command, "-m", "ernie_rna", "embed", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


# ---------------------------------------------------------------------------------------------
# Several outputs, and standard output


SOME = {"a": "GGGGAAAACCCC", "b": "ACNU"}


def read_tables(*paths):
    return [path.read_text() for path in paths]


def test_standard_output_is_streamed(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert mutate(SOME, model, "-").files == [Path("-")]
    streamed = capsys.readouterr().out
    mutate(iter(SOME.items()), model, "-")
    assert capsys.readouterr().out == streamed
    summary = mutate(SOME, model, "out.tsv", summary="-")
    assert summary.text.startswith("out.tsv, standard output: 2 sequences, 16 nt; ")
    assert Path("out.tsv").read_text() == streamed
    assert capsys.readouterr().out.startswith("id\tlength\t")
    assert names(tmp_path) == ["out.tsv"]


def test_what_is_not_written_to_files_is_not_shared(model, capsys, monkeypatch):
    with pytest.raises(OptionError, match=r"part needs outputs that are files; got '1/2'"):
        mutate(SOME, model, part="1/2")
    with pytest.raises(OptionError, match=r"are files; this is part 1/2 \(by --part\)"):
        mutate(SOME, model, "-", part="1/2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match=r"this is part 2/2 \(by RANK and WORLD_SIZE\)"):
        mutate(SOME, model, "-")
    assert len(list(mutate(SOME, model, masked=False))) == 2


def test_lines_come_as_they_are_computed(model, monkeypatch, capsys):
    monkeypatch.setattr(chunking, "CHUNK_RECORDS", 1)
    compute = runner.Task.join
    seen = []

    def watched(self, results):
        for result in compute(self, results):
            yield result
            seen.append(capsys.readouterr().out.count("\n"))

    monkeypatch.setattr("ernie_rna.scoring.mutate.MutateTask.join", watched)
    mutate(SOME, model, summary="-", masked=False)
    assert seen == [2, 1]


def test_outputs_of_another_run_are_not_replaced(model, tmp_path, monkeypatch):
    first, second = tmp_path / "a.tsv", tmp_path / "b.tsv"
    with monkeypatch.context() as patch:
        patch.setattr("ernie_rna.scoring.mutate.MutateTask.assemble", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            mutate(SOME, model, first)
    second.write_text("precious")
    with pytest.raises(OutputError, match=r"outputs was \['a.tsv'\], is \['a.tsv', 'b.tsv'\]"):
        mutate(SOME, model, first, second)
    assert second.read_text() == "precious"
    assert mutate(SOME, model, first).resumed


def test_a_kill_between_two_outputs_is_resumed(model, tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("a.tsv", "b.tsv", "c.tsv")]
    mutate(SOME, model, *paths)
    whole = read_tables(*paths)
    paths[1].unlink()
    paths[2].unlink()
    with pytest.raises(OutputError, match=r"a\.tsv exists already; --force"):
        mutate(SOME, model, *paths)
    replace = os.replace

    def once(source, target):
        if str(target).endswith("b.tsv"):
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", once)
        with pytest.raises(KeyboardInterrupt):
            mutate(SOME, model, *paths, force=True)
    assert paths[2].exists()
    mutate(SOME, model, *paths)
    assert read_tables(*paths) == whole
    assert names(tmp_path) == ["a.tsv", "b.tsv", "c.tsv"]


def test_the_output_without_room_is_named(model, tmp_path):
    paths = [tmp_path / name for name in ("a.tsv", "b.tsv", "c.tsv")]
    rna = {"long": "ACGU" * 50}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"no room to write .*/(a|b)\.tsv"):
            mutate(rna, model, *paths, masked=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {*names(tmp_path)} <= {"a.tsv.partial", "b.tsv", "c.tsv"}  # each is whole or not there
    assert mutate(rna, model, *paths, masked=False).resumed
    assert names(tmp_path) == ["a.tsv", "b.tsv", "c.tsv"]


def _interrupt(*_):
    raise KeyboardInterrupt


def test_what_a_summary_says():
    summary = RunSummary([Path("-"), Path("b.tsv")], 1, 12, 2.0, 0.5, 0.031)
    assert summary.text == (
        "standard output, b.tsv: 1 sequence, 12 nt; 2.0 s, 0.5 sequences a second, 3.1 % padding, "
        "1 thread"
    )
    assert np.isclose(summary.padding, 0.031)
