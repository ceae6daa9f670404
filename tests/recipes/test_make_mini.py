"""How mini was made: each step of the script is a command that there is."""

import json
import os
import shutil
import subprocess

import pytest

from recipes.pretraining import export, predict_structures, train
from recipes.pretraining.settings import CONFIGS
from scripts import calibrate_pairs, near_duplicates
from tests.conftest import ROOT

SCRIPT = ROOT / "recipes" / "pretraining" / "make_mini.sh"
MODULES = {
    **{f"recipes.pretraining.{one.__name__.split('.')[-1]}": one for one in (train, export)},
    "recipes.pretraining.predict_structures": predict_structures,
    "scripts.near_duplicates": near_duplicates,
    "scripts.calibrate_pairs": calibrate_pairs,
}
STUB = """#!/usr/bin/env python3
import json, sys
with open({log!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_every_step_is_a_command(tmp_path):
    log = tmp_path / "log"
    for name in ("python", "torchrun"):
        (tmp_path / name).write_text(STUB.format(log=str(log)))
        (tmp_path / name).chmod(0o755)
    paths = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", str(SCRIPT), "rfam.tsv.gz", "ts0.tsv", str(tmp_path / "runs")]
    subprocess.run(command, env=paths, check=True)
    steps = []
    for words in map(json.loads, log.read_text().splitlines()):
        at = next(number for number, word in enumerate(words) if word in MODULES)
        args = MODULES[words[at]].build_parser().parse_args(words[at + 1 :])
        steps.append(getattr(args, "config", words[at].split(".")[-1]))
    trainings = [step for step in steps if step in CONFIGS]
    assert trainings == ["mini", "mini-2", "mini-3", "mini-4"]
    assert len(steps) == 8
