"""Runs that are interrupted, refused, shared by processes, streamed, or short of disk.

The runs are of `embed`, whose chunks have few records here, and of `mutate` with several outputs.
"""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ernie_rna.embeddings.embed import embed
from ernie_rna.embeddings.formats import read_metadata, write_parts
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
from tests.conftest import ROOT
from tests.run.conftest import names

RNA = {f"rna{i}": "ACGUN"[: 1 + i % 5] * (1 + i % 11) for i in range(40)}
TWO_RNAS = {"a": "GGGGAAAACCCC", "b": "ACNU"}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
EXISTS = r"exists already; --force replaces it"


@pytest.fixture(autouse=True)
def _small_chunks_one_thread(_reproducible, monkeypatch):
    monkeypatch.setattr(chunking, "CHUNK_RECORDS", 4)  # The first chunk has four batches.
    torch.set_num_threads(1)


@pytest.fixture
def tables(tmp_path):
    return [tmp_path / name for name in ("a.tsv", "b.tsv", "c.tsv")]


@pytest.fixture
def expected(encoder, tmp_path_factory):
    """The bytes that an uninterrupted run writes to `output`."""
    output = tmp_path_factory.mktemp("uninterrupted") / "out.npz"
    run(encoder, output)
    return output.read_bytes()


class Computed(list):
    """The (chunk, batch) numbers of the computed batches; `before` is called before each one."""

    before = staticmethod(lambda: None)

    def kill(self, batches, *arguments, **options):
        """Start a run and interrupt it after this number of batches."""

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
    computed, compute_batches = Computed(), runner.compute_batches

    def watched(task, chunk):
        for number, batch in enumerate(compute_batches(task, chunk)):
            computed.before()
            computed.append((chunk.number, number))
            yield batch

    monkeypatch.setattr(runner, "compute_batches", watched)
    return computed


def run(model, output, sequences=RNA, **options):
    options = {"batch_tokens": 100, "progress": False, "pooling": ("token", "mean"), **options}
    return embed(sequences, model, output, **options)


def refused(message, *arguments, error=OutputError, run=run, **options):
    """Check that a run ends with an error."""
    with pytest.raises(error, match=message):
        run(*arguments, **options)


def resumes(expected, model, output, *sequences, **options):
    """Check that a run is resumed and leaves only its output, with the expected bytes."""
    assert run(model, output, *sequences, **options).resumed
    assert names(output.parent) == [output.name]
    assert output.read_bytes() == expected


@contextlib.contextmanager
def interrupted(name):
    """A context that is interrupted when a file is about to be renamed to `name`."""
    replace = os.replace

    def replace_others(source, target):
        if Path(target).name == name:
            raise KeyboardInterrupt
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace_others)
        with pytest.raises(KeyboardInterrupt):
            yield


# ---------------------------------------------------------------------------------------------
# Killed


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("h5", "npz", "parquet", "tsv")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("extension", ["safetensors", *SLOW])
def test_killed_at_any_moment(extension):
    pytest.importorskip({"h5": "h5py", "parquet": "pyarrow"}.get(extension, "numpy"))
    memory = Path("/dev/shm")  # Faster than a disk; a killed process leaves the same files there.
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        command = [sys.executable, "-m", "tests.killed_runs", folder, extension, "6"]
        result = json.loads(subprocess.check_output(command, cwd=ROOT, env=ENVIRONMENT))
    assert result["operations"] > 80
    assert result["different"] == []


@pytest.mark.parametrize("batches", [4, 6])
def test_resumes_where_it_stopped(encoder, output, expected, computed, batches):
    run(encoder, output)
    everything = list(computed)
    output.unlink()
    computed.kill(batches, encoder, output)
    assert names(output.parent) == ["out.npz.partial"]
    # As if another process had just deleted a part that was listed.
    (output.with_name("out.npz.partial") / "part-000009-0.safetensors").symlink_to("gone")
    resumes(expected, encoder, output)
    assert computed == everything[4:]  # All chunks except the first, which was complete.


@pytest.mark.parametrize("gone", [None, "b.tsv", "a.tsv.partial/manifest.json", "-"])
def test_killed_after_writing_all_outputs(model, tables, computed, monkeypatch, gone):
    """The next run computes nothing; it is refused unless all outputs and the manifest exist."""
    outputs = tables[0], "-" if gone == "-" else tables[1]
    with monkeypatch.context() as patch:
        patch.setattr(Store, "__exit__", lambda self, *error: self._held.close())
        mutate(TWO_RNAS, model, *outputs)
    if gone not in (None, "-"):
        (tables[0].parent / gone).unlink()
    computed.clear()
    if gone is None:
        assert mutate(TWO_RNAS, model, *outputs).resumed
    else:
        refused(f"a.tsv {EXISTS}", TWO_RNAS, model, *outputs, run=mutate)
    assert not computed
    assert names(tables[0].parent) == (["a.tsv"] if gone in ("b.tsv", "-") else ["a.tsv", "b.tsv"])


