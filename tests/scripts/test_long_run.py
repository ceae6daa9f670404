"""A short version of the long run: kills, two processes, a full disk."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_every_run_ends_in_the_same_output():
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counts the open files of its processes, which needs Linux")
    command = [sys.executable, "-m", "scripts.long_run", "--sequences", "2000", "--kills", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = done.stdout.splitlines()[2:]
    assert len(rows) == 5
    assert all("| the same |" in row for row in rows)
