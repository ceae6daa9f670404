"""What is refused before a model is loaded."""

import socket

import pytest

from ernie_rna.cli import main as cli
from ernie_rna.web.server import _check_port, serve


def test_two_models_of_one_name(tmp_path):
    for module in ("matplotlib", "pebble", "RNA"):
        pytest.importorskip(module)
    with pytest.raises(ValueError, match=r"two models have the same name \(mini, mini\)"):
        serve(["mini", "mini"])


def test_a_port_in_use_is_told():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port}: .*in use; --port names another"):
            _check_port("127.0.0.1", port)


def test_a_folder_that_is_none(capsys):
    assert cli.main(["serve", "-m", "./none"]) == 1
    assert "there is no folder ./none" in capsys.readouterr().err
