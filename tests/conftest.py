"""Fixtures for all tests: small models, and the values that the authors' code computed."""

import json
import os
import subprocess
import sys
from pathlib import Path

# Tests of the command line start new Python processes, which must not try to reach the Hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from safetensors.torch import load_file

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"


def pytest_make_parametrize_id(val: object) -> str | None:
    """A constant id for gzip data, which contain the time and so differ between processes."""
    return "gzip" if isinstance(val, bytes) and val.startswith(b"\x1f\x8b") else None


@pytest.fixture(autouse=True)
def _reproducible():
    # The golden values were computed with two threads, by which MKL splits its sums.
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def config() -> ErnieRnaConfig:
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "intermediate_size": 96}
    return ErnieRnaConfig(**sizes, max_position_embeddings=256)


@pytest.fixture
def model(config) -> ErnieRnaForMaskedLM:
    return lively(ErnieRnaForMaskedLM(config)).eval()


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """Enlarge the weights, so that attention is far from uniform and an error in any path shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter) * parameter.std().nan_to_num(0.1)
            parameter *= 3 if parameter.ndim == 2 else 1
    return model


@pytest.fixture(scope="session")
def tokenizer() -> ErnieRnaTokenizer:
    return ErnieRnaTokenizer()


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    """Tensors that the authors' code computed, by name; tests/golden/README.md has their origin."""
    return load_file(GOLDEN / "tiny_expected.safetensors")


@pytest.fixture(scope="session")
def sequences() -> dict[str, str]:
    return json.loads((GOLDEN / "sequences.json").read_text())["sequences"]


@pytest.fixture(scope="session")
def golden_folder(tmp_path_factory) -> Path:
    """A converted folder of the authors' small checkpoint, for tests that only read it."""
    from tests.golden_folder import write_golden_folder

    return write_golden_folder(tmp_path_factory.mktemp("golden"))


def listing(folder: Path) -> dict[str, bytes]:
    """The contents of all files in a folder and its subfolders, by relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def run_elsewhere(*words: str | Path, cwd: Path, path: Path | str = "", python=sys.executable):
    """Run Python in a fresh process in another folder, with `path` as PYTHONPATH; return stdout."""
    modules = {"PYTHONPATH": str(path), "HF_MODULES_CACHE": str(cwd / "modules")}
    command = [python, "-W", "ignore", *words]
    settings = {"cwd": cwd, "capture_output": True, "text": True}
    done = subprocess.run(command, env={**os.environ, **modules}, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout
