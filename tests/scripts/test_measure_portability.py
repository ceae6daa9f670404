"""The same numbers elsewhere: settings in processes of their own, errors, bounds and the table."""

import subprocess

import pytest
import torch

from scripts import measure_portability
from scripts.measure_portability import (
    REFERENCE,
    SETTINGS,
    Setting,
    Table,
    can_run,
    compute_elsewhere,
    main,
)


def values(hidden: float, logits: float) -> dict[str, torch.Tensor]:
    """One sequence of two tokens and one of padding; both attentions give the same."""
    mask = torch.tensor([[1, 1, 0]])
    found = {"mask": mask}
    for attention in ("eager", "sdpa"):
        states = torch.full((1, 2, 3, 4), hidden)
        states[:, :, 2] = 99 * hidden  # at padding, which does not count
        found[f"{attention} hidden states"] = states
        found[f"{attention} logits"] = torch.full((1, 1, 3, 5), logits)
    return found


def test_a_bound_is_twice_the_errors_of_the_reference():
    table = Table("tiny", values(0.0, 0.0), values(0.5, 0.25))
    assert table.bounds == pytest.approx({"hidden states": 1.000001, "logits": 0.500001})
    table.add(REFERENCE, values(0.5, 0.25))
    table.add(Setting("other"), values(1.0, 0.5))
    assert table.same == {REFERENCE.name: True, "other": False}
    assert not table.missed
    assert "| other | 1.0e+00 | 5.0e-01 | no |" in table.text()
    table.add(Setting("worse"), values(1.0, 0.51))
    assert table.missed
    table.add(Setting("worse"), values(float("nan"), 0.5))
    assert table.missed


def test_what_the_processor_lacks_is_left_out(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    left_out = [setting.name for setting in SETTINGS if not can_run(setting)]
    assert left_out == ["ATen avx512", "oneDNN AVX512_CORE", "MKL AVX512", "MKL CBWR AVX512"]


def test_a_small_run(monkeypatch, capsys):
    middle = {"hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 32}
    monkeypatch.setattr(measure_portability, "MIDDLE", middle)
    assert main(["--length", "16", "--settings", REFERENCE.name]) == 0
    shown = capsys.readouterr().out
    assert shown.count(f"| {REFERENCE.name} |") == 2
    assert shown.count("| yes |") == 2


def test_a_process_gets_its_setting(monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr(
        subprocess, "run", lambda command, env, check: started.append((command, env))
    )
    monkeypatch.setattr(measure_portability, "load_file", lambda path: path)
    setting = Setting("s", threads=3, onednn=False, environment={"MKL_CBWR": "AVX2"})
    assert compute_elsewhere([tmp_path], setting) == [tmp_path / "values.safetensors"]
    ((command, environment),) = started
    assert command[-3:] == ["3", "--onednn", "False"]
    assert (environment["MKL_CBWR"], environment["OMP_NUM_THREADS"]) == ("AVX2", "3")
