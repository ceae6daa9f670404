"""The same numbers elsewhere: settings in processes of their own, errors, bounds and the table."""

import pytest
import torch

from scripts import measure_portability
from scripts.measure_portability import REFERENCE, SETTINGS, Setting, can_run, errors, main


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


def test_errors_are_those_of_real_tokens():
    assert errors(values(0.5, 0.25), values(0.0, 0.0)) == [0.5, 0.25]
    found = values(0.5, 0.25)
    found["sdpa logits"][:] = float("nan")
    assert errors(found, values(0.0, 0.0), ["eager"]) == [0.5, 0.25]
    assert errors(found, values(0.0, 0.0))[1] != errors(found, values(0.0, 0.0))[1]


@pytest.mark.parametrize(
    ("other", "missed"),
    [(values(1.0, 0.5), False), (values(1.0, 0.51), True), (values(float("nan"), 0.5), True)],
)
def test_a_bound_is_twice_the_errors_of_the_reference(monkeypatch, capsys, tmp_path, other, missed):
    computed = {REFERENCE.name: values(0.5, 0.25), "other": other}
    monkeypatch.setattr(measure_portability, "compute", lambda folder, dtype: values(0.0, 0.0))
    monkeypatch.setattr(
        measure_portability, "compute_elsewhere", lambda folders, how: [computed[how.name]]
    )
    assert measure_portability.measure([tmp_path / "tiny"], [Setting("other")]) == missed
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "| setting | tiny: hidden states | tiny: logits | tiny: bits |"
    assert rows[2] == "| bound | 1.0e+00 | 5.0e-01 |  |"
    assert rows[3] == f"| {REFERENCE.name} | 5.0e-01 | 2.5e-01 | same |"
    assert rows[4].startswith("| other |")
    assert rows[4].endswith("| other |")


def test_what_the_processor_lacks_is_left_out(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    left_out = [setting.name for setting in SETTINGS if not can_run(setting)]
    assert left_out == ["ATen avx512", "oneDNN AVX512_CORE", "MKL AVX512", "MKL CBWR AVX512"]


def test_a_small_run(monkeypatch, capsys):
    middle = {"hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 32}
    monkeypatch.setattr(measure_portability, "MIDDLE", middle)
    assert main(["--length", "16", "--settings", REFERENCE.name]) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if REFERENCE.name in line)
    assert row.count("| same |") == 2


def test_a_process_gets_its_setting(monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr(
        measure_portability,
        "run_anew",
        lambda *command, **variables: started.append((command, variables)),
    )
    monkeypatch.setattr(measure_portability, "load_file", lambda path: path)
    setting = Setting("s", threads=3, onednn=False, environment={"MKL_CBWR": "AVX2"})
    found = measure_portability.compute_elsewhere([tmp_path], setting)
    assert found == [tmp_path / "values.safetensors"]
    ((command, variables),) = started
    assert command[1:] == ("--compute", str(tmp_path), "--onednn", "False")
    assert variables == {"OMP_NUM_THREADS": "3", "MKL_CBWR": "AVX2"}
