"""Runs the page until it is stopped."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

from ernie_rna.data import MINI, resolve_model
from ernie_rna.extras import import_extra
from ernie_rna.web.requests import Desk
from ernie_rna.web.temporary import temporary_folder
from ernie_rna.web.workers import Setup, Workers

HOST, PORT = "127.0.0.1", 7860
# Requests that wait; further ones are told to come back.
_WAITING = 20
_UPLOAD = "500kb"


def name_models(models: list[str]) -> dict[str, str]:
    """What visitors choose from -> what it is loaded from: `mini`, folders or Hub ids.

    Raises:
        ValueError: two have the same name.
    """
    named: dict[str, str] = {}
    for model in models:
        name = Path(model).resolve().name if Path(model).is_dir() and model != MINI else model
        if name in named:
            raise ValueError(f"two models are called {name}: rename a folder, or name one only")
        named[name] = resolve_model(model)
    return named


def serve(setup: Setup, *, host: str = HOST, port: int = PORT, workers: int = 1) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Nothing is sent elsewhere. What visitors ask for is in a temporary folder until it is an hour
    old, and no longer than the server runs.

    Args:
        setup: models and limits.
        host: address to listen at; "0.0.0.0" is all of this machine's.
        port: its port.
        workers: how many requests are computed at once.

    Raises:
        ImportError: Gradio is not installed.
        OSError: the port is in use.
        TaskError: a model cannot be loaded.
    """
    _check_port(host, port)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # As Ctrl-C: folder and workers are gone then.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with temporary_folder() as folder:
        # Gradio makes folders of its own when it is imported; these go as well.
        gradio = import_extra("gradio", "web", "the web page")
        _serve(gradio, setup, folder, host, port, workers)


def _serve(gradio: Any, setup: Setup, folder: Path, host: str, port: int, workers: int) -> None:
    with Workers(setup, workers) as started:
        page = launch(gradio, Desk(started, setup.limits, folder), host, port, workers)
        print(f"ERNIE-RNA is at {page.local_url} (Ctrl-C ends it)", flush=True)
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise OSError(f"{host}, port {port}: {reason}; --port names another port") from None


def launch(gradio: Any, desk: Desk, host: str, port: int | None, workers: int) -> Any:
    """Start to serve, in a thread; return the page, whose `local_url` is where."""
    from ernie_rna.web.page import build_page
    from ernie_rna.web.style import FONTS, STYLE

    page = build_page(desk, workers)
    page.queue(max_size=_WAITING, api_open=False)
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        footer_links=[],
        max_file_size=_UPLOAD,
        theme=gradio.themes.Default(**FONTS),
        css=STYLE,
    )
    return page
