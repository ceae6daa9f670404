"""The demo: what it prints, with a small random model in the place of mini."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ernie_rna import data, mutate
from ernie_rna.model.structures_ernie_rna import allowed_pairs
from ernie_rna.structures import fold as fold_module
from ernie_rna.structures.formats.structure import Structure
from scripts import demo
from tests.conftest import ROOT
from tests.golden_folder import write_golden_folder

pytest.importorskip("matplotlib")


@pytest.fixture
def folder(tmp_path):
    """A small model with random weights."""
    (tmp_path / "model").mkdir()
    return str(write_golden_folder(tmp_path / "model"))


@pytest.mark.slow
def test_all_of_it(tmp_path):
    (tmp_path / "mini").mkdir()
    write_golden_folder(tmp_path / "mini")
    code = f"""
import sys
from pathlib import Path
from ernie_rna import data, mutate
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
    assert pictures == {f"{name}-{what}.png" for name in demo.DRAWN for what in ("arcs", "map")}
    assert printed.count("\nknown  ") == 14
    assert printed.count("  F1 0.") + printed.count("  F1 1.") in (14, 28)  # with ViennaRNA's
    assert "\ntRNA-Phe, 73 nt\n" in printed
    assert "known       (((((((..((((........)))).(((((" in printed
    steps = ("Fold", "Draw", "Embed", "Change a stem", "Convert")
    places = [printed.index(f"=== {step}") for step in steps]
    assert places == sorted(places)
    assert " of 8; by chance one in 13 would be" in printed
    assert "the language model" not in printed  # which mini is too small for
    assert "missed" not in printed
    assert "All of it: python -m scripts.verify_parity" in printed


@pytest.mark.parametrize("installed", [True, False])
def test_vienna_is_beside_the_model_where_it_is_installed(monkeypatch, tmp_path, capsys, installed):
    asked, known = [], demo.known_structures()
    monkeypatch.setattr(demo, "predict", lambda model, output, *prior: asked.append(prior) or known)
    monkeypatch.setattr(demo, "mfe_structure", lambda sequence, id: Structure(id, sequence, []))
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: installed or None)
    (tmp_path / "config.json").write_text('{"pair_prior": [0.4, 0.75]}')
    demo.fold(str(tmp_path), tmp_path)
    printed = capsys.readouterr().out
    assert asked == ([(), ("--prior", "vienna")] if installed else [()])
    assert printed.count("\nwith prior  ") == printed.count("\nMFE  ") == 15 * installed
    assert printed.count("F1 1.00") == 15 + 15 * installed
    assert ("MFE         mean F1 0.000" in printed) is installed
    assert ('pip install "ernie-rna[vienna]"' in printed) is not installed


def test_a_checkpoint_is_asked_as_a_language_model(folder, capsys):
    demo.ask_the_language_model(folder)
    printed = capsys.readouterr().out
    assert printed.index("=== The same changes") < printed.index("=== Fill a mask")
    assert printed.count("%  ") == 4
    assert printed.count("\nmean ") == 1


def test_without_mini_it_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(data, "_HERE", tmp_path)
    assert demo.main(["--out-dir", str(tmp_path / "out")]) == 1
    assert "'mini' is not in this installation" in capsys.readouterr().err


def test_a_command_that_fails_ends_it(capsys):
    with pytest.raises(ValueError, match="`ernie-rna fold` did not succeed"):
        demo.command("fold", Path("nosuch.fasta"), "-m", "nosuch")
    assert "$ ernie-rna fold nosuch.fasta -m nosuch --force" in capsys.readouterr().out


def test_pairs_are_scored_by_one_base_at_a_time(model):
    """Against the same by hand, of C-G broken to G-G or C-C first."""
    texts = {"as-it-is": "GACGGAAACGUC", "2-left": "GAGGGAAACGUC", "2-right": "GACGGAAACCUC"}
    scores = {one.id: one for one in mutate(texts, model)}
    broken, made_up = demo.score_pair(scores, texts["as-it-is"], 2, 9)

    def log_odds(id, position, letter):
        values = dict(zip("ACGU", scores[id].log_probabilities[position], strict=True))
        return values[letter] - values[texts[id][position]]

    first = log_odds("as-it-is", 2, "G") + log_odds("as-it-is", 9, "C")
    assert broken == pytest.approx(first / 2)
    both = log_odds("2-left", 9, "C") + log_odds("2-right", 2, "G")
    assert made_up == pytest.approx((first + both) / 2)


def test_a_stem_is_seen_by_the_probabilities_of_its_pairs(monkeypatch):
    """As it is 0.5 each; a broken pair, and what makes up for it, by what is handed to fold."""
    rna = demo.known_structures()[demo.CHANGED]
    assert rna.pairs[demo.STEM] == [(26, 51), (27, 50), (28, 49), (29, 48), (30, 47)]
    folded = {}

    def fold(sequences, model, matrix, progress):
        folded.update(sequences)
        for id, text in sequences.items():
            allowed = allowed_pairs([text])[0].numpy()
            yield fold_module.Fold(Structure(id, text, []), np.where(allowed, 0.5, 0.0))

    monkeypatch.setattr(fold_module, "fold", fold)
    rows = demo.fold_changes("model", rna)
    assert rows == [pytest.approx((0.5, 0.4, 0.5))] * 5
    assert folded["26-both"][26] + folded["26-both"][51] == "GC"


def test_a_stem_is_folded_with_its_changes(folder):
    rna = Structure("stem", "GC" * 10 + "A" + "GC" * 10, [(i, 40 - i) for i in range(20)])
    rows = demo.fold_changes(folder, rna)
    assert len(rows) == len(rna.pairs[demo.STEM]) == 5
    assert len({row[0] for row in rows}) == 1  # as it is, each time
    assert all(0 <= value <= 1 for row in rows for value in row)
