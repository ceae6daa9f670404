"""How the page looks, and what results and models look like in it."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import TYPE_CHECKING

from ernie_rna.data import MINI
from ernie_rna.web.requests import ALL_HEADS, AS_FOLDED

if TYPE_CHECKING:
    from ernie_rna.web.tasks import Description, Result

# Fonts of the visitor's machine: nothing is fetched from elsewhere.
FONTS = {
    "font": ["system-ui", "sans-serif"],
    "font_mono": ["ui-monospace", "Consolas", "monospace"],
}
STYLE = """
.picture { overflow-x: auto; background: white; border-radius: 8px; margin: 0; padding: 4px; }
.picture img { display: block; margin: 0 auto; max-width: max(100%, 560px); height: auto; }
.picture:focus-visible { outline: 2px solid #0072B2; }
.dot-bracket textarea { font-family: ui-monospace, Consolas, monospace; white-space: pre;
  overflow-x: auto; }
.rna textarea { font-family: ui-monospace, Consolas, monospace; }
"""


def layers(model: Description) -> list[tuple[str, int]]:
    layers = [(f"{layer}", layer) for layer in range(1, model.layers + 1)]
    return [
        (f"as folded: {model.source}", AS_FOLDED),
        ("0, the projected pairing scores", 0),
        *layers,
    ]


def heads(model: Description) -> list[tuple[str, int]]:
    return [("all heads", ALL_HEADS), *((f"{head}", head) for head in range(model.heads))]


def note(name: str, model: Description) -> str:
    random = "**Its weights are random: nothing here means anything.** " * model.has_random_weights
    small = "a small model of this project, not the authors'; " * (name == MINI)
    return f"{name}: {small}{random}structures by {model.source}; up to {model.nucleotides} nt."


def shown(result: Result, *what: str) -> list[str]:
    """The pictures of a result as HTML that needs no file."""
    return [
        _as_html(picture, f"{name}: {result.text}")
        for picture, name in zip(result.pictures, what, strict=True)
    ]


def _as_html(picture: Path, alternative: str) -> str:
    data = base64.b64encode(picture.read_bytes()).decode()
    text = html.escape(alternative)
    # Reached by Tab, so that a wide picture can be moved by the arrow keys.
    return (
        f'<div class="picture" tabindex="0"><img alt="{text}" '
        f'src="data:image/svg+xml;base64,{data}"></div>'
    )
