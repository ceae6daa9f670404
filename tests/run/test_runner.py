"""Runs that are interrupted, refused, shared by processes, streamed, or short of disk.

By `embed`, whose chunks are few records here, and by `mutate`, which has several outputs.
"""

import contextlib
import copy
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
import torch

from ernie_rna.embeddings.embed import embed
from ernie_rna.embeddings.formats import read_metadata, write_parts
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM, ErnieRnaModel
from ernie_rna.options import OptionError, Share
from ernie_rna.run import runner
from ernie_rna.run.outputs import OutputError, replacing
from ernie_rna.run.parts import Part
from ernie_rna.run.provenance import versions
from ernie_rna.run.runner import RunSummary
from ernie_rna.run.store import Store
from ernie_rna.scoring.mutate import mutate
from ernie_rna.sequences import chunks as chunking
from ernie_rna.sequences.fasta import InputError
from tests.conftest import ROOT, lively
from tests.run.conftest import names

RNA = {f"rna{i}": "ACGUN"[: 1 + i % 5] * (1 + i % 11) for i in range(40)}
SOME = {"a": "GGGGAAAACCCC", "b": "ACNU"}
SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "intermediate_size": 96}
SIZES |= {"max_position_embeddings": 256}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
EXISTS = r"exists already; --force replaces it"


@pytest.fixture(autouse=True)
def _small_chunks_one_thread(_reproducible, monkeypatch):
    monkeypatch.setattr(chunking, "CHUNK_RECORDS", 4)  # The first chunk has four batches.
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return ErnieRnaModel(ErnieRnaConfig(**SIZES), add_pooling_layer=False).eval()


@pytest.fixture(scope="module")
def masked_lm():
    torch.manual_seed(0)
    return lively(ErnieRnaForMaskedLM(ErnieRnaConfig(**SIZES))).eval()


@pytest.fixture
def tables(tmp_path):
    return [tmp_path / name for name in ("a.tsv", "b.tsv", "c.tsv")]


@pytest.fixture
def whole(encoder, tmp_path_factory):
    """The bytes that an uninterrupted run writes."""
    output = tmp_path_factory.mktemp("whole") / "out.npz"
    run(encoder, output)
    return output.read_bytes()


class Computed(list):
    """(chunk, batch) of each batch that is computed; `before` is called at each, and may raise."""

    before = staticmethod(lambda: None)

    def kill(self, batches, *arguments, **options):
        """Run until so many batches are computed."""

        def before():
            if len(self) == batches:
                raise KeyboardInterrupt

        self.clear()
        self.before = before
        refused(None, *arguments, error=KeyboardInterrupt, **options)
        self.clear()
        del self.before


@pytest.fixture
def computed(monkeypatch):
    found, compute = Computed(), runner.compute_batches

    def watched(task, chunk):
        for number, batch in enumerate(compute(task, chunk)):
            found.before()
            found.append((chunk.number, number))
            yield batch

    monkeypatch.setattr(runner, "compute_batches", watched)
    return found


def run(model, output, sequences=RNA, **options):
    options = {"batch_tokens": 100, "progress": False, "pooling": ("token", "mean"), **options}
    return embed(sequences, model, output, **options)


def refused(message, *arguments, error=OutputError, run=run, **options):
    """A run that ends with an error."""
    with pytest.raises(error, match=message):
        run(*arguments, **options)


def resumes(whole, model, output, *sequences, **options):
    """A run that ends well, with the bytes of one that was not interrupted, and nothing beside."""
    assert run(model, output, *sequences, **options).resumed
    assert names(output.parent) == [output.name]
    assert output.read_bytes() == whole


@contextlib.contextmanager
def interrupted(name):
    """Has the process stop where a file would get a name."""
    replace = os.replace

    def once(source, target):
        if Path(target).name == name:
            raise KeyboardInterrupt
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", once)
        with pytest.raises(KeyboardInterrupt):
            yield


# ---------------------------------------------------------------------------------------------
# Killed


SLOW = [pytest.param(one, marks=pytest.mark.slow) for one in ("h5", "npz", "parquet", "tsv")]


