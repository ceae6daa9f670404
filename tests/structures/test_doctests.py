"""The examples in the docstrings of all packages whose modules take nothing but data."""

import doctest
import importlib
from pathlib import Path

import pytest

import ernie_rna

PACKAGE = Path(ernie_rna.__file__).parent
FOLDERS = ("embeddings", "plots", "run", "scoring", "sequences", "structures", "training")
FILES = [path for folder in FOLDERS for path in sorted((PACKAGE / folder).rglob("[!_]*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_doctests(path):
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    assert doctest.testmod(importlib.import_module(name)).failed == 0
