"""The code of the README and the pages runs, in one folder and in the order of the pages.

Small models replace the authors' files, which the tests cannot download.
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
# The order is that of the README. Pages without code are left out, and so are pages whose commands
# take hours or start a server: benchmarks, robustness and the web page.
PAGES = [ROOT / "README.md", *(DOCS / f"{name}.md" for name in ("for-biologists", "guide"))]
MORE = [DOCS / f"{name}.md" for name in ("structures", "heads")]
# Several processes and Ray take minutes.
SLOW = [DOCS / f"{name}.md" for name in ("for-engineers", "scaling")]
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SCRIPT = re.compile(r"# (\w+\.py)\n")
# Commands that install something, need the network, or have their own tests.
SKIPPED = re.compile(r"pip install|make |python -m scripts|ernie-rna push .*NAME$|ernie-rna serve")
# A block of code that contains one of these words runs if that package is installed.
OPTIONAL = {"captum": "captum", "onnxruntime": "onnxruntime", "on_ray": "ray"}
# The task of each fine-tuned model, by the name of its folder in the pages.
FINE_TUNED = {"ERNIE-RNA-closeness": "closeness", "ERNIE-RNA-loading": "ribosome_loading"}
SS_FILE = "ERNIE-RNA_attn-map_ss_prediction_bpRNA-1m_checkpoint.pt"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory, with models, a checkpoint, and a folder instead of one on the Hub."""
    monkeypatch.chdir(tmp_path)
    Path("multimolecule/ernierna").mkdir(parents=True)
    weights = theirs(convert_weights(read_checkpoint(GOLDEN / "tiny_fairseq_cfg.pt")))
    save_file(weights, "multimolecule/ernierna/model.safetensors")
    Path(SS_FILE).symlink_to(head_checkpoint("secondary_structure"))
    for name, task in FINE_TUNED.items():
        Path(name).mkdir()
        write_golden_folder(Path(name), head_checkpoint(task))
    return tmp_path


def test_the_code_of_the_readme_and_the_pages_runs(folder):
    for page in [*PAGES, *MORE]:
        run_page(page)


@pytest.mark.slow
def test_the_code_of_pages_with_several_processes_runs(folder):
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
    """Run a line of a shell block. Returns False if the line is skipped."""
    if SKIPPED.match(line):
        return False
    words = shlex.split(line, comments=True)
    if words[0] == "ernie-rna":
        assert cli.main(words[1:]) == 0, line
        return True
    programs = Path(sys.executable).parent
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.run(
        [sys.executable if words[0] == "python" else programs / words[0], *words[1:]],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, f"{line}\n{process.stderr}"
    return True


def test_every_page_is_linked_and_every_link_leads_to_a_file():
    pages = [ROOT / "README.md", *DOCS.glob("*.md")]
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    linked = set()
    for page, text in texts.items():
        assert "python scripts/" not in text, page  # `python -m` finds the packages too.
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
                linked.add((page.parent / target).resolve())
    assert set(texts) - linked <= {ROOT / "README.md"}
    assert len(list(DOCS.glob("*.md"))) == 9
    assert len(texts[ROOT / "README.md"].splitlines()) <= 180


def modules_with_examples():
    """The names of the modules whose docstrings have examples."""
    for path in (*ROOT.glob("*_ernie_rna.py"), *(ROOT / "ernie_rna").rglob("*.py")):
        if ">>>" in path.read_text(encoding="utf-8"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts if parts[1:] else ("ernie_rna", "model", *parts))


@pytest.mark.parametrize("module", sorted(modules_with_examples()))
def test_examples_of_docstrings_are_right(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0