@pytest.mark.parametrize("extension", ["safetensors", *SLOW])
def test_killed_at_any_moment(extension):
    pytest.importorskip({"h5": "h5py", "parquet": "pyarrow"}.get(extension, "numpy"))
    if not hasattr(os, "fork"):
        pytest.skip("forks processes")
    memory = Path("/dev/shm")  # A process that is killed leaves there what it leaves on a disk.
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        command = [sys.executable, "-m", "tests.killed_runs", folder, extension, "6"]
        result = json.loads(subprocess.check_output(command, cwd=ROOT, env=ENVIRONMENT))
    assert result["operations"] > 80
    assert result["different"] == []


@pytest.mark.parametrize("batches", [4, 6])
def test_resumes_where_it_stopped(encoder, output, whole, computed, batches):
    run(encoder, output)
    everything = list(computed)
    output.unlink()
    computed.kill(batches, encoder, output)
    assert names(output.parent) == ["out.npz.partial"]
    # Another process may have just deleted a part that was listed.
    (output.with_name("out.npz.partial") / "part-000009-0.safetensors").symlink_to("gone")
    resumes(whole, encoder, output)
    assert computed == everything[4:]  # All but the chunks that were complete.


@pytest.mark.parametrize("gone", [None, "b.tsv", "a.tsv.partial/manifest.json", "-"])
def test_killed_once_all_is_written(masked_lm, tables, computed, monkeypatch, gone):
    """Refused before any work, where an output has gone or went to standard output."""
    outputs = tables[0], "-" if gone == "-" else tables[1]
    with monkeypatch.context() as patch:
        patch.setattr(Store, "__exit__", lambda self, *error: self._held.close())
        mutate(SOME, masked_lm, *outputs)
    if gone not in (None, "-"):
        (tables[0].parent / gone).unlink()
    computed.clear()
    if gone is None:
        assert mutate(SOME, masked_lm, *outputs).resumed
    else:
        refused(f"a.tsv {EXISTS}", SOME, masked_lm, *outputs, run=mutate)
    assert not computed
    assert names(tables[0].parent) == ["a.tsv", "b.tsv"][: 1 if gone in ("b.tsv", "-") else 2]


def test_half_an_output_of_a_run_that_was_killed_is_deleted(masked_lm, tables):
    folder, left = tables[0].parent, ("a.tsv", "a.tsv.index.json", "b.tsv")
    others = [".a.tsv.tmp", ".a.tsv.notes.tmp", ".c.tsv.0123abcd.tmp", "a.tsv.0123abcd.tmp"]
    for name in [*(f".{name}.0123abcd.tmp" for name in left), *others]:
        (folder / name).mkdir()
    with contextlib.suppress(KeyError), replacing(tables[1]) as written_by_another_run:
        written_by_another_run.touch()
        mutate(SOME, masked_lm, *tables[:2])
        assert written_by_another_run.exists()
        raise KeyError
    assert names(folder) == sorted([*others, "a.tsv", "b.tsv"])


def test_a_kill_between_two_outputs_is_resumed(masked_lm, tables):
    mutate(SOME, masked_lm, *tables)
    whole = [path.read_bytes() for path in tables]
    tables[1].write_text("precious")
    tables[2].unlink()
    refused(f"a.tsv {EXISTS}", SOME, masked_lm, *tables, run=mutate)
    with interrupted("b.tsv"):
        mutate(SOME, masked_lm, *tables, force=True)
    assert tables[1].read_text() == "precious"
    assert tables[2].exists()
    # Those that exist are replaced when a run is resumed, so they must be the same ones.
    others = r"outputs was \['a.tsv', 'b.tsv', 'c.tsv'\], is \['a.tsv', 'b.tsv'\]"
    refused(others, SOME, masked_lm, *tables[:2], run=mutate)
    assert mutate(SOME, masked_lm, *tables).resumed
    assert [path.read_bytes() for path in tables] == whole
    assert names(tables[0].parent) == ["a.tsv", "b.tsv", "c.tsv"]


# ---------------------------------------------------------------------------------------------
# Refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": ("mean",)}, r"columns was \['token_layer3', 'mean_layer3'\], is"),
        ({"batch_tokens": 64}, "settings.batch_tokens was 100, is 64"),
        ({"dtype": "bfloat16"}, "settings.dtype was 'float32', is 'bfloat16'"),
        ({"long": "window", "overlap": 9}, "long was 'error', is 'window'; settings.overlap was"),
        ({"sequences": {**RNA, "more": "ACGU"}}, "records was 40, is 41; .*input_sha256 was"),
        ({"sequences": {**RNA, "rna39": "ACGU" * 11}}, "input_sha256 was"),
    ],
)
def test_a_run_that_differs(encoder, output, computed, change, message):
    model = copy.deepcopy(encoder)  # Options change it.
    computed.kill(4, model, output)
    refused(message + ".*--force", model, output, **change)
    assert not run(model, output, **change, force=True).resumed
    content = output.read_bytes()
    run(model, output, **change, force=True)
    assert output.read_bytes() == content


