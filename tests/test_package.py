"""The package: its public names, and its installation from a wheel, an sdist or in place."""

import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import ernie_rna
from ernie_rna import data
from ernie_rna.conversion.folder import code_files
from tests.conftest import ROOT, run_elsewhere


def test_every_public_name_exists_and_no_other():
    assert [getattr(ernie_rna, name).__name__ for name in ernie_rna.__all__] == ernie_rna.__all__
    with pytest.raises(AttributeError, match="module 'ernie_rna' has no attribute 'convrt'"):
        ernie_rna.convrt  # noqa: B018
    assert {*ernie_rna.__all__, "__version__"} == {*dir(ernie_rna)}


NAMES = """
import importlib, sys
import ernie_rna
for name in ("ernie_rna.conversion.folder", "ernie_rna.mini"):
    importlib.import_module(name)
assert not {"torch", "transformers", "numpy"} & set(sys.modules)
from ernie_rna import convert, mini
assert callable(convert) and callable(ernie_rna.convert) and callable(mini) and mini().is_dir()
import transformers
assert "torch" not in sys.modules or "ernie_rna.model.modeling_ernie_rna" not in sys.modules
config = transformers.AutoConfig.from_pretrained(mini())
assert type(config) is ernie_rna.ErnieRnaConfig
"""


def test_a_function_and_a_subpackage_may_have_the_same_name(tmp_path):
    """`ernie_rna.mini` and `ernie_rna.convert` stay functions; they do not import torch."""
    run_elsewhere("-c", NAMES, cwd=tmp_path, path=ROOT)


def test_python_m_ernie_rna_is_the_command(tmp_path):
    output = run_elsewhere("-m", "ernie_rna", "--version", cwd=tmp_path, path=ROOT)
    assert output.startswith(f"ernie-rna {ernie_rna.__version__} (torch 2.")


# ---------------------------------------------------------------------------------------------
# Installed

INSTALLED = """
import sys
from pathlib import Path
import transformers
import ernie_rna
from ernie_rna.cli.main import main

site, checkpoint = sys.argv[1:]
for module in ("ernie_rna", ernie_rna.ErnieRnaModel.__module__):
    assert Path(site) in Path(sys.modules[module].__file__).parents, module
model = transformers.AutoModelForMaskedLM.from_pretrained(ernie_rna.mini())
model.save_pretrained("saved")
transformers.AutoTokenizer.from_pretrained(ernie_rna.mini()).save_pretrained("saved")
again = transformers.AutoModelForMaskedLM.from_pretrained("saved", trust_remote_code=True)
assert len(list(Path("saved").glob("*_ernie_rna.py"))) == 9
for line in ("examples", "embed examples/rna.fasta -m mini -o out.npz --quiet", "info -m mini",
             f"convert {checkpoint} converted"):
    assert main(line.split()) == 0, line
"""
CHECKPOINT = ROOT / "tests" / "golden" / "tiny_fairseq_cfg.pt"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of the sdist and of the wheel that is built from it."""
    out = tmp_path_factory.mktemp("built")
    run_elsewhere("-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return out


@pytest.mark.slow
def test_the_wheel_and_the_sdist_contain_the_right_files(built):
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"ernie_rna-{ernie_rna.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"ernie_rna", info}
    assert {str(file.relative_to(ROOT)) for file in (ROOT / "ernie_rna").rglob("*.py")} <= names
    assert {f"ernie_rna/model/{path.name}" for path in code_files()} <= names
    assert {f"ernie_rna/examples/{name}" for name in data.EXAMPLE_FILES} <= names
    cards = {f"ernie_rna/{folder}/card.md" for folder in ("conversion", "training")}
    assert {"ernie_rna/mini/model.safetensors", *cards} <= names
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        paths = map(Path, archive.getnames())
        top_names = {path.parts[1] for path in paths if len(path.parts) > 1}
    assert {"ernie_rna", "examples", "pyproject.toml", "README.md", "LICENSE"} <= top_names
    assert not {"tests", "docs", "recipes"} & top_names


PIP = ("-m", "pip", "install", "--no-deps", "-q")


@pytest.mark.slow
def test_a_wheel_works_from_another_folder(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    run_elsewhere(*PIP, "--target", site, wheel, cwd=tmp_path)
    run_elsewhere("-c", INSTALLED, site, CHECKPOINT, cwd=tmp_path, path=site)


@pytest.mark.slow
def test_an_editable_install_works_from_another_folder(tmp_path):
    """It is in a new environment, which also finds the packages of this one."""
    run_elsewhere("-m", "venv", "--without-pip", "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "zz_borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run_elsewhere(*PIP, "--no-build-isolation", "-e", ROOT, cwd=tmp_path, python=python)
    run_elsewhere("-c", INSTALLED, ROOT, CHECKPOINT, cwd=tmp_path, python=python)
