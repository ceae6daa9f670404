"""A Space on the Hugging Face Hub, or `make space` here: the page of `ernie-rna serve`."""

import os

from ernie_rna.options import ServeOptions
from ernie_rna.web.server import serve

if __name__ == "__main__":  # The processes that compute import this file.
    default = ServeOptions()
    host = os.environ.get("GRADIO_SERVER_NAME", default.host)
    port = int(os.environ.get("GRADIO_SERVER_PORT", default.port))
    serve(options=ServeOptions(host=host, port=port))
