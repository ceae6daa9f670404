"""The demo and what it prints, with a small random model instead of mini."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ernie_rna import data
from ernie_rna.data import examples
from ernie_rna.structures.formats.by_extension import read_structures
from scripts import demo
from tests.conftest import ROOT
from tests.golden_folder import write_golden_folder

pytest.importorskip("matplotlib")


@pytest.mark.slow
def test_the_whole_demo(tmp_path):
    (tmp_path / "mini").mkdir()
    write_golden_folder(tmp_path / "mini")
    code = f"""
import sys
from pathlib import Path
from ernie_rna import data
from scripts import demo
examples = data.examples()
data._HERE = Path({str(tmp_path)!r})
demo.examples = lambda: examples
sys.path.insert(0, {str(ROOT)!r})
sys.exit(demo.main(["--out-dir", "out"]))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    printed = done.stdout
    assert done.returncode == 0, done.stderr + printed
    pictures = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert pictures == {f"{name}-{kind}.png" for name in demo.DRAWN for kind in ("arcs", "map")}
    assert printed.count("\nknown  ") == 14
    assert printed.count("  F1 0.") + printed.count("  F1 1.") == 14
    assert "\ntRNA-Phe, 73 nt\n" in printed
    assert "known       (((((((..((((........)))).(((((" in printed
    steps = ("Fold", "Draw", "Embed", "Change", "Convert")
    places = [printed.index(f"=== {step}") for step in steps]
    assert places == sorted(places)
    assert " of 8; by chance one in 13 would be" in printed
    assert "the language model" not in printed  # The demo skips it for mini, which is too small.
    assert "missed" not in printed
    assert "All differences: python -m scripts.verify_parity" in printed


@pytest.mark.parametrize("installed", [True, False])
def test_vienna_is_compared_if_it_is_installed(monkeypatch, tmp_path, capsys, installed):
    commands = []
    monkeypatch.setattr(demo, "command", lambda *words: commands.append([*map(str, words)]))
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: installed or None)
    (tmp_path / "config.json").write_text('{"pair_prior": [0.4, 0.75]}')
    shutil.copy(examples() / "rna.dbn", tmp_path / "rna.dbn")
    demo.fold(str(tmp_path), tmp_path)
    printed = capsys.readouterr().out
    options = ["--with-mfe", "--with-prior", str(tmp_path)] if installed else []
    assert commands[-1][3:-2] == options
    assert printed.count("F1 1.00") == printed.count("\nknown  ") == 14
    assert ('pip install "ernie-rna[vienna]"' in printed) is not installed


def test_changing_a_stem_breaks_and_restores_its_pairs(monkeypatch, capsys):
    structures = {structure.id: structure for structure in read_structures(examples() / "rna.dbn")}
    pairs = structures[demo.CHANGED].pairs

    def fold(sequences, model, **options):
        """Give a pair the probability 1 if its bases are complementary, and otherwise 0."""
        for sequence in sequences:
            complementary = ({*"GC"}, {*"AU"})
            matrix = {(i, j): float({sequence[i], sequence[j]} in complementary) for i, j in pairs}
            yield SimpleNamespace(matrix=matrix)

    monkeypatch.setattr(demo.ernie_rna, "fold", fold)
    demo.change_a_stem("mini")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:] for line in lines[-6:]] == [["1.00", "0.80", "1.00"]] * 6


def test_a_missing_mini_is_an_error(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(data, "_HERE", tmp_path)
    assert demo.main(["--out-dir", str(tmp_path / "out")]) == 1
    assert "'mini' is not in this installation" in capsys.readouterr().err


def test_released_weights_are_asked_as_a_language_model(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo.cli, "main", lambda words: 0)
    for name in ("fold", "embed", "change_a_stem"):
        monkeypatch.setattr(demo, name, lambda *given: None)
    monkeypatch.setattr(demo.verify_parity, "main", lambda words: 3)
    assert demo.main(["a.b.pt", "--out-dir", str(tmp_path)]) == 3
    printed = capsys.readouterr().out
    assert printed.index("$ ernie-rna convert a.b.pt ") < printed.index("--what substitutions")
    assert "a_b " in printed  # transformers 4 loads no code from a folder with a dot


def test_a_command_that_fails_ends_it(capsys):
    with pytest.raises(ValueError, match="`ernie-rna fold` did not succeed"):
        demo.command("fold", Path("nosuch.fasta"), "-m", "nosuch")
    assert "$ ernie-rna fold nosuch.fasta -m nosuch --force" in capsys.readouterr().out
