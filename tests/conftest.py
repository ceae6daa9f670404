"""Fixtures for all tests: small models and golden values, which the authors' code computed."""

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
    """A constant id for gzip data, whose bytes contain a time and so differ between workers."""
    return "gzip" if isinstance(val, bytes) and val.startswith(b"\x1f\x8b") else None


@pytest.fixture(autouse=True)
def _reproducible():
    # MKL splits its sums by thread, and the golden values were computed with two threads.
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
    """Enlarge the weights: attention is then far from uniform, so an error in any path shows."""
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
    """Tensors by name that the authors' code computed; tests/golden/README.md has the origin."""
    return load_file(GOLDEN / "tiny_expected.safetensors")


@pytest.fixture(scope="session")
def sequences() -> dict[str, str]:
    return json.loads((GOLDEN / "sequences.json").read_text())["sequences"]


@pytest.fixture(scope="session")
def golden_folder(tmp_path_factory) -> Path:
    """The authors' small checkpoint, converted to a folder. Tests must not change it."""
    from tests.golden_folder import write_golden_folder

    return write_golden_folder(tmp_path_factory.mktemp("golden"))


def listing(folder: Path) -> dict[str, bytes]:
    """The contents of all files in a folder and its subfolders, by relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def run_elsewhere(*words: str | Path, cwd: Path, path: Path | str = "", python=sys.executable):
    """Run Python in a fresh process in folder `cwd`, with `path` as PYTHONPATH; return stdout."""
    modules = {"PYTHONPATH": str(path), "HF_MODULES_CACHE": str(cwd / "modules")}
    command = [python, "-W", "ignore", *words]
    process = subprocess.run(
        command, cwd=cwd, env={**os.environ, **modules}, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return process.stdout
