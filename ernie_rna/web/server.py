"""Runs the server of the page until it is stopped."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from ernie_rna.data import MINI
from ernie_rna.extras import import_extra
from ernie_rna.options import ServeOptions, takes
from ernie_rna.run.find_model import find_model
from ernie_rna.run.progress import show_loading
from ernie_rna.web.requests import Requests


@takes(ServeOptions)
def serve(models: Sequence[str] = (MINI,), *, options: ServeOptions) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Nothing is sent to other servers. The results of requests are kept in a temporary folder for at
    most an hour; the folder is deleted when the server stops, but not if it is killed by SIGKILL.

    Args:
        models: folders or Hub ids that visitors choose from.

    Raises:
        ImportError: a package of the extra `web` is not installed.
        ValueError: two models have the same name, or a folder or repository is not a model.
        OSError: the port is in use, or there is no such model.
        TaskError: a model cannot be loaded.
    """
    for module in ("matplotlib", "pebble", "RNA"):
        import_extra(module, "web", "the web page")
    # Visitors see these names, which do not show where a folder is.
    names = [Path(model).resolve().name if Path(model).is_dir() else model for model in models]
    places = [Path(model).absolute() if Path(model).is_dir() else model for model in models]
    sources = [find_model(place, options.revision) for place in places]
    if len({*names}) < len(names):
        raise ValueError(f"two models have the same name ({', '.join(names)})")
    _check_port(options.host, options.port)
    with tempfile.TemporaryDirectory(prefix="ernie-rna-web-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        # Set before Gradio is imported, since it creates its own folders there.
        os.environ.update(GRADIO_TEMP_DIR=str(folder), GRADIO_ANALYTICS_ENABLED="False")
        with show_loading(options.progress, "loading Gradio"):
            gradio = import_extra("gradio", "web", "the web page")
            from ernie_rna.web.page import FONTS, INFO, Page

        with Requests(dict(zip(names, sources, strict=True)), options, folder) as requests:
            with show_loading(options.progress):
                requests.load()
            page = Page(requests).blocks
            # The most requests that may wait; Gradio refuses further ones.
            page.queue(max_size=20, api_open=False)
            page.launch(
                server_name=options.host,
                server_port=options.port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                footer_links=[],
                max_file_size="500kb",
                theme=gradio.themes.Default(**FONTS).set(**INFO),
                css_paths=Path(__file__).with_name("page.css"),
            )
            if options.progress is not False:
                print(f"ERNIE-RNA is at {page.local_url} (Ctrl-C stops it)", flush=True)
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
