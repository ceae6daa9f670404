"""The README and the pages run as they are written: in one folder, one after the other.

Small models stand for the authors' files, which cannot be had here.
"""

import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from safetensors.torch import save_file

from ernie_rna.cli import main as cli
from ernie_rna.conversion.checkpoint import read_checkpoint
from ernie_rna.conversion.weights import convert_weights
from tests.conftest import GOLDEN, ROOT
from tests.conversion.test_weights import theirs
from tests.golden_folder import head_checkpoint, write_golden_folder

DOCS = ROOT / "docs"
# In the order in which the README names them. Without examples, or with commands of hours, or a
# server that would not end: benchmarks, robustness and the web page.
PAGES = [ROOT / "README.md", *(DOCS / f"{name}.md" for name in ("for-biologists", "guide"))]
MORE = [DOCS / f"{name}.md" for name in ("structures", "heads")]
# Several processes and Ray take minutes.
SLOW = [DOCS / f"{name}.md" for name in ("for-engineers", "scaling")]
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SCRIPT = re.compile(r"# (\w+\.py)\n")
# What is there already, needs the network, or is run by tests of its own.
NOT_HERE = re.compile(r"pip install|make |python -m scripts|ernie-rna push .*NAME$|ernie-rna serve")
# A block of code with one of these words runs where the package is installed.
OPTIONAL = {"captum": "captum", "onnxruntime": "onnxruntime", "on_ray": "ray"}
# A folder of each of the authors' fine-tuned models, by its name in the pages.
FINE_TUNED = {"ERNIE-RNA-closeness": "closeness", "ERNIE-RNA-loading": "ribosome_loading"}
SS_FILE = "ERNIE-RNA_attn-map_ss_prediction_bpRNA-1m_checkpoint.pt"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory, with the authors' files, and a folder in place of one on the Hub."""
    monkeypatch.chdir(tmp_path)
    Path("multimolecule/ernierna").mkdir(parents=True)
    weights = theirs(convert_weights(read_checkpoint(GOLDEN / "tiny_fairseq_cfg.pt")))
    save_file(weights, "multimolecule/ernierna/model.safetensors")
    Path(SS_FILE).symlink_to(head_checkpoint("secondary_structure"))
    for name, task in FINE_TUNED.items():
        Path(name).mkdir()
        write_golden_folder(Path(name), head_checkpoint(task))
    return tmp_path


def test_readme_and_pages_run_in_one_folder(folder):
    for page in [*PAGES, *MORE]:
        run_page(page)


@pytest.mark.slow
def test_pages_on_processes_and_machines_run(folder):
    for page in [PAGES[0], *SLOW]:
        run_page(page)
    assert Path("run/checkpoint-6/rng_state_1.pth").is_file()  # from the second process


def run_page(page: Path) -> None:
    namespace: dict = {}
    ran = 0
    for language, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        script = SCRIPT.match(code)
        if script:
            Path(script[1]).write_text(code, encoding="utf-8")
        elif language == "python":
            if all(find_spec(name) for word, name in OPTIONAL.items() if word in code):
                exec(compile(code, str(page), "exec"), namespace)
            ran += 1
        else:
            ran += sum(run_line(line) for line in code.replace("\\\n", " ").splitlines())
    assert ran, page


def run_line(line: str) -> bool:
    """Run a line of a shell block; False if it is left out."""
    if NOT_HERE.match(line):
        return False
    words = shlex.split(line, comments=True)
    if words[0] == "ernie-rna":
        assert cli.main(words[1:]) == 0, line
        return True
    here = Path(sys.executable).parent
    path = f"{here}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable if words[0] == "python" else here / words[0], *words[1:]],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return True


def test_pages_are_linked_and_links_lead_somewhere():
    pages = [ROOT / "README.md", *DOCS.glob("*.md")]
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    linked = set()
    for page, text in texts.items():
        assert "python scripts/" not in text, page  # would not find what else is in the checkout
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
                linked.add((page.parent / target).resolve())
    assert set(texts) - linked <= {ROOT / "README.md"}
    assert len(list(DOCS.glob("*.md"))) == 9
    assert len(texts[ROOT / "README.md"].splitlines()) <= 180


def with_examples():
    """Modules whose docstrings have examples."""
    for path in (*ROOT.glob("*_ernie_rna.py"), *(ROOT / "ernie_rna").rglob("*.py")):
        if ">>>" in path.read_text(encoding="utf-8"):
            place = path.relative_to(ROOT).with_suffix("")
            yield ".".join(("ernie_rna.model" * (place.parent == Path()), *place.parts)).strip(".")


@pytest.mark.parametrize("module", sorted(with_examples()))
def test_examples_of_docstrings(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0
