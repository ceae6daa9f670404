"""A Space on the Hugging Face Hub, or `make space` here: the page of `ernie-rna serve`."""

import os

from ernie_rna.web.server import HOST, PORT, name_models, serve
from ernie_rna.web.workers import Setup

if __name__ == "__main__":  # The processes that compute import this file.
    serve(
        Setup(name_models(["mini"])),
        host=os.environ.get("GRADIO_SERVER_NAME", HOST),
        port=int(os.environ.get("GRADIO_SERVER_PORT", PORT)),
    )
