"""Runs the page of `ernie-rna serve` as a Space on the Hub, or locally by `make space`."""

import os

from ernie_rna.options import ServeOptions
from ernie_rna.web.server import serve

if __name__ == "__main__":  # The computing processes import this file.
    default = ServeOptions()
    host = os.environ.get("GRADIO_SERVER_NAME", default.host)
    port = int(os.environ.get("GRADIO_SERVER_PORT", default.port))
    serve(options=ServeOptions(host=host, port=port))