# Any of these lets MKL or oneDNN compute other bits.
MATH_VARIABLES = {"MKL_CBWR": "COMPATIBLE", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
MATH_VARIABLES |= {"ONEDNN_MAX_CPU_ISA": "SSE41", "ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}


def test_another_machine_or_model(encoder, output, computed, monkeypatch):
    model = copy.deepcopy(encoder)
    for name in MATH_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    computed.kill(4, model, output)
    refused(r"machine.threads was 1, is 2\. Repeat the earlier command", model, output, threads=2)
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "SVE256")
        refused(r"machine.instructions was '.*', is 'SVE256'", model, output)
    for name, value in MATH_VARIABLES.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            refused(f"machine.{name} was None, is '{value}'", model, output)
    torch.set_float32_matmul_precision("medium")
    try:
        refused(r"products was '(ieee|highest)', is '(bf16|medium)'", model, output)
    finally:
        torch.set_float32_matmul_precision("highest")
    weight = model.layers[1].fc1.weight.data
    before = weight[0, 0].item()
    weight[0, 0] += 1e-3
    refused(r"model.sha256 was", model, output)
    weight[0, 0] = before
    assert run(model, output).resumed
    assert "machine" not in read_metadata(output)


def test_an_output_that_exists(encoder, output, whole, computed):
    output.write_bytes(b"precious")
    refused(f"out.npz {EXISTS}", encoder, output)
    assert names(output.parent) == ["out.npz"]
    computed.kill(4, encoder, output, force=True)
    refused(f"out.npz {EXISTS}", encoder, output)
    assert output.read_bytes() == b"precious"
    resumes(whole, encoder, output, force=True)


@pytest.mark.parametrize("when", ["computing", "assembling", "killed"])
def test_an_output_that_another_program_writes_meanwhile(
    encoder, output, whole, computed, when, monkeypatch
):
    """Also where the run was killed at the last moment before its own would have appeared."""

    def written(*arguments):
        output.write_bytes(b"precious")
        return write_parts(*arguments)

    if when == "computing":
        computed.before = lambda: output.write_bytes(b"precious")
    elif when == "assembling":
        monkeypatch.setattr("ernie_rna.embeddings.embed.write_parts", written)
    else:
        with interrupted(output.name):
            run(encoder, output)
        output.write_bytes(b"precious")
    refused(f"out.npz {EXISTS}", encoder, output)
    monkeypatch.setattr("ernie_rna.embeddings.embed.write_parts", write_parts)
    assert output.read_bytes() == b"precious"
    resumes(whole, encoder, output, force=True)


def test_a_run_whose_folder_was_deleted_and_begun_anew(encoder, output, computed):
    """It neither takes results of the other run, which has other settings, nor gives it its own."""

    def begin_another():
        if len(computed) == 6:
            shutil.rmtree(output.with_name("out.npz.partial"))
            computed.kill(8, encoder, output, batch_tokens=64)

    computed.before = begin_another
    refused("another process has dropped the unfinished results", encoder, output)
    assert run(encoder, output, batch_tokens=64).resumed
    content = output.read_bytes()
    run(encoder, output, batch_tokens=64, force=True)
    assert output.read_bytes() == content


def test_two_at_once(encoder, output, whole, computed):
    """Neither without --force nor with it does a run touch what another one writes."""

    def in_the_middle():
        del computed.before
        for more in ({}, {"force": True}, {"pooling": ("cls",), "force": True, "part": "1/2"}):
            refused("another process is working on", encoder, output, **more)

    computed.before = in_the_middle
    run(encoder, output)
    assert output.read_bytes() == whole


@pytest.mark.parametrize("is_there", [False, True])
def test_a_link_is_written_through(encoder, tmp_path, whole, is_there):
    link, target = tmp_path / "link.npz", tmp_path / "folder" / "target.npz"
    target.parent.mkdir()
    link.symlink_to(target)
    if is_there:
        target.write_text("old")
    run(encoder, link, force=is_there)
    assert link.is_symlink()
    assert target.read_bytes() == whole
    assert names(target.parent) == ["target.npz"]


@pytest.mark.parametrize("part", ["1/1", "2/2"])
def test_input_that_changes_while_it_is_read(encoder, output, computed, part):
    """By one process alone, and by the last of two."""
    rna = dict(RNA)
    if part == "2/2":
        run(encoder, output, rna, part="1/2")
    computed.before = lambda: rna.update(rna39="GGGG")
    changed = "changed while it was being read"
    refused(changed, encoder, output, rna, part=part, error=InputError)
    assert names(output.parent) == []


def test_results_of_an_input_that_changed_are_not_kept(encoder, output, whole, computed):
    """Also where the run ends before it sees that the whole is another one."""
    rna = dict(RNA)
    refused("record 1 .*empty", encoder, output, {"a": ""}, error=InputError)
    refused("limit of 254 nt", encoder, output, {"a": "ACGU" * 64}, error=InputError)
    assert names(output.parent) == []
    computed.before = lambda: rna.update(rna5="GGGG", rna39="")
    refused("record 40 .*empty", encoder, output, rna, error=InputError)
    resumes(whole, encoder, output)


# ---------------------------------------------------------------------------------------------
# Sources that can be read once, disks, metadata


def test_standard_input_is_checked_whole_and_resumed(encoder, output, whole, computed, stdin):
    fasta = "".join(f">{id}\n{rna}\n" for id, rna in RNA.items())
    piped = (encoder, output, "-")
    stdin(fasta + ">last\n")
    refused("standard input: record 41 .*empty", *piped, error=InputError)
    stdin(fasta)
    computed.kill(4, *piped)
    stdin(fasta + "A\n")
    refused("input_sha256 was", *piped)
    stdin(fasta)
    resumes(whole, *piped)
    run(encoder, output, iter(RNA.items()), force=True)
    assert output.read_bytes() == whole


@pytest.mark.parametrize("share", [0.02, 0.25, 0.9])
def test_a_full_disk(encoder, output, whole, file_limit, share):
    with file_limit(int(len(whole) * share)):
        refused(r"no room to write .*out\.npz.*; free some space and run", encoder, output)
    assert not output.exists()
    run(encoder, output)
    assert output.read_bytes() == whole


def test_the_output_without_room_is_named(masked_lm, tables, file_limit):
    rna = {"long": "ACGU" * 50}
    with file_limit(10_000):
        full = r"no room to write .*/(a|b)\.tsv"
        refused(full, rna, masked_lm, *tables, run=mutate, masked=False)
    assert {*names(tables[0].parent)} <= {"a.tsv.partial", "b.tsv", "c.tsv"}  # whole or not there
    assert mutate(rna, masked_lm, *tables, masked=False).resumed
    assert names(tables[0].parent) == ["a.tsv", "b.tsv", "c.tsv"]


def test_warns_if_the_disk_is_too_small(encoder, output, monkeypatch):
    usage = type("Usage", (), {"free": 100_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.warns(UserWarning, match=r"will take up to 0 MB, but only 0 MB are free"):
        run(encoder, output)


def test_the_file_says_how_it_was_made(encoder, output, tmp_path, computed, monkeypatch):
    """Also how the model is called, by any name of which a run is resumed."""
    monkeypatch.chdir(tmp_path)
    encoder.save_pretrained("model")
    computed.kill(4, "./model", output, layers=(0, -1))
    refused("model.name was './model', is 'mini'; .*model.sha256 was", "mini", output)
    assert run(tmp_path / "model", output, layers=(0, -1)).resumed
    metadata = read_metadata(output)
    assert metadata["model"]["name"] == str(tmp_path / "model")
    assert metadata["settings"]["layers"] == [0, 3]
    assert metadata["settings"]["attention"] == "sdpa"
    assert metadata["records"] == 40
    assert metadata["versions"]["torch"] == torch.__version__
    assert {type(version) for version in versions().values()} == {str}


def test_threads_are_put_back(encoder, output, computed):
    seen = []
    computed.before = lambda: seen.append(torch.get_num_threads())
    list(embed(["ACGU"], encoder, threads=2))
    assert run(encoder, output, ["ACGU"], threads=2).threads == 2
    assert seen == [2, 2]
    assert torch.get_num_threads() == 1


# ---------------------------------------------------------------------------------------------
# Several processes


@pytest.mark.parametrize("order", [*itertools.permutations(range(1, 4))])
def test_parts_in_any_order(encoder, output, whole, computed, order, monkeypatch):
    looked_at, is_whole = [], Part.is_whole
    monkeypatch.setattr(Part, "is_whole", lambda part: looked_at.append(part) or is_whole(part))
    for number, index in enumerate(order):
        summary = run(encoder, output, part=f"{index}/3")
        assert bool(summary.files) == output.exists() == (number == 2)
        assert summary.share == Share(index - 1, 3, "--part")
    assert len(computed) == len({*computed})
    assert {chunk for chunk, _ in computed} == {*range(10)}
    # Each its own before it computes them, the last one all: they are not read one by one before.
    assert len(looked_at) == 10 + 10
    assert output.read_bytes() == whole
    assert names(output.parent) == ["out.npz"]


def test_a_part_that_is_missing_is_computed_by_a_run_alone(encoder, output, whole, computed):
    computed.clear()
    for _ in range(2):
        said = "part 2/3 (by --part) is done; the output is written after the last part: 40 s"
        assert run(encoder, output, part="2/3").text.startswith(said)
    assert {chunk for chunk, _ in computed} == {1, 4, 7}
    resumes(whole, encoder, output)


def test_an_output_that_is_finished_as_another_process_begins(encoder, output, whole, monkeypatch):
    begin = Store.begin

    def begin_late(store, *arguments):
        monkeypatch.setattr(Store, "begin", begin)
        run(encoder, output)
        return begin(store, *arguments)

    run(encoder, output, part="1/2")
    monkeypatch.setattr(Store, "begin", begin_late)
    resumes(whole, encoder, output, part="2/2")


def test_a_damaged_part_of_another_process_is_no_part(encoder, output, whole):
    run(encoder, output, part="1/2")
    part = next(output.parent.glob("*/part-*"))
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    for _ in range(2):
        refused(rf"{part.name} is damaged: run part 1/2 again", encoder, output, part="2/2")
    resumes(whole, encoder, output, part="1/2")


def test_more_parts_than_chunks(encoder, output):
    for index in (3, 1, 2, 4):
        assert run(encoder, output, {"a": "ACGU"}, part=f"{index}/4").records == 1
    assert names(output.parent) == ["out.npz"]
    refused(EXISTS, encoder, output, {"a": "ACGU"}, part="4/4")


def set_variables(monkeypatch, text):
    """Sets those of torchrun, and those of a SLURM array without their SLURM_ARRAY_TASK."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "_ID", "_COUNT", "_MIN", "_STEP"):
        monkeypatch.delenv(f"SLURM_ARRAY_TASK{name}" if name[0] == "_" else name, raising=False)
    for name, value in (one.split("=") for one in text.split()):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK{name}" if name[0] == "_" else name, value)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ("RANK=3 WORLD_SIZE=8", (3, 8, 3)),
        ("RANK=5 WORLD_SIZE=8 LOCAL_RANK=1", (5, 8, 1)),
        ("WORLD_SIZE=8", (0, 1, None)),
        ("_ID=2 _COUNT=4", (2, 4, None)),
        ("_ID=7 _COUNT=4 _MIN=1 _STEP=2", (3, 4, None)),
        ("RANK=x WORLD_SIZE=2", "part is read from RANK, .* a number; got 'x'"),
        ("RANK=2 WORLD_SIZE=2", "RANK=2, WORLD_SIZE=2: this would be part 3 of 2, .* or 1/1 to"),
        (
            "_ID=9 _COUNT=4",
            "SLURM_ARRAY_TASK_ID=9, SLURM_ARRAY_TASK_COUNT=4: this would be part 10 ",
        ),
    ],
)
def test_variables_say_which_part(encoder, output, monkeypatch, variables, said):
    set_variables(monkeypatch, variables)
    if isinstance(said, str):
        refused(said, encoder, output, error=OptionError)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        share = run(encoder, output).share
    only = [str(one.message) for one in caught if str(one.message).startswith("only part ")]
    assert len(only) == ("_ID" in variables)  # Its own input and output are as likely.
    assert all("SLURM_ARRAY_TASK_ID=" in text and "--part 1/1" in text for text in only)
    assert (share.index, share.count, share.local) == said
    assert run(encoder, output, part="1/1", force=True).share.count == 1


@pytest.mark.parametrize(("local", "device"), [(None, None), (0, "cuda:0"), (5, "cuda:1")])
def test_processes_on_one_machine_take_a_gpu_each(monkeypatch, local, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for given, own in ((None, device), ("cpu", "cpu"), ("cuda:1", "cuda:1")):
        task = type("Task", (), {"options": type("Options", (), {"device": given})})
        assert runner._own_device(task, Share(local=local)) == own


def test_two_processes_share_the_work(encoder, tmp_path, monkeypatch):
    encoder.save_pretrained(tmp_path / "model")
    rna = {id: rna * 3 for id, rna in RNA.items()}
    fasta = "".join(f">{id}\n{rna}\n" for id, rna in rna.items())
    (tmp_path / "in.fasta").write_text(fasta)
    alone, shared = tmp_path / "alone.safetensors", tmp_path / "shared.safetensors"
    monkeypatch.setattr(chunking, "CHUNK_RECORDS", 4096)
    run(tmp_path / "model", alone, rna, batch_tokens=2, pooling=("mean",))
    assert len(fasta) > 3 * 2 * chunking.CHUNK_BATCHES  # That is, there are several chunks.
    command = "-m torch.distributed.run --standalone --nproc-per-node=2 -m ernie_rna embed"
    options = ["-m", tmp_path / "model", "-o", shared, "--batch-tokens", "2"]
    command = [sys.executable, *command.split(), tmp_path / "in.fasta", *options]
    how = {"cwd": ROOT, "env": ENVIRONMENT, "capture_output": True, "text": True}
    done = subprocess.run(command, **how)
    assert done.returncode == 0, done.stderr
    assert 1 <= done.stderr.count("shared.safetensors: 40 sequences") <= 2
    assert shared.read_bytes() == alone.read_bytes()
    assert names(tmp_path) == ["alone.safetensors", "in.fasta", "model", "shared.safetensors"]


# ---------------------------------------------------------------------------------------------
# Standard output, and what is said


def test_standard_output_is_streamed(masked_lm, tables, capsys):
    assert mutate(SOME, masked_lm, "-").files == [Path("-")]
    streamed = capsys.readouterr().out
    mutate(iter(SOME.items()), masked_lm, "-")
    assert capsys.readouterr().out == streamed
    summary = mutate(SOME, masked_lm, tables[0], summary="-")
    assert summary.text.startswith(f"{tables[0]}, standard output: 2 sequences, 16 nt; ")
    assert tables[0].read_text() == streamed
    assert capsys.readouterr().out.startswith("id\tlength\t")
    assert names(tables[0].parent) == ["a.tsv"]


def test_what_is_not_in_files_is_not_shared(encoder, masked_lm, output, monkeypatch):
    message = r"read only once .* the same file \(part 1/2 \(by --part"
    refused(message, encoder, output, iter(RNA.items()), part="1/2", error=InputError)
    assert names(output.parent) == []
    how = {"run": mutate, "error": OptionError}
    refused("part needs outputs that are files; got '1/2'", SOME, masked_lm, part="1/2", **how)
    refused(r"are files; this is part 1/2 \(by --part\)", SOME, masked_lm, "-", part="1/2", **how)
    set_variables(monkeypatch, "RANK=1 WORLD_SIZE=2")
    refused(r"this is part 2/2 \(by RANK=1, WORLD_SIZE=2\)", SOME, masked_lm, "-", **how)
    assert len(list(mutate(SOME, masked_lm, masked=False))) == 2


def test_lines_come_as_they_are_computed(masked_lm, monkeypatch, capsys):
    monkeypatch.setattr(chunking, "CHUNK_RECORDS", 1)
    seen = []

    def watched(self, results):
        for result in results:
            yield result
            seen.append(capsys.readouterr().out.count("\n"))

    monkeypatch.setattr("ernie_rna.scoring.mutate.MutateTask.join", watched)
    mutate(SOME, masked_lm, summary="-", masked=False)
    assert seen == [2, 1]


def test_what_a_summary_says():
    said = "2.0 s, 0.5 sequences a second, 3.1 % padding, 1 thread"
    text = RunSummary([Path("-"), Path("b.tsv")], 1, 12, 2.0, 0.5, 0.031).text
    assert text == f"standard output, b.tsv: 1 sequence, 12 nt; {said}"
    text = RunSummary([Path("a.tsv")], 2, 12, 2.0, 0.5, 0.031, resumed=True, threads=2).text
    assert text.startswith("a.tsv: 2 sequences, 12 nt, partly computed before; 2.0 s")
