"""The demo: what it prints, and that a warning fails it."""

import logging
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from ernie_rna.checkpoints import export as export_module
from ernie_rna.checkpoints.export import convert
from ernie_rna.checkpoints.verification import Verification
from scripts import demo

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        unverified = Verification(0, 0.0)
        patch.setattr(export_module, "verify_export", lambda folder, conversion: unverified)
        return convert(demo.CHECKPOINT, tmp_path_factory.mktemp("demo") / "tiny").path


@pytest.fixture(scope="module")
def other_folder(folder, tmp_path_factory) -> Path:
    """A model that the golden values do not belong to."""
    other = tmp_path_factory.mktemp("demo") / "other"
    shutil.copytree(folder, other)
    weights = load_file(other / "model.safetensors")
    weights["lm_head.decoder.bias"] += 0.1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    return other


@pytest.mark.slow
def test_the_demo_runs_as_a_user_runs_it(tmp_path):
    script, out_dir = ROOT / "scripts" / "demo.py", tmp_path / "out"
    command = [sys.executable, str(script), "--out-dir", str(out_dir)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}  # as where the package is installed
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    steps = ("Convert", "Load", "Embed", "Fill a mask", "Compare")
    places = [done.stdout.index(f"=== {step}: ") for step in steps]
    assert places == sorted(places)
    # Not the installed code: what stands in the folder.
    assert "ErnieRnaForMaskedLM    from transformers_modules" in done.stdout
    assert "no warnings" in done.stdout
    assert "missed" not in done.stdout
    assert (out_dir / "model.safetensors").is_file()


def test_the_steps_follow_each_other(folder, monkeypatch, capsys):
    monkeypatch.setattr(demo, "convert", lambda checkpoint, out_dir: None)
    assert demo.main(["--out-dir", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "parameters, torch.float32, no warnings" in printed
    assert "last_hidden_state (4, 126, 48), vectors (4, 48)" in printed
    assert "trna_arg  arginine tRNA        75     1.000" in printed
    assert "Bars: 2e-06 eager, 5e-06 sdpa, 1e-05 biases." in printed


def test_the_five_likeliest_tokens_are_shown(folder, capsys):
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    masked_lm = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)
    demo.fill_mask(tokenizer, masked_lm)
    lines = capsys.readouterr().out.splitlines()
    shares = [float(line.split()[1].rstrip("%")) for line in lines]
    assert len(lines) == 5
    assert shares == sorted(shares, reverse=True)
    logits = masked_lm(**tokenizer(demo.MASKED, return_tensors="pt")).logits
    assert lines[0].split()[0] == tokenizer.convert_ids_to_tokens([logits[0, 4].argmax()])[0]


def test_vectors_are_means_over_nucleotides_alone(folder, capsys):
    """Padding and special tokens would show in the similarity of a sequence alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    demo.embed(tokenizer, model)
    shown = capsys.readouterr().out.splitlines()[-4:]
    means = [
        model(**tokenizer(rna, return_tensors="pt")).last_hidden_state[0, 1:-1].mean(dim=0)
        for rna in demo.read_rnas().values()
    ]
    expected = torch.nn.functional.cosine_similarity(means[0], means[1], dim=0)
    assert float(shown[0].split()[-3]) == pytest.approx(expected.item(), abs=2e-3)


def test_another_checkpoint_gets_its_rounding_and_a_way_on(other_folder, capsys):
    assert demo.compare(other_folder)
    printed = capsys.readouterr().out
    assert "from float64" in printed
    assert "authors'" not in printed.split("The golden values")[0]
    assert f"verify_parity.py {other_folder} --cls-embedding" in printed


def test_a_warning_while_loading_fails_the_demo(folder, tmp_path, monkeypatch, capsys):
    noisy = tmp_path / "noisy"
    shutil.copytree(folder, noisy)
    weights = load_file(noisy / "model.safetensors")
    del weights["lm_head.dense.bias"]
    save_file(weights, noisy / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr(demo, "convert", lambda checkpoint, out_dir: None)
    assert demo.main(["--out-dir", str(noisy)]) == 1
    error = capsys.readouterr().err
    assert "loading was not silent" in error
    assert "lm_head.dense.bias" in error


@pytest.mark.parametrize(
    "speak",
    [
        lambda: warnings.warn("hear me", UserWarning, stacklevel=1),
        lambda: logging.getLogger("transformers.modeling_utils").warning("hear me"),
        lambda: print("hear me", file=sys.stderr),
    ],
)
def test_whatever_is_said_is_heard(speak):
    with demo.heard() as said:
        speak()
    assert any("hear me" in line for line in said)


def test_progress_bars_are_no_warnings():
    with demo.heard() as said:
        print("\rLoading weights:  50%|#####     | 1/2 [00:00<00:00]", file=sys.stderr)
    assert said == []


def test_a_checkpoint_that_is_none_fails_the_demo(tmp_path, capfd):
    (tmp_path / "none.pt").write_text("no checkpoint")
    out_dir = tmp_path / "out"
    assert demo.main([str(tmp_path / "none.pt"), "--out-dir", str(out_dir)]) == 1
    assert "the checkpoint was not converted" in capfd.readouterr().err
    assert not out_dir.exists()
