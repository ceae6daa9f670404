"""Near duplicates; a stand-in replaces CD-HIT if that is not installed."""

import os
import shutil

import pytest

from scripts import near_duplicates
from tests.recipes.conftest import HEADER

# Keeps the training sequences that are not in the test set.
STUB = """#!/usr/bin/env python3
import sys
option = dict(zip(sys.argv[1::2], sys.argv[2::2]))
def read(path):
    lines = open(path).read().split()
    return list(zip(lines[::2], lines[1::2]))
test = {sequence for _, sequence in read(option["-i"])}
kept = [f"{name}\\n{sequence}\\n" for name, sequence in read(option["-i2"]) if sequence not in test]
open(option["-o"], "w").write("".join(kept))
"""


@pytest.fixture
def command(tmp_path):
    sequences = {"a": "ACGUACGUACGU", "b": "GGGGGGCCCCCC", "short": "ACGU", "c": "acguACGUACGT"}
    rows = [f"{name}\t{sequence}\t\tF\ttrain" for name, sequence in sequences.items()]
    (tmp_path / "train.tsv").write_text("\n".join([HEADER, *rows, "d\tACGUACGUACGU\t\tF\ttest"]))
    (tmp_path / "test.fasta").write_text(">x\nACGTACGTACGT\n>y\nACGU\n")
    files = [str(tmp_path / name) for name in ("train.tsv", "test.fasta", "out.txt")]
    return [*files[:2], "-o", files[2]]


def test_ids_of_near_duplicates(command, tmp_path, monkeypatch, capsys):
    if shutil.which("cd-hit-est-2d") is None:
        (tmp_path / "cd-hit-est-2d").write_text(STUB)
        (tmp_path / "cd-hit-est-2d").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert near_duplicates.main(command) == 0
    assert (tmp_path / "out.txt").read_text() == "a\nc\n"
    assert "2 of 4 are 80% identical to one of 2" in capsys.readouterr().out


def test_a_missing_cd_hit_is_an_error(command, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert near_duplicates.main(command) == 1
    assert "CD-HIT is not installed" in capsys.readouterr().err