def test_temporary_files_of_a_killed_run_are_deleted(model, tables):
    folder, left = tables[0].parent, ("a.tsv", "a.tsv.index.json", "b.tsv")
    others = [".a.tsv.tmp", ".a.tsv.notes.tmp", ".c.tsv.0123abcd.tmp", "a.tsv.0123abcd.tmp"]
    for name in [*(f".{name}.0123abcd.tmp" for name in left), *others]:
        (folder / name).mkdir()
    with contextlib.suppress(KeyError), replacing(tables[1]) as written_by_another_run:
        written_by_another_run.touch()
        mutate(TWO_RNAS, model, *tables[:2])
        assert written_by_another_run.exists()
        raise KeyError
    assert names(folder) == sorted([*others, "a.tsv", "b.tsv"])


def test_a_run_killed_between_two_outputs_is_resumed(model, tables):
    mutate(TWO_RNAS, model, *tables)
    expected = [path.read_bytes() for path in tables]
    tables[1].write_text("precious")
    tables[2].unlink()
    refused(f"a.tsv {EXISTS}", TWO_RNAS, model, *tables, run=mutate)
    with interrupted("b.tsv"):
        mutate(TWO_RNAS, model, *tables, force=True)
    assert tables[1].read_text() == "precious"
    assert tables[2].exists()
    # A resumed run replaces the outputs that exist, so they must be those of the killed run.
    fewer = r"outputs was \['a.tsv', 'b.tsv', 'c.tsv'\], is \['a.tsv', 'b.tsv'\]"
    refused(fewer, TWO_RNAS, model, *tables[:2], run=mutate)
    assert mutate(TWO_RNAS, model, *tables).resumed
    assert [path.read_bytes() for path in tables] == expected
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
def test_a_run_with_other_options_or_input(encoder, output, computed, change, message):
    computed.kill(4, encoder, output)
    refused(message + ".*--force", encoder, output, **change)
    assert not run(encoder, output, **change, force=True).resumed
    content = output.read_bytes()
    run(encoder, output, **change, force=True)
    assert output.read_bytes() == content


