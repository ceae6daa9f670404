"""The script that makes mini runs commands that exist, with valid arguments."""

import importlib
import os
import shutil
import subprocess

import pytest

from recipes.pretraining.settings import CONFIGS
from tests.conftest import ROOT


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_every_step_is_a_valid_command(tmp_path):
    for name in ("python", "torchrun"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$@" >> {tmp_path / "log"}\n')
        (tmp_path / name).chmod(0o755)
    paths = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = ROOT / "recipes" / "pretraining" / "make_mini.sh"
    command = ["bash", script, "rfam.tsv.gz", "ts0.tsv", tmp_path / "runs"]
    subprocess.run(command, env=paths, check=True)
    steps = []
    for line in (tmp_path / "log").read_text().splitlines():
        module, *words = line[line.index("-m ") + 3 :].split()
        args = importlib.import_module(module).build_parser().parse_args(words)
        steps.append(getattr(args, "config", module))
    assert [step for step in steps if step in CONFIGS] == ["mini", "mini-2", "mini-3", "mini-4"]
    assert len(steps) == 8
