"""Runs of a few steps: both losses, resumed after a kill, from tables, streams and other runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from ernie_rna.options import Share
from ernie_rna.run.store import Store
from recipes.pretraining import predict_structures
from recipes.pretraining.rnas import read_table
from recipes.pretraining.weights import last_checkpoint, load_average
from tests.conftest import ROOT
from tests.recipes.conftest import PAIRS, TRAINING, log, pretrain


def weights(run, step=6):
    files = (run / f"checkpoint-{step}" / f"{name}.safetensors" for name in ("model", "average"))
    return {f"{file.stem}/{key}": one for file in files for key, one in load_file(file).items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def logged(run, name):
    return [line["step"] for line in log(run) if name in line]


def start(*arguments, launcher=()):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, "-m", "recipes.pretraining.train", *arguments, "--cpu"]
    return subprocess.Popen(list(map(str, command)), env=environment)


def test_a_killed_run_is_resumed_exactly(table, config, tmp_path, refused):
    torch.set_num_threads(1)  # as in the other process; the fixture sets it back
    whole, killed, settings = tmp_path / "whole", tmp_path / "killed", config()
    assert pretrain(settings, table, whole) == 0
    process = start(settings, table, killed)
    deadline = time.monotonic() + 120
    while not last_checkpoint(killed) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last_checkpoint(killed) is not None
    refused("has checkpoints; --resume resumes", settings, table, killed)
    assert pretrain(settings, table, killed, "--resume") == 0
    assert same(weights(whole), weights(killed))
    metrics = [line for line in log(killed) if "eval_f1" in line]
    assert [line["step"] for line in metrics] == [3, 6]  # once each
    assert {"eval_masked_lm_loss", "eval_pair_loss", "eval_f1_at_1.5"} <= metrics[0].keys()
    assert logged(killed, "loss") == [1, 2, 3, 4, 5, 6]


def test_a_streamed_table_is_resumed(table, config, tmp_path):
    run = tmp_path / "run"
    command = [config(), table, run, "--stream", "--resume"]
    assert pretrain(*command) == 0
    whole = weights(run)
    for step in (4, 6):
        shutil.rmtree(run / f"checkpoint-{step}")
    assert pretrain(*command) == 0
    assert same(whole, weights(run))


def test_a_finished_run_is_left_alone_and_says_what_it_was(table, config, tmp_path):
    pytest.importorskip("matplotlib")
    settings, run = config(), tmp_path / "run"
    assert pretrain(settings, table, run, "--steps", 4) == 0
    kept = json.loads((run / "settings.json").read_text())
    assert (kept["training"]["max_steps"], kept["masked"]) == (4, 0.5)
    assert "<svg" in (run / "curves.svg").read_text()
    before = weights(run, 4)
    assert pretrain(settings, table, run, "--steps", 2, "--resume") == 0
    assert same(before, weights(run, 4))
    faster = config(training={**TRAINING, "learning_rate": 0.02})
    assert pretrain(faster, table, run, "--steps", 6, "--resume") == 0
    rates = [line["learning_rate"] for line in log(run) if "loss" in line]
    assert rates[4:] == [0.02, 0.01]  # of the longer schedule, from its first step on


def test_what_it_cannot_do_is_said(table, fasta, config, tmp_path, refused):
    run, masked, half = tmp_path / "new" / "run", config(masked=1.0), config(predicted=0.5)
    both = config(masked=1.0, predicted=0.5)
    refused("FASTA has no structures; set masked to 1", config(), fasta, run)
    refused("has no splits; name a file by --eval-fasta", masked, fasta, run)
    refused("family_power is 0.5", config(family_power=0.5), table, run, "--stream")
    refused("tables in memory", half, table, run, "--stream", "--predicted", table)
    refused("tables in memory", both, fasta, run, "--eval-fasta", fasta, "--predicted", table)
    refused("predicted is 0.0", config(), table, run, "--predicted", table)
    refused("predicted is 0.5", half, table, run)
    refused(
        "none: has no complete checkpoint", config(), table, run, "--start-from", tmp_path / "none"
    )
    run.parent.mkdir()
    with Store(run, Share()):
        refused(f"another process is working on {run}", config(), table, run, "--resume")
    assert not run.exists()
    assert pretrain(config(), table, run, "--steps", 1) == 0
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_from_another_run(table, config, tmp_path):
    first, after = tmp_path / "first", tmp_path / "after"
    # A step may have batches of both kinds.
    accumulating = config(training={**TRAINING, "gradient_accumulation_steps": 3})
    assert pretrain(accumulating, table, first, "--steps", 2) == 0
    still = config(training={**TRAINING, "learning_rate": 0.0})
    assert pretrain(still, table, after, "--steps", 2, "--start-from", first) == 0
    models = [load_average(run / "checkpoint-2") for run in (first, after)]
    for before, now in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(now, before)


def test_predicted_structures(table, config, tmp_path, capsys):
    """Made, the same ones each time, and trained on beside the known ones."""
    pytest.importorskip("RNA")
    made = [tmp_path / name for name in ("predicted.tsv.gz", "again.tsv")]
    for output in made:
        command = [table, output, "--count", 30, "--max-length", 30, "--processes", 1]
        assert predict_structures.main([*map(str, command)]) == 0
    assert predict_structures.main([str(table), "unwritten.tsv", "--max-length", "3"]) == 1
    assert "no sequence has at most 3 nucleotides" in capsys.readouterr().err
    predicted, again = (list(read_table(path, "train", predicted=True)) for path in made)
    assert len(predicted) == 30
    letters = {one.sequence[i] + one.sequence[j] for one in predicted for i, j in one.pairs}
    assert letters <= PAIRS
    assert predicted == again
    assert pretrain(config(predicted=0.5), table, tmp_path / "run", "--predicted", made[0]) == 0
    assert logged(tmp_path / "run", "eval_f1") == [3, 6]


def test_two_processes(table, config, tmp_path):
    run = tmp_path / "run"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    assert start(config(), table, run, launcher=launcher).wait(timeout=300) == 0
    names = {path.name for path in (run / "checkpoint-6").iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= names
    assert logged(run, "loss") == [1, 2, 3, 4, 5, 6]
