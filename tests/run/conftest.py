"""Fixtures and functions for tests of runs."""

import contextlib
import io
import sys

import pytest

from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def raising(error):
    """A function that accepts any arguments and raises an error."""

    def call(*_):
        raise error

    return call


@pytest.fixture
def encoder(config):
    return ErnieRnaModel(config, add_pooling_layer=False).eval()


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.npz"


@pytest.fixture
def stdin(monkeypatch):
    """A function that replaces standard input with a text."""

    def put(text):
        buffer = io.BufferedReader(io.BytesIO(text.encode()))
        monkeypatch.setattr(sys, "stdin", type("Input", (), {"buffer": buffer}))

    return put


@pytest.fixture
def file_limit():
    """A context in which no file can grow beyond `size` bytes, as on a full disk."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limit(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit
