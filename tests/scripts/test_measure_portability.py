"""Portability: a process for each setting, the errors, their bounds and the table."""

from unittest import mock

import numpy as np
import pytest
import torch

from scripts import measure_portability
from scripts.measure_portability import REFERENCE, SETTINGS, can_run, errors, main


def values(hidden: float, logits: float) -> list[list[np.ndarray]]:
    """The outputs of one model with two attentions, which are equal."""
    return [[np.full((2, 1, 3, 4), hidden), np.full((1, 3, 5), logits)] * 2]


def test_errors_by_attention_model_and_output():
    assert errors(values(0.5, 0.25), values(0.0, 0.0)).tolist() == [[[0.5, 0.25]] * 2]
    with_nan = values(0.5, 0.25)
    with_nan[0][3] = with_nan[0][3] * np.nan
    np.testing.assert_equal(errors(with_nan, values(0, 0)), [[[0.5, 0.25], [0.5, np.nan]]])


@pytest.mark.parametrize(
    ("other", "missed"),
    [(values(1.0, 0.5), False), (values(1.0, 0.51), True), (values(float("nan"), 0.5), True)],
)
def test_a_bound_is_twice_the_errors_of_the_reference(monkeypatch, capsys, tmp_path, other, missed):
    computed = {REFERENCE: values(0.5, 0.25), "other": other}
    monkeypatch.setattr(measure_portability, "compute", lambda models, dtype: values(0.0, 0.0))
    monkeypatch.setattr(
        measure_portability, "run_anew", lambda *args, **variables: computed[variables["NAME"]]
    )
    settings = {name: {"NAME": name} for name in computed}
    assert measure_portability.measure({tmp_path / "tiny": []}, settings) == missed
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "| setting | tiny: hidden states | tiny: logits | tiny: bits |"
    assert rows[2] == "| bound | 1.0e+00 | 5.0e-01 |  |"
    assert rows[3] == f"| {REFERENCE} | 5.0e-01 | 2.5e-01 | same |"
    assert rows[4].startswith("| other |")
    assert rows[4].endswith("| other |")


def test_settings_that_the_processor_lacks_are_left_out(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    left_out = [name for name in SETTINGS if not can_run(name)]
    assert left_out == ["ATen avx512", "oneDNN AVX512_CORE", "MKL AVX512", "MKL CBWR AVX512"]


def test_a_small_run(monkeypatch, capsys):
    """Each setting reaches its process; here this process stands in for all."""
    middle = {"hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 32}
    monkeypatch.setattr(measure_portability, "MIDDLE", middle)
    monkeypatch.setattr(measure_portability, "LONGEST", 16)
    monkeypatch.setattr(measure_portability.layers_ernie_rna, "_ONEDNN_DTYPES", (torch.float16,))
    started = []

    def run_anew(function, *args, **variables):
        with mock.patch.dict("os.environ", variables):
            values = function(*args)
        started.append((args[1:], variables, measure_portability.layers_ernie_rna._ONEDNN_DTYPES))
        return values

    monkeypatch.setattr(measure_portability, "run_anew", run_anew)
    assert main(["--settings", "1 thread, no oneDNN"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [row.count("| same |") for row in table[-2:]] == [2, 2]
    assert started == [
        ((torch.float32,), {"OMP_NUM_THREADS": "2"}, (torch.float16,)),
        ((torch.float32,), {"OMP_NUM_THREADS": "1", "ONEDNN": "0"}, ()),
    ]
