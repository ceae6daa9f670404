"""Run the core tests over versions of transformers and torch, each in an environment of its own.

    python scripts/check_versions.py
    python scripts/check_versions.py --versions 4.41.2 5.23.0 4.41.2:2.4.1 --keep-going

A version is TRANSFORMERS or TRANSFORMERS:TORCH. Environments stay in .compat/ and are used
again; those with the same torch share one installation of it. Exit code 1 says that an
installation or a test failed; what was said is in .compat/results/.

PyPI's torch for Linux comes with CUDA, gigabytes for each version: give
--torch-index https://download.pytorch.org/whl/cpu for wheels without it. A file of limits for
other packages, such as numpy<2, goes by pip's own PIP_CONSTRAINT.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPAT = ROOT / ".compat"

TORCH = "2.13.0"
VERSIONS = (
    *("4.41.2", "4.44.2", "4.46.3", "4.48.3", "4.51.3", "4.53.3", "4.55.4", "4.57.6"),
    *("5.0.0", "5.3.0", "5.8.1", "5.17.0", "5.23.0", "5.24.0"),
    # The oldest torch, with the oldest and the newest transformers that take it, and one between.
    *("4.41.2:2.4.1", "4.46.3:2.4.1", "4.57.6:2.4.1", "4.53.3:2.7.1"),
)
# What the tests import beside torch and transformers.
TEST_PACKAGES = ("accelerate", "hypothesis", "numpy", "pytest", "safetensors", "scikit-learn")


@dataclass(frozen=True)
class Result:
    """What came out for one version; `problem` is empty if its tests ran."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    problem: str = ""
    failures: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return not self.problem and not self.failed and self.passed > 0


class InstallError(RuntimeError):
    """pip did not install a version; the message ends what it said."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--versions",
        nargs="+",
        default=VERSIONS,
        metavar="VERSION",
        help=f"TRANSFORMERS or TRANSFORMERS:TORCH, torch {TORCH} if not said "
        f"(default: {' '.join(VERSIONS)})",
    )
    parser.add_argument("--keep-going", action="store_true", help="go on behind a failure")
    parser.add_argument("--torch-index", metavar="URL", help="where pip finds torch")
    parser.add_argument(
        "--tests",
        type=shlex.split,
        default="-m 'core and not slow'",
        metavar="ARGUMENTS",
        help="what to tell pytest (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    print(f"{'transformers':<14}{'torch':<9}{'passed':>7}{'failed':>7}{'skipped':>8}{'seconds':>9}")
    good = True
    for version in arguments.versions:
        transformers, _, torch = version.partition(":")
        torch = torch or TORCH
        result = check(transformers, torch, arguments.torch_index, arguments.tests)
        print(format_row(transformers, torch, result), flush=True)
        good = good and result.good
        if not (good or arguments.keep_going):
            break
    return int(not good)


def check(transformers: str, torch: str, torch_index: str | None, tests: Sequence[str]) -> Result:
    """Install a version if need be and run the tests with it."""
    try:
        python = install(transformers, torch, torch_index)
    except InstallError as error:
        return Result(problem=f"not installed: {error}")
    return run_tests(python, f"transformers-{transformers}-torch-{torch}", tests)


def format_row(transformers: str, torch: str, result: Result) -> str:
    row = f"{transformers:<14}{torch:<9}"
    if result.problem:
        return row + result.problem
    row += f"{result.passed:>7}{result.failed:>7}{result.skipped:>8}{result.seconds:>9.0f}"
    return "\n".join([row, *(f"    {failure}" for failure in result.failures)])


def install(transformers: str, torch: str, torch_index: str | None) -> Path:
    """The interpreter of an environment with these versions, made if need be.

    Raises:
        InstallError: pip did not find or install them.
    """
    base = environment(
        f"torch-{torch}",
        [f"torch=={torch}", *(["--index-url", torch_index] if torch_index else [])],
        list(TEST_PACKAGES),
    )
    own = environment(
        f"transformers-{transformers}-torch-{torch}", [f"transformers=={transformers}"], base=base
    )
    return interpreter(own)


def environment(name: str, *requirements: Sequence[str], base: Path | None = None) -> Path:
    """A virtual environment with what each call of pip installs, made if need be.

    Args:
        base: another environment, whose packages are seen behind its own.

    Raises:
        InstallError: pip failed.
    """
    folder = COMPAT / name
    finished = folder / "installed"
    if finished.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # an interrupted one
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    if base is not None:
        (site_packages(folder) / "base.pth").write_text(f"{site_packages(base)}\n")
    for requirement in requirements:
        pip_install(folder, requirement)
    finished.touch()
    return folder


def pip_install(folder: Path, requirements: Sequence[str]) -> None:
    command = [str(interpreter(folder)), "-m", "pip", "install", "--quiet", *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise InstallError((lines or done.stderr.splitlines() or ["pip failed"])[-1])


def interpreter(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def site_packages(folder: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    command = [str(interpreter(folder)), "-c", code]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def run_tests(python: Path, name: str, tests: Sequence[str]) -> Result:
    """Run pytest in the root of the repository; its output goes to .compat/results."""
    results = COMPAT / "results"
    results.mkdir(parents=True, exist_ok=True)
    report, log = results / f"{name}.xml", results / f"{name}.log"
    report.unlink(missing_ok=True)
    options = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command = [str(python), "-m", "pytest", *options, *tests]
    variables = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        # Code from the folders under test is copied there; no version may see another's copy.
        "HF_MODULES_CACHE": str(python.parents[1] / "modules"),
        # Threads that wait must not spin: beside other jobs that takes several times as long.
        "OMP_WAIT_POLICY": "passive",
    }
    variables.pop("PYTHONPATH", None)
    start = time.monotonic()
    with open(log, "w", encoding="utf-8") as file:
        subprocess.run(
            command, cwd=ROOT, env=variables, check=False, stdout=file, stderr=subprocess.STDOUT
        )
    return read_report(report, log, time.monotonic() - start)


def read_report(report: Path, log: Path, seconds: float) -> Result:
    """What pytest wrote; a report that is missing or of no test is a problem."""
    if not report.exists():
        return Result(problem=f"pytest did not finish: see {log.relative_to(ROOT)}")
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    kinds = [{child.tag for child in case} for case in cases]
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case, kind in zip(cases, kinds, strict=True)
        if kind & {"failure", "error"}
    ]
    skipped = sum("skipped" in kind for kind in kinds)
    passed = len(cases) - len(failed) - skipped
    if not cases:
        return Result(problem=f"no test ran: see {log.relative_to(ROOT)}")
    return Result(passed, len(failed), skipped, seconds, failures=tuple(failed))


if __name__ == "__main__":
    sys.exit(main())
