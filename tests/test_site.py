"""The notebook runs and shows pictures, the site is complete, and the citation is consistent."""

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest

import ernie_rna
from tests.conftest import ROOT

DOCS = ROOT / "docs"


@pytest.mark.slow
def test_the_tour_runs_as_a_notebook(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    tour = nbformat.read(DOCS / "tour.ipynb", as_version=4)
    nbclient.NotebookClient(tour, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in tour.cells for output in cell.get("outputs", ())]
    data = [output.get("data", {}) for output in outputs]
    pictures = [formats["image/svg+xml"] for formats in data if "image/svg+xml" in formats]
    assert len(pictures) == 3  # arcs, a map, effects
    assert all("<svg" in picture for picture in pictures)
    has_vienna = importlib.util.find_spec("RNA") is not None
    assert has_vienna or any("ernie-rna[vienna]" in output.get("text", "") for output in outputs)
    assert (tmp_path / "KINDS" / "config.json").exists()


def test_the_tour_is_stored_without_outputs():
    """Stored outputs would become outdated."""
    cells = json.loads((DOCS / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_the_site_has_all_pages_and_functions():
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = set(re.findall(r": (\S+\.md)$", settings, re.MULTILINE))
    assert all((ROOT / page).exists() for page in pages)
    assert {f"docs/{page.name}" for page in DOCS.glob("*.md")} | {"README.md"} <= pages
    functions = (DOCS / "site" / "functions.md").read_text(encoding="utf-8")
    paths = re.findall(r"^::: (\S+)$", functions, re.MULTILINE)
    assert {*ernie_rna.__all__} <= {Path(path).suffix[1:] for path in paths}


def test_citation_file_and_readme_agree():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("title", "journal", "doi"):
        (value,) = re.findall(rf"^  {name}: \"?(.*?)\"?$", citation, re.MULTILINE)
        assert f"{{{value}}}" in readme
    assert f"version: {ernie_rna.__version__}\n" in citation
