"""Runs of a few steps: both losses, resuming, and data from tables, streams and other runs."""

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
    """The weights of a checkpoint and their moving average, by name."""
    tensors = {}
    for file in ("model", "average"):
        stored = load_file(run / f"checkpoint-{step}" / f"{file}.safetensors")
        tensors |= {f"{file}/{name}": tensor for name, tensor in stored.items()}
    return tensors


def same(weights, others):
    equal = (torch.equal(weights[name], others[name]) for name in weights)
    return weights.keys() == others.keys() and all(equal)


def logged_steps(run, name):
    return [line["step"] for line in log(run) if name in line]


def start_process(*arguments, launcher=()):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, "-m", "recipes.pretraining.train", *arguments, "--cpu"]
    return subprocess.Popen(list(map(str, command)), env=environment)


def test_a_killed_run_is_resumed_exactly(table, config, tmp_path, refused):
    torch.set_num_threads(1)  # as in the other process; a fixture restores the number
    undisturbed, killed, settings = tmp_path / "undisturbed", tmp_path / "killed", config()
    assert pretrain(settings, table, undisturbed) == 0
    process = start_process(settings, table, killed)
    deadline = time.monotonic() + 120
    while not last_checkpoint(killed) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last_checkpoint(killed) is not None
    refused("has checkpoints; --resume resumes", settings, table, killed)
    assert pretrain(settings, table, killed, "--resume") == 0
    assert same(weights(undisturbed), weights(killed))
    metrics = [line for line in log(killed) if "eval_f1" in line]
    assert [line["step"] for line in metrics] == [3, 6]  # No evaluation is logged twice.
    assert {"eval_masked_lm_loss", "eval_pair_loss", "eval_f1_at_1.5"} <= metrics[0].keys()
    assert logged_steps(killed, "loss") == [1, 2, 3, 4, 5, 6]


def test_a_streamed_table_is_resumed(table, config, tmp_path):
    run = tmp_path / "run"
    command = [config(), table, run, "--stream", "--resume"]
    assert pretrain(*command) == 0
    undisturbed = weights(run)
    for step in (4, 6):
        shutil.rmtree(run / f"checkpoint-{step}")
    assert pretrain(*command) == 0
    assert same(undisturbed, weights(run))


def test_a_finished_run_has_its_settings_and_changes_only_with_more_steps(table, config, tmp_path):
    pytest.importorskip("matplotlib")
    settings, run = config(), tmp_path / "run"
    assert pretrain(settings, table, run, "--steps", 4) == 0
    stored = json.loads((run / "settings.json").read_text())
    assert (stored["training"]["max_steps"], stored["masked"]) == (4, 0.5)
    assert "<svg" in (run / "curves.svg").read_text()
    before = weights(run, 4)
    assert pretrain(settings, table, run, "--steps", 2, "--resume") == 0
    assert same(before, weights(run, 4))
    faster = config(training={**TRAINING, "learning_rate": 0.02})
    assert pretrain(faster, table, run, "--steps", 6, "--resume") == 0
    rates = [line["learning_rate"] for line in log(run) if "loss" in line]
    assert rates[4:] == [0.02, 0.01]  # the learning rates of the new schedule


def test_impossible_requests_are_refused(table, fasta, config, tmp_path, refused):
    run, masked, predicted = tmp_path / "new" / "run", config(masked=1.0), config(predicted=0.5)
    masked_predicted = config(masked=1.0, predicted=0.5)
    eval_fasta = ["--eval-fasta", fasta]
    refused("FASTA has no structures; set masked to 1", config(), fasta, run)
    refused("has no splits; name a file by --eval-fasta", masked, fasta, run)
    refused("family_power is 0.5", config(family_power=0.5), table, run, "--stream")
    refused("tables in memory", predicted, table, run, "--stream", "--predicted", table)
    refused("tables in memory", masked_predicted, fasta, run, *eval_fasta, "--predicted", table)
    refused("predicted is 0.0", config(), table, run, "--predicted", table)
    refused("predicted is 0.5", predicted, table, run)
    refused(
        "none: has no complete checkpoint", config(), table, run, "--start-from", tmp_path / "none"
    )
    run.parent.mkdir()
    with Store(run, Share()):
        refused(f"another process is working on {run}", config(), table, run, "--resume")
    assert not run.exists()
    assert pretrain(config(), table, run, "--steps", 1) == 0
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_a_run_starts_from_the_weights_of_another(table, config, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    # With gradient accumulation a step has batches of both kinds.
    accumulating = config(training={**TRAINING, "gradient_accumulation_steps": 3})
    assert pretrain(accumulating, table, first, "--steps", 2) == 0
    unchanging = config(training={**TRAINING, "learning_rate": 0.0})
    assert pretrain(unchanging, table, second, "--steps", 2, "--start-from", first) == 0
    before, after = (load_average(run / "checkpoint-2").parameters() for run in (first, second))
    torch.testing.assert_close(list(after), list(before))


def test_predicted_structures_are_reproducible_and_trained_on(table, config, tmp_path, capsys):
    pytest.importorskip("RNA")
    outputs = [tmp_path / name for name in ("predicted.tsv.gz", "again.tsv")]
    for output in outputs:
        command = [table, output, "--count", 30, "--max-length", 30, "--processes", 1]
        assert predict_structures.main([*map(str, command)]) == 0
    assert predict_structures.main([str(table), "unwritten.tsv", "--max-length", "3"]) == 1
    assert "no sequence has at most 3 nucleotides" in capsys.readouterr().err
    predicted, again = (list(read_table(path, "train", predicted=True)) for path in outputs)
    assert len(predicted) == 30
    assert {rna.sequence[i] + rna.sequence[j] for rna in predicted for i, j in rna.pairs} <= PAIRS
    assert predicted == again
    assert pretrain(config(predicted=0.5), table, tmp_path / "run", "--predicted", outputs[0]) == 0
    assert logged_steps(tmp_path / "run", "eval_f1") == [3, 6]


def test_two_processes(table, config, tmp_path):
    run = tmp_path / "run"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    assert start_process(config(), table, run, launcher=launcher).wait(timeout=300) == 0
    names = {path.name for path in (run / "checkpoint-6").iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= names
    assert logged_steps(run, "loss") == [1, 2, 3, 4, 5, 6]