# With any of these, the results of MKL or oneDNN have other bits.
MATH_VARIABLES = {"MKL_CBWR": "COMPATIBLE", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
MATH_VARIABLES |= {"ONEDNN_MAX_CPU_ISA": "SSE41", "ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}


def test_a_run_on_another_machine_or_with_other_weights(encoder, output, computed, monkeypatch):
    for name in MATH_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    computed.kill(4, encoder, output)
    refused(r"machine.threads was 1, is 2\. Repeat the earlier command", encoder, output, threads=2)
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "SVE256")
        refused(r"machine.instructions was '.*', is 'SVE256'", encoder, output)
    for name, value in MATH_VARIABLES.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            refused(f"machine.{name} was None, is '{value}'", encoder, output)
    torch.set_float32_matmul_precision("medium")
    try:
        refused(r"products was '(ieee|highest)', is '(bf16|medium)'", encoder, output)
    finally:
        torch.set_float32_matmul_precision("highest")
    weight = encoder.layers[1].fc1.weight.data
    before = weight[0, 0].item()
    weight[0, 0] += 1e-3
    refused(r"model.sha256 was", encoder, output)
    weight[0, 0] = before
    assert run(encoder, output).resumed
    assert "machine" not in read_metadata(output)


def test_an_output_that_exists(encoder, output, expected, computed):
    output.write_bytes(b"precious")
    refused(f"out.npz {EXISTS}", encoder, output)
    assert names(output.parent) == ["out.npz"]
    computed.kill(4, encoder, output, force=True)
    refused(f"out.npz {EXISTS}", encoder, output)
    assert output.read_bytes() == b"precious"
    resumes(expected, encoder, output, force=True)


@pytest.mark.parametrize("when", ["computing", "assembling", "killed"])
def test_an_output_that_another_program_writes_meanwhile(
    encoder, output, expected, computed, when, monkeypatch
):
    """The run may also be killed just before its own output appears."""

    def write_late(*arguments):
        output.write_bytes(b"precious")
        return write_parts(*arguments)

    if when == "computing":
        computed.before = lambda: output.write_bytes(b"precious")
    elif when == "assembling":
        monkeypatch.setattr("ernie_rna.embeddings.embed.write_parts", write_late)
    else:
        with interrupted(output.name):
            run(encoder, output)
        output.write_bytes(b"precious")
    refused(f"out.npz {EXISTS}", encoder, output)
    monkeypatch.setattr("ernie_rna.embeddings.embed.write_parts", write_parts)
    assert output.read_bytes() == b"precious"
    resumes(expected, encoder, output, force=True)


def test_a_run_whose_folder_another_run_deletes_and_uses(encoder, output, computed):
    """The two runs have different settings, so neither may use results of the other."""

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


def test_a_second_run_at_the_same_time(encoder, output, expected, computed):
    """It is refused, with or without --force."""

    def try_second_run():
        del computed.before
        for more in ({}, {"force": True}, {"pooling": ("cls",), "force": True, "part": "1/2"}):
            refused("another process is working on", encoder, output, **more)

    computed.before = try_second_run
    run(encoder, output)
    assert output.read_bytes() == expected


@pytest.mark.parametrize("exists", [False, True])
def test_a_link_as_output_keeps_pointing_to_its_target(encoder, tmp_path, expected, exists):
    link, target = tmp_path / "link.npz", tmp_path / "folder" / "target.npz"
    target.parent.mkdir()
    link.symlink_to(target)
    if exists:
        target.write_text("old")
    run(encoder, link, force=exists)
    assert link.is_symlink()
    assert target.read_bytes() == expected
    assert names(target.parent) == ["target.npz"]


@pytest.mark.parametrize("part", ["1/1", "2/2"])
def test_input_that_changes_while_it_is_read(encoder, output, computed, part):
    """The change is noticed by a single process, and by the last of two."""
    rna = dict(RNA)
    if part == "2/2":
        run(encoder, output, rna, part="1/2")
    computed.before = lambda: rna.update(rna39="GGGG")
    changed = "changed while it was being read"
    refused(changed, encoder, output, rna, part=part, error=InputError)
    assert names(output.parent) == []


def test_results_of_an_input_that_changed_are_not_kept(encoder, output, expected, computed):
    """Not even if an invalid record ends the run before it can notice the change."""
    rna = dict(RNA)
    refused("record 1 .*empty", encoder, output, {"a": ""}, error=InputError)
    refused("limit of 254 nt", encoder, output, {"a": "ACGU" * 64}, error=InputError)
    assert names(output.parent) == []
    computed.before = lambda: rna.update(rna5="GGGG", rna39="")
    refused("record 40 .*empty", encoder, output, rna, error=InputError)
    resumes(expected, encoder, output)


# ---------------------------------------------------------------------------------------------
# Sources that can be read once, disks, metadata


def test_standard_input_is_checked_first_and_resumed(encoder, output, expected, computed, stdin):
    fasta = "".join(f">{id}\n{rna}\n" for id, rna in RNA.items())
    piped = (encoder, output, "-")
    stdin(fasta + ">last\n")
    refused("standard input: record 41 .*empty", *piped, error=InputError)
    stdin(fasta)
    computed.kill(4, *piped)
    stdin(fasta + "A\n")
    refused("input_sha256 was", *piped)
    stdin(fasta)
    resumes(expected, *piped)
    run(encoder, output, iter(RNA.items()), force=True)
    assert output.read_bytes() == expected


@pytest.mark.parametrize("share", [0.02, 0.25, 0.9])
def test_a_full_disk(encoder, output, expected, file_limit, share):
    with file_limit(int(len(expected) * share)):
        refused(r"no room to write .*out\.npz.*; free some space and run", encoder, output)
    assert not output.exists()
    run(encoder, output)
    assert output.read_bytes() == expected


def test_a_full_disk_names_the_output(model, tables, file_limit):
    rna = {"long": "ACGU" * 50}
    with file_limit(10_000):
        full = r"no room to write .*/(a|b)\.tsv"
        refused(full, rna, model, *tables, run=mutate, masked=False)
    assert {*names(tables[0].parent)} <= {"a.tsv.partial", "b.tsv", "c.tsv"}  # complete or absent
    assert mutate(rna, model, *tables, masked=False).resumed
    assert names(tables[0].parent) == ["a.tsv", "b.tsv", "c.tsv"]


def test_warns_if_the_disk_is_too_small(encoder, output, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100_000))
    with pytest.warns(UserWarning, match=r"will take up to 0 MB, but only 0 MB are free"):
        run(encoder, output)


def test_metadata_says_how_the_file_was_made(encoder, output, tmp_path, computed, monkeypatch):
    """A run may be resumed with another name of the same model, and the last name is stored."""
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


