"""Sub-packages import only from those below them in the list in CONTRIBUTING.md."""

import pytest

from tests.conftest import ROOT


def test_imports_go_downwards(monkeypatch, capsys):
    cli = pytest.importorskip("importlinter.cli")
    monkeypatch.chdir(ROOT)
    code = cli.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert code == cli.EXIT_STATUS_SUCCESS, capsys.readouterr().out
