"""The core tests with several versions of transformers and torch: `make compat`, or nox directly.

    nox --list                            list the versions
    nox --session "core(oldest)"          test one of them
    nox --session core -- -x -k loading   pass options to pytest

Environments are kept in .nox/ and reused. PyPI's torch for Linux includes CUDA, gigabytes for each
version; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu installs wheels without it.
"""

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"

TORCH = "2.13.0"
# What the tests import besides torch and transformers.
TEST_PACKAGES = ("accelerate", "hypothesis", "numpy", "pytest", "safetensors", "scikit-learn")


@nox.session
@nox.parametrize(
    ("transformers", "torch", "pins"),
    [
        nox.param("4.41.2", TORCH, (), id="oldest"),
        nox.param("4.46.3", "2.4.1", ("numpy<2",), id="oldest-torch"),
        nox.param("4.57.6", TORCH, (), id="last-of-4"),
        nox.param("5.0.0", TORCH, (), id="first-of-5"),
        nox.param("5.24.0", TORCH, (), id="newest"),
        nox.param("5.24.0", "2.15.0", (), id="newest-torch"),
    ],
)
def core(session: nox.Session, transformers: str, torch: str, pins: tuple[str, ...]) -> None:
    """Run the tests that are marked as core."""
    versions = (f"transformers=={transformers}", f"torch=={torch}", *pins)
    session.install(*versions, *TEST_PACKAGES)
    environment = {
        "HF_HUB_OFFLINE": "1",
        # Code from the folders under test is copied here; versions must not share the copies.
        "HF_MODULES_CACHE": session.create_tmp(),
        # Waiting threads must not spin: beside other jobs, that takes several times as long.
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": "",
    }
    marks = ("-m", "core and not slow")
    session.run(
        "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *marks, *session.posargs,
        env=environment,
    )  # fmt: skip
