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
from ernie_rna.sequences.fasta import read_fasta
from recipes.pretraining import predict_structures
from recipes.pretraining.rnas import read_table
from recipes.pretraining.weights import last_checkpoint, load_average
from tests.conftest import ROOT
from tests.recipes.conftest import HEADER, PAIRS, TRAINING, log, pretrain


def weights(run, step=6):
    folder = run / f"checkpoint-{step}"
    return {
        f"{name}/{key}": value
        for name in ("model", "average")
        for key, value in load_file(folder / f"{name}.safetensors").items()
    }


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def start(*arguments, launcher=()):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, "-m", "recipes.pretraining.train", *arguments, "--cpu"]
    return subprocess.Popen(list(map(str, command)), env=environment)


def test_a_killed_run_is_resumed_exactly(table, config, tmp_path, capsys):
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
    assert pretrain(settings, table, killed) == 1
    assert "has checkpoints; --resume resumes" in capsys.readouterr().err
    assert pretrain(settings, table, killed, "--resume") == 0
    assert same(weights(whole), weights(killed))
    metrics = [line for line in log(killed) if "eval_f1" in line]
    assert [line["step"] for line in metrics] == [3, 6]  # once each
    assert {"eval_masked_lm_loss", "eval_pair_loss", "eval_f1_at_1.5"} <= metrics[0].keys()
    assert [line["step"] for line in log(killed) if "loss" in line] == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_is_left_alone(table, config, tmp_path):
    settings, run = config(), tmp_path / "run"
    assert pretrain(settings, table, run, "--steps", 4) == 0
    before = weights(run, 4)
    assert pretrain(settings, table, run, "--steps", 2, "--resume") == 0
    assert same(before, weights(run, 4))
    assert pretrain(settings, table, run, "--steps", 6, "--resume") == 0
    rates = [line["learning_rate"] for line in log(run) if "loss" in line]
    assert rates[4:] == [0.01, 0.005]  # of the longer schedule, from its first step on


def test_curves(table, config, tmp_path):
    pytest.importorskip("matplotlib")
    assert pretrain(config(), table, tmp_path / "run", "--steps", 3) == 0
    assert "<svg" in (tmp_path / "run" / "curves.svg").read_text()


def test_batches_may_accumulate(table, config, tmp_path):
    """A step may have batches of both kinds."""
    settings = config(training={**TRAINING, "gradient_accumulation_steps": 3})
    assert pretrain(settings, table, tmp_path / "run", "--steps", 2) == 0


class TestStream:
    def test_fasta(self, fasta, config, tmp_path, capsys):
        run = tmp_path / "run"
        assert pretrain(config(), fasta, run) == 1
        assert "FASTA has no structures; set masked to 1" in capsys.readouterr().err
        assert pretrain(config(masked=1.0), fasta, run) == 1
        assert "--eval-fasta" in capsys.readouterr().err
        assert pretrain(config(masked=1.0), fasta, run, "--eval-fasta", fasta) == 0
        names = {name for line in log(run) for name in line}
        assert "eval_masked_lm_loss" in names
        assert "eval_f1" not in names
        (tmp_path / "ids").write_text(" ".join(record.id for record in read_fasta(fasta)))
        command = [config(masked=1.0), fasta, tmp_path / "none", "--eval-fasta", fasta]
        assert pretrain(*command, "--leave-out", tmp_path / "ids") == 1
        assert "there is no sequence to train on" in capsys.readouterr().err

    def test_table_is_resumed(self, table, config, tmp_path):
        run = tmp_path / "run"
        command = [config(), table, run, "--stream", "--resume"]
        assert pretrain(*command) == 0
        whole = weights(run)
        for step in (4, 6):
            shutil.rmtree(run / f"checkpoint-{step}")
        assert pretrain(*command) == 0
        assert same(whole, weights(run))

    def test_what_it_cannot_do_is_said(self, table, config, tmp_path, capsys):
        command = [table, tmp_path / "run", "--stream"]
        assert pretrain(config(family_power=0.5), *command) == 1
        assert "family_power is 0.5" in capsys.readouterr().err
        assert pretrain(config(predicted=0.5), *command, "--predicted", table) == 1
        assert "tables in memory" in capsys.readouterr().err


def test_from_another_run(table, config, tmp_path, capsys):
    first, after = tmp_path / "first", tmp_path / "after"
    assert pretrain(config(), table, first, "--steps", 2) == 0
    still = config(training={**TRAINING, "learning_rate": 0.0})
    assert pretrain(still, table, after, "--steps", 2, "--start-from", first) == 0
    models = [load_average(run / "checkpoint-2") for run in (first, after)]
    for before, now in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(now, before)
    assert pretrain(config(), table, tmp_path / "x", "--start-from", tmp_path / "none") == 1
    assert "none: has no whole checkpoint" in capsys.readouterr().err


def test_predicted_structures(table, config, tmp_path, capsys):
    """Made, trained on beside the known ones, and neither forgotten nor taken by mistake."""
    pytest.importorskip("RNA")

    def predict(output):
        command = [table, output, "--count", 30, "--max-length", 30, "--processes", 1]
        assert predict_structures.main([*map(str, command)]) == 0
        return list(read_table(output, "train", predicted=True))

    made = tmp_path / "predicted.tsv.gz"
    predicted = predict(made)
    assert len(predicted) == 30
    assert all(
        rna.sequence[i] + rna.sequence[j] in PAIRS for rna in predicted for i, j in rna.pairs
    )
    assert predict(tmp_path / "again.tsv") == predicted

    run = tmp_path / "run"
    assert pretrain(config(), table, run, "--predicted", made) == 1
    assert "predicted is 0.0" in capsys.readouterr().err
    half = config(predicted=0.5)
    assert pretrain(half, table, run) == 1
    assert "predicted is 0.5" in capsys.readouterr().err
    assert pretrain(half, table, run, "--predicted", made) == 0
    assert any("eval_f1" in line for line in log(run))


def test_validation_data_without_pairs(tmp_path, config, capsys):
    table = tmp_path / "table.tsv"
    rows = ["a\tGGGAAACCC\t(((...)))\tF\ttrain", "b\tGGGAAAGGG\t.........\tF\tvalidation"]
    table.write_text("\n".join([HEADER, *rows]) + "\n")
    assert pretrain(config(), table, tmp_path / "run") == 1
    said = capsys.readouterr().err
    assert "the validation data: no sequence has pairs and at most 40 nucleotides" in said


def test_two_processes(table, config, tmp_path):
    run = tmp_path / "run"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    assert start(config(), table, run, launcher=launcher).wait(timeout=300) == 0
    names = {path.name for path in (run / "checkpoint-6").iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= names
    assert [line["step"] for line in log(run) if "loss" in line] == [1, 2, 3, 4, 5, 6]


def test_the_settings_of_a_run_are_kept(table, config, tmp_path):
    assert pretrain(config(), table, tmp_path / "run", "--steps", 1) == 0
    kept = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert kept["training"]["max_steps"] == 1
    assert kept["masked"] == 0.5


def test_two_trainings_into_one_folder_are_refused(table, config, tmp_path, capsys):
    run = tmp_path / "new" / "run"
    run.parent.mkdir()
    with Store(run, Share()):
        command = [config(), table, run, "--steps", 1, "--resume"]
        assert pretrain(*command) == 1
    assert f"another process is working on {run}" in capsys.readouterr().err
    assert not run.exists()
    assert pretrain(*command) == 0
    assert [path.name for path in run.parent.iterdir()] == ["run"]
