"""Runs that are interrupted, refused, shared by processes, or short of disk."""

import io
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel

from ernie_rna.embeddings.embed import embed
from ernie_rna.embeddings.encoder import Encoder
from ernie_rna.embeddings.readers import read_embeddings, read_metadata
from ernie_rna.run.outputs import OutputError
from ernie_rna.run.provenance import versions
from ernie_rna.run.store import Store
from ernie_rna.sequences import batches as batching
from ernie_rna.sequences.fasta import InputError

ROOT = Path(__file__).parents[2]
RNA = {f"rna{i}": "ACGUN"[: 1 + i % 5] * (1 + i % 11) for i in range(40)}


@pytest.fixture(autouse=True)
def _small(_reproducible, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(batching, "WINDOW_RECORDS", 4)  # The first window has four batches.


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

        def counted(self, window, batch):
            nonlocal left
            if left == 0:
                raise error
            left -= 1
            return encode(self, window, batch)

        monkeypatch.setattr(Encoder, "encode", encode if batches is None else counted)

    return stop_after


@pytest.fixture
def computed(monkeypatch):
    """Grows by (window, batch) with each batch computed."""
    batches = []
    encode = Encoder.encode
    monkeypatch.setattr(
        Encoder,
        "encode",
        lambda self, window, batch: (
            batches.append((window.number, batch)) or encode(self, window, batch)
        ),
    )
    return batches


def run(model, output, sequences=RNA, **options):
    options = {"batch_tokens": 100, "progress": False, "pooling": ("token", "mean"), **options}
    return embed(sequences, model, output, **options)


# ---------------------------------------------------------------------------------------------
# Killed


@pytest.mark.parametrize(
    "extension",
    [
        "safetensors",
        "h5",
        pytest.param("npz", marks=pytest.mark.slow),
        pytest.param("parquet", marks=pytest.mark.slow),
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
    assert result["operations"] > 150
    assert result["different"] == []


@pytest.mark.parametrize("batches", [4, 6])
def test_goes_on_where_it_stopped(encoder_model, output, computed, stop_after, batches):
    run(encoder_model, output)
    everything, whole = list(computed), output.read_bytes()
    output.unlink()
    stop_after(batches)
    with pytest.raises(KeyboardInterrupt):
        run(encoder_model, output)
    assert not output.exists()
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.npz.partial"]
    stop_after(None)
    computed.clear()
    summary = run(encoder_model, output)
    assert summary.resumed
    assert computed == everything[4:]  # All but the windows that were complete.
    assert output.read_bytes() == whole
    assert list(output.parent.iterdir()) == [output]


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
    stop_after(5)
    with pytest.raises(KeyboardInterrupt):
        run(encoder_model, output)
    (part,) = output.parent.glob("*/part-*")
    whole_part = part.read_bytes()
    stop_after(None)
    part.write_bytes(damage(whole_part))
    run(encoder_model, output)
    assert output.read_bytes() == whole


# ---------------------------------------------------------------------------------------------
# Refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": ("mean",)}, r"columns was \['token_layer3', 'mean_layer3'\], is"),
        ({"batch_tokens": 64}, "settings.batch_tokens was 100, is 64"),
        ({"attention": "eager"}, "settings.attention was 'sdpa', is 'eager'"),
        ({"dtype": "bfloat16"}, "settings.dtype was 'float32', is 'bfloat16'"),
        ({"sequences": {**RNA, "more": "ACGU"}}, "records was 40, is 41; .*input_sha256 was"),
        ({"sequences": {**RNA, "rna39": "ACGU" * 11}}, "input_sha256 was"),
    ],
)
def test_a_run_that_differs(encoder_model, output, stop_after, change, message):
    stop_after(4)
    with pytest.raises(KeyboardInterrupt):
        run(encoder_model, output)
    stop_after(None)
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
    stop_after(4)
    with pytest.raises(KeyboardInterrupt):
        run(encoder_model, output)
    stop_after(None)
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
    stop_after(4)
    with pytest.raises(KeyboardInterrupt):
        run(encoder_model, output)
    stop_after(None)
    with torch.no_grad():
        encoder_model.layers[1].fc1.weight[0, 0] += 1e-3
    with pytest.raises(OutputError, match=r"model.sha256 was"):
        run(encoder_model, output)


def test_an_output_that_exists(encoder_model, output):
    output.write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"out.npz exists already; --force replaces it"):
        run(encoder_model, output)
    assert output.read_bytes() == b"precious"
    assert list(output.parent.iterdir()) == [output]
    run(encoder_model, output, force=True)
    assert len(list(read_embeddings(output))) == len(RNA)


