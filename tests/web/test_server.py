"""Which models are served under which names, and what is refused before one is loaded."""

import socket

import pytest

from ernie_rna.cli import main as cli
from ernie_rna.data import mini
from ernie_rna.web.server import _check_port, name_models


def test_models_are_called_after_their_folders(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    named = name_models(["mini", str(folder), "USER/NAME"])
    assert named == {"mini": str(mini()), "mine": str(folder), "USER/NAME": "USER/NAME"}
    with pytest.raises(ValueError, match="two models are called mine"):
        name_models([str(folder), f"{folder}/"])


def test_a_port_in_use_is_told():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port}: .*in use; --port names another"):
            _check_port("127.0.0.1", port)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", "./none"], "there is no folder ./none"),
        (["--seconds", "0"], "--seconds must be above 0; got 0.0"),
        (["--workers", "-1"], "--workers must be above 0; got -1"),
    ],
)
def test_what_the_command_refuses(capsys, options, message):
    assert cli.main(["serve", *options]) == 1
    assert message in capsys.readouterr().err