def test_the_number_of_threads_is_restored(encoder, output, computed):
    threads = []
    computed.before = lambda: threads.append(torch.get_num_threads())
    list(embed(["ACGU"], encoder, threads=2))
    assert run(encoder, output, ["ACGU"], threads=2).threads == 2
    assert threads == [2, 2]
    assert torch.get_num_threads() == 1


# ---------------------------------------------------------------------------------------------
# Several processes


@pytest.mark.parametrize("order", [*itertools.permutations(range(1, 4))])
def test_parts_in_any_order(encoder, output, expected, computed, order, monkeypatch):
    checked, is_whole = [], Part.is_whole
    monkeypatch.setattr(Part, "is_whole", lambda part: checked.append(part) or is_whole(part))
    for number, index in enumerate(order):
        summary = run(encoder, output, part=f"{index}/3")
        assert bool(summary.files) == output.exists() == (number == 2)
        assert summary.share == Share(index - 1, 3, "--part")
    assert len(computed) == len({*computed})
    assert {chunk for chunk, _ in computed} == {*range(10)}
    # Each process checks its own chunks before it computes them, and the last process all of them.
    assert len(checked) == 10 + 10
    assert output.read_bytes() == expected
    assert names(output.parent) == ["out.npz"]


def test_a_run_without_part_computes_the_missing_parts(encoder, output, expected, computed):
    computed.clear()
    for _ in range(2):
        message = "part 2/3 (by --part) is done; the output is written after the last part: 40 s"
        assert run(encoder, output, part="2/3").text.startswith(message)
    assert {chunk for chunk, _ in computed} == {1, 4, 7}
    resumes(expected, encoder, output)


def test_an_output_finished_before_another_process_begins(encoder, output, expected, monkeypatch):
    begin = Store.begin

    def begin_late(store, *arguments):
        monkeypatch.setattr(Store, "begin", begin)
        run(encoder, output)
        return begin(store, *arguments)

    run(encoder, output, part="1/2")
    monkeypatch.setattr(Store, "begin", begin_late)
    resumes(expected, encoder, output, part="2/2")


def test_a_damaged_part_of_another_process_must_be_computed_again(encoder, output, expected):
    run(encoder, output, part="1/2")
    part = next(output.parent.glob("*/part-*"))
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    for _ in range(2):
        refused(rf"{part.name} is damaged: run part 1/2 again", encoder, output, part="2/2")
    resumes(expected, encoder, output, part="1/2")


def test_more_parts_than_chunks(encoder, output):
    for index in (3, 1, 2, 4):
        assert run(encoder, output, {"a": "ACGU"}, part=f"{index}/4").records == 1
    assert names(output.parent) == ["out.npz"]
    refused(EXISTS, encoder, output, {"a": "ACGU"}, part="4/4")


