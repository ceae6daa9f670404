"""The examples of README and docs run, on a small model in place of the released one."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from ernie_rna.cli import main as cli
from tests.conftest import GOLDEN, ROOT
from tests.golden_folder import head_checkpoint, write_golden_folder

MARKS = {
    # Starting Ray and several processes takes a minute.
    "scaling-out": pytest.mark.slow,
    "for-engineers": pytest.mark.slow,
    "attributions": pytest.mark.skipif(find_spec("captum") is None, reason="needs captum"),
}
PAGES = [
    pytest.param(page, marks=MARKS.get(page.stem, ()), id=page.name)
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    # Two have no examples; those of pretraining take hours, tests/pretraining has them smaller; a
    # server would not end, tests/web has one.
    if page.stem not in ("benchmarks", "robustness", "pretraining", "web-page")
]
SCRIPT = re.compile(r"# (\w+\.py)\n")
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LONG = "GGGACUUCGGUCC" * 90
# What is there already, needs the network, or is run by tests of its own.
NOT_HERE = re.compile(r"pip install|make |python scripts/benchmark|ernie-rna push .*NAME$")


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    from ernie_rna.convert.export import convert

    folder = tmp_path_factory.mktemp("docs") / "ERNIE-RNA"
    convert(GOLDEN / "tiny_fairseq_cfg.pt", folder)
    return folder


@pytest.fixture
def folder(converted, tmp_path, monkeypatch) -> Path:
    """The working directory, with all that the examples name."""
    monkeypatch.chdir(tmp_path)
    Path("scripts").symlink_to(ROOT / "scripts")
    Path("ERNIE-RNA_pretrain.pt").symlink_to(GOLDEN / "tiny_fairseq_cfg.pt")
    shutil.copytree(converted, "ERNIE-RNA")
    # The small model stands for mini as well, in this process.
    package = tmp_path / "package"
    package.mkdir()
    (package / "mini").symlink_to(converted)
    (package / "examples").symlink_to(ROOT / "examples")
    monkeypatch.setattr(shipped, "_HERE", package)
    for name, task in FINE_TUNED.items():
        Path(name).mkdir()
        write_golden_folder(Path(name), head_checkpoint(task))
    structure_file = "ERNIE-RNA_attn-map_ss_prediction_bpRNA-1m_checkpoint.pt"
    Path(structure_file).symlink_to(head_checkpoint("secondary_structure"))
    Path("known.tsv").write_text("sequence\tdot_bracket\nGGGGAAAACCCC\t((((....))))\n")
    Path("utrs.tsv").write_text("sequence\tmrl\nGGGGAAAACCCC\t5.1\nAUGCAUGC\t6.2\n")
    fasta = ">hairpin\nGGGGAAAACCCC\n>other\nAUGCAUGCNN\n"
    Path("rna.fasta").write_text(fasta)
    Path("part1.fasta").write_text(fasta)
    Path("part2.fasta").write_text(fasta.replace(">", ">second_"))
    Path("long.fasta").write_text(f">long\n{LONG}\n")
    rows = [f"{rna}\t{split}\t{label}\n" for split in ("train", "test") for rna, label in LABELLED]
    Path("table.tsv").write_text("sequence\tsplit\tfamily\n" + "".join(rows))
    return tmp_path


FINE_TUNED = {"ERNIE-RNA-closeness": "closeness", "ERNIE-RNA-loading": "ribosome_loading"}
LABELLED = [("GGGGAAAACCCC", "hairpin"), ("AUGCAUGC", "other"), ("GGGAAACCC", "hairpin")] * 4


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page, folder):
    namespace: dict = {}
    ran = 0
    for language, code in BLOCK.findall(page.read_text()):
        script = SCRIPT.match(code)
        if script:
            Path(script[1]).write_text(code)
        elif language == "python":
            exec(compile(code, str(page), "exec"), namespace)
            ran += 1
        else:
            ran += sum(run_command(line) for line in code.replace("\\\n", " ").splitlines())
    assert ran


def run_command(line: str) -> bool:
    """Run a line of a shell block; False if it is left out."""
    if NOT_HERE.match(line):
        return False
    words = shlex.split(line, comments=True)
    if words[0] == "ernie-rna":
        assert cli.main(remake(words[1:])) == 0, line
    else:
        here = Path(sys.executable).parent
        program = sys.executable if words[0] == "python" else here / words[0]
        path = f"{here}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [program, *remake(words[1:])],
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    return True


def remake(words: list[str]) -> list[str]:
    """A line as it runs here: converting over the folder that the other examples use needs --force,
    and the RNA that the small model is too small for --long full."""
    if "examples/RNase-P.fasta" in words:
        return [*words, "--long", "full"]
    return [*words, "--force"] if words[-2:] == ["ERNIE-RNA_pretrain.pt", "ERNIE-RNA"] else words