def test_forced_and_interrupted_it_goes_on(encoder_model, output, stop_after):
    output.write_bytes(b"old")
    stop_after(4)
    with pytest.raises(KeyboardInterrupt):
        run(encoder_model, output, force=True)
    assert output.read_bytes() == b"old"
    stop_after(None)
    assert run(encoder_model, output, force=True).resumed


def test_two_at_once(encoder_model, output):
    with Store(output, []), pytest.raises(OutputError, match=r"another process is working on"):
        run(encoder_model, output)


def test_no_folder_for_the_output(encoder_model, tmp_path):
    with pytest.raises(OutputError, match=r"there is no folder .*nowhere"):
        run(encoder_model, tmp_path / "nowhere" / "out.npz")


@pytest.mark.parametrize("sequences", [{"a": ""}, {"a": "ACGU" * 100}])
def test_unfit_input_leaves_nothing_behind(encoder_model, output, sequences):
    with pytest.raises(InputError):
        run(encoder_model, output, sequences)
    assert list(output.parent.iterdir()) == []


def test_input_that_changes_while_it_is_read(encoder_model, output, monkeypatch):
    rna = dict(RNA)
    encode = Encoder.encode

    def change(self, window, batch):
        rna["rna39"] = "GGGG"
        return encode(self, window, batch)

    monkeypatch.setattr(Encoder, "encode", change)
    with pytest.raises(InputError, match=r"changed while it was being read"):
        run(encoder_model, output, rna)
    assert not output.exists()
    monkeypatch.setattr(Encoder, "encode", encode)
    assert not run(encoder_model, output, rna).resumed


# ---------------------------------------------------------------------------------------------
# Sources that can be read once, disks, metadata


def test_standard_input_is_checked_whole_and_resumed(
    encoder_model, output, stop_after, monkeypatch
):
    pytest.importorskip("dnaio")
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


def test_a_full_disk(encoder_model, output):
    run(encoder_model, output)
    whole = output.read_bytes()
    output.unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) // 4, before[1]))
    try:
        with pytest.raises(OutputError, match=r"no room to write .*goes on where it stopped"):
            run(encoder_model, output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not output.exists()
    assert run(encoder_model, output).resumed
    assert output.read_bytes() == whole


def test_warns_if_the_disk_is_too_small(encoder_model, output, monkeypatch):
    usage = type("Usage", (), {"free": 100_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.warns(UserWarning, match=r"will take 0 MB and twice that"):
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


# ---------------------------------------------------------------------------------------------
# Several processes


def test_two_processes_share_the_work(encoder_model, tmp_path):
    pytest.importorskip("dnaio")
    encoder_model.save_pretrained(tmp_path / "model")
    rna = {id: rna * 3 for id, rna in RNA.items()}
    fasta = "".join(f">{id}\n{rna}\n" for id, rna in rna.items())
    (tmp_path / "in.fasta").write_text(fasta)
    alone, shared = tmp_path / "alone.safetensors", tmp_path / "shared.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "WINDOW_RECORDS", 4096)
        run(tmp_path / "model", alone, rna, batch_tokens=2, pooling=("mean",))
    assert len(fasta) > 3 * 2 * batching.WINDOW_BATCHES  # That is, there are several windows.
    options = ["-m", tmp_path / "model", "-o", shared, "--batch-tokens", "2"]
    done = torchrun(tmp_path / "in.fasta", *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("40 sequences") == 1
    assert shared.read_bytes() == alone.read_bytes()


@pytest.mark.slow
def test_two_processes_report_an_error_once(encoder_model, tmp_path):
    encoder_model.save_pretrained(tmp_path / "model")
    (tmp_path / "in.fasta").write_text(">a\nACGU\n>a\nACGU\n")
    done = torchrun(tmp_path / "in.fasta", "-m", tmp_path / "model", "-o", tmp_path / "out.npz")
    assert done.returncode != 0
    assert done.stderr.count("ernie-rna: ") == 1
    assert "two records have the id 'a'" in done.stderr


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*command, "-m", "ernie_rna.cli", "embed", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_world_size_without_the_others(encoder_model, output, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match=r"start the processes by torchrun"):
        run(encoder_model, output)


def test_versions_are_compared_as_texts():
    assert {type(version) for version in versions().values()} == {str}
