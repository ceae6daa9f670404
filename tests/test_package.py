"""The package as it is imported, and as it is installed: a wheel, an sdist, an editable install."""

import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import ernie_rna
from ernie_rna import data
from ernie_rna.conversion.folder import code_files
from tests.conftest import ROOT, run_elsewhere


def test_every_name_is_there_and_others_are_not():
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


def test_a_folder_does_not_take_the_name_of_a_function(tmp_path):
    """`ernie_rna.mini` is both; nothing heavy is imported for them."""
    run_elsewhere("-c", NAMES, cwd=tmp_path, path=ROOT)


def test_the_module_is_the_command(tmp_path):
    told = run_elsewhere("-m", "ernie_rna", "--version", cwd=tmp_path, path=ROOT)
    assert told.startswith(f"ernie-rna {ernie_rna.__version__} (torch 2.")


# ---------------------------------------------------------------------------------------------
# Installed

INSTALLED = """
import sys
from pathlib import Path
import transformers
import ernie_rna
from ernie_rna.cli.main import main

place = Path(sys.argv[1])
assert place in Path(ernie_rna.__file__).parents, ernie_rna.__file__
assert place in Path(ernie_rna.ErnieRnaModel.__module__ and sys.modules[
    ernie_rna.ErnieRnaModel.__module__].__file__).parents
model = transformers.AutoModelForMaskedLM.from_pretrained(ernie_rna.mini())
model.save_pretrained("saved")
transformers.AutoTokenizer.from_pretrained(ernie_rna.mini()).save_pretrained("saved")
again = transformers.AutoModelForMaskedLM.from_pretrained("saved", trust_remote_code=True)
assert len(list(Path("saved").glob("*_ernie_rna.py"))) == 9
checkpoint, *_ = sys.argv[2:]
for line in ("examples", "embed examples/rna.fasta -m mini -o out.npz --quiet", "info -m mini",
             f"convert {checkpoint} converted"):
    assert main(line.split()) == 0, line
"""
CHECKPOINT = ROOT / "tests" / "golden" / "tiny_fairseq_cfg.pt"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The sdist, and the wheel that is made of it."""
    out = tmp_path_factory.mktemp("built")
    run_elsewhere("-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return out


@pytest.mark.slow
def test_a_wheel_has_one_name_at_its_top_and_all_it_needs(built):
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
        tops = {Path(name).parts[1] for name in archive.getnames() if len(Path(name).parts) > 1}
    assert {"ernie_rna", "examples", "pyproject.toml", "README.md", "LICENSE"} <= tops
    assert not {"tests", "docs", "recipes"} & tops


PIP = ("-m", "pip", "install", "--no-deps", "-q")


@pytest.mark.slow
def test_a_wheel_works_from_another_folder(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    run_elsewhere(*PIP, "--target", site, wheel, cwd=tmp_path)
    run_elsewhere("-c", INSTALLED, site, CHECKPOINT, cwd=tmp_path, path=site)


@pytest.mark.slow
def test_an_editable_install_works_from_another_folder(tmp_path):
    """In an environment of its own that borrows the packages of this one."""
    run_elsewhere("-m", "venv", "--without-pip", "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "zz_borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run_elsewhere(*PIP, "--no-build-isolation", "-e", ROOT, cwd=tmp_path, python=python)
    run_elsewhere("-c", INSTALLED, ROOT, CHECKPOINT, cwd=tmp_path, python=python)