def set_variables(monkeypatch, text):
    """Set these variables of torchrun or of a SLURM array, and none of the others of the two."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name in ("ID", "COUNT", "MIN", "STEP"):
        monkeypatch.delenv(f"SLURM_ARRAY_TASK_{name}", raising=False)
    for variable in text.replace("TASK_", "SLURM_ARRAY_TASK_").split():
        monkeypatch.setenv(*variable.split("="))


@pytest.mark.parametrize(
    ("variables", "share"),
    [
        ("RANK=3 WORLD_SIZE=8", (3, 8, 3)),
        ("RANK=5 WORLD_SIZE=8 LOCAL_RANK=1", (5, 8, 1)),
        ("WORLD_SIZE=8", (0, 1, None)),
        ("TASK_ID=2 TASK_COUNT=4", (2, 4, None)),
        ("TASK_ID=8 TASK_COUNT=4 TASK_MIN=2 TASK_STEP=2", (3, 4, None)),
    ],
)
def test_variables_set_the_share(encoder, output, monkeypatch, variables, share):
    set_variables(monkeypatch, variables)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = run(encoder, output).share
    only = [str(one.message) for one in caught if str(one.message).startswith("only part ")]
    assert len(only) == ("TASK_ID" in variables)  # Its own input and output are as likely.
    assert all("SLURM_ARRAY_TASK_ID=" in text and "--part 1/1" in text for text in only)
    assert (found.index, found.count, found.local) == share
    assert run(encoder, output, part="1/1", force=True).share.count == 1


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ("RANK=x WORLD_SIZE=2", "part is read from RANK, .* a number; got 'x'"),
        ("RANK=2 WORLD_SIZE=2", "RANK=2, WORLD_SIZE=2: this would be part 3 of 2, .* or 1/1 to"),
        ("TASK_ID=9 TASK_COUNT=4", "TASK_ID=9, SLURM_ARRAY_TASK_COUNT=4: this would be part 10 "),
    ],
)
def test_invalid_variables(encoder, output, monkeypatch, variables, message):
    set_variables(monkeypatch, variables)
    refused(message, encoder, output, error=OptionError)


@pytest.mark.parametrize(("local", "device"), [(None, None), (0, "cuda:0"), (5, "cuda:1")])
def test_processes_on_one_machine_use_different_gpus(monkeypatch, local, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for option, expected in ((None, device), ("cpu", "cpu"), ("cuda:1", "cuda:1")):
        task = SimpleNamespace(options=SimpleNamespace(device=option))
        assert runner._own_device(task, Share(local=local)) == expected


def test_two_processes_share_the_work(encoder, tmp_path, monkeypatch):
    encoder.save_pretrained(tmp_path / "model")
    rna = {id: rna * 3 for id, rna in RNA.items()}
    fasta = "".join(f">{id}\n{rna}\n" for id, rna in rna.items())
    (tmp_path / "in.fasta").write_text(fasta)
    alone, shared = tmp_path / "alone.safetensors", tmp_path / "shared.safetensors"
    monkeypatch.setattr(chunking, "CHUNK_RECORDS", 4096)
    run(tmp_path / "model", alone, rna, batch_tokens=2, pooling=("mean",))
    assert len(fasta) > 3 * 2 * chunking.CHUNK_BATCHES  # That is, there are several chunks.
    torchrun = "-m torch.distributed.run --standalone --nproc-per-node=2 -m ernie_rna embed"
    options = ["-m", tmp_path / "model", "-o", shared, "--batch-tokens", "2"]
    command = [sys.executable, *torchrun.split(), tmp_path / "in.fasta", *options]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 1 <= done.stderr.count("shared.safetensors: 40 sequences") <= 2
    assert shared.read_bytes() == alone.read_bytes()
    assert names(tmp_path) == ["alone.safetensors", "in.fasta", "model", "shared.safetensors"]


# ---------------------------------------------------------------------------------------------
# Standard output and the summary


def test_standard_output_is_streamed(model, tables, capsys):
    assert mutate(TWO_RNAS, model, "-").files == [Path("-")]
    streamed = capsys.readouterr().out
    mutate(iter(TWO_RNAS.items()), model, "-")
    assert capsys.readouterr().out == streamed
    summary = mutate(TWO_RNAS, model, tables[0], summary="-")
    assert summary.text.startswith(f"{tables[0]}, standard output: 2 sequences, 16 nt; ")
    assert tables[0].read_text() == streamed
    assert capsys.readouterr().out.startswith("id\tlength\t")
    assert names(tables[0].parent) == ["a.tsv"]


def test_processes_share_only_input_and_outputs_in_files(encoder, model, output, monkeypatch):
    message = r"read only once .* the same file \(part 1/2 \(by --part"
    refused(message, encoder, output, iter(RNA.items()), part="1/2", error=InputError)
    assert names(output.parent) == []
    kind = {"run": mutate, "error": OptionError}
    refused("part needs outputs that are files; got '1/2'", TWO_RNAS, model, part="1/2", **kind)
    refused(r"are files; this is part 1/2 \(by --part\)", TWO_RNAS, model, "-", part="1/2", **kind)
    set_variables(monkeypatch, "RANK=1 WORLD_SIZE=2")
    refused(r"this is part 2/2 \(by RANK=1, WORLD_SIZE=2\)", TWO_RNAS, model, "-", **kind)
    assert len(list(mutate(TWO_RNAS, model, masked=False))) == 2


def test_lines_are_printed_as_they_are_computed(model, monkeypatch, capsys):
    monkeypatch.setattr(chunking, "CHUNK_RECORDS", 1)
    new_lines = []

    def watched(self, results):
        for result in results:
            yield result
            new_lines.append(capsys.readouterr().out.count("\n"))

    monkeypatch.setattr("ernie_rna.scoring.mutate.MutateTask.join", watched)
    mutate(TWO_RNAS, model, summary="-", masked=False)
    assert new_lines == [2, 1]


def test_the_text_of_a_summary():
    speed = "2.0 s, 0.5 sequences a second, 3.1 % padding, 1 thread"
    text = RunSummary([Path("-"), Path("b.tsv")], 1, 12, 2.0, 0.5, 0.031).text
    assert text == f"standard output, b.tsv: 1 sequence, 12 nt; {speed}"
    text = RunSummary([Path("a.tsv")], 2, 12, 2.0, 0.5, 0.031, resumed=True, threads=2).text
    assert text.startswith("a.tsv: 2 sequences, 12 nt, partly computed before; 2.0 s")
