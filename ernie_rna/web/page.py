"""The contents of the page, and the requests that its buttons send."""

from __future__ import annotations

import base64
import contextlib
import html
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import gradio as gr

from ernie_rna.data import examples
from ernie_rna.sequences.fasta import InputError, read_fasta
from ernie_rna.web.requests import Requests, Result, TaskError, decode

_INTRODUCTION = """\
# ERNIE-RNA

Secondary structures, pairing maps, effects of substitutions and vectors of your RNA, predicted by a
language model whose attention takes into account which nucleotides can pair.
"""
_VECTORS = """\
A point for each RNA: the mean vector of its nucleotides, on the two axes along which your RNAs
differ most. Colours show the last word of the headers, if some share it.
"""
# Id of an example -> the label of its button. The page opens with the first.
_EXAMPLES = {
    "hammerhead": "Hammerhead",
    "tRNA-Phe": "tRNA",
    "TLS-PK3": "tRNA-like structure",
    "purine-1": "Purine riboswitch",
}
_AS_FOLDED, _ALL_HEADS = "as folded", "all heads"
_NO_PRIOR, _VIENNA = "none", "ViennaRNA"
_PRIORS = {_NO_PRIOR: None, _VIENNA: "vienna"}
_MASKED, _SINGLE = "mask each position in turn", "a single pass (faster, sees the letter itself)"
# Seconds between searches for old files, and the age of an old file: files are kept for an hour.
CACHE = (300, 3300)
# Fonts of the visitor's machine, so that nothing is fetched from other servers.
FONTS = {
    "font": ["system-ui", "sans-serif"],
    "font_mono": ["ui-monospace", "Consolas", "monospace"],
}
# The explanation of a choice; Gradio's default, a pale grey, is hard to read.
INFO = {"block_info_text_color": "*neutral_600", "block_info_text_color_dark": "*neutral_300"}
# Settings of events that do not compute.
_QUIET: Any = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


class Page:
    """The page, as a `gradio.Blocks` in `blocks`."""

    def __init__(self, requests: Requests):
        self.requests = requests
        ask, models = requests.check, requests.models.values()
        self.blocks = gr.Blocks(title="ERNIE-RNA", analytics_enabled=False, delete_cache=CACHE)
        with self.blocks:
            gr.Markdown(_INTRODUCTION)
            with gr.Row():
                with gr.Column(scale=3):
                    self._text()
                with gr.Column(scale=1, min_width=260):
                    self._model()
            with gr.Tab("Structure"):
                self._structure()
            with gr.Tab("Pairing maps"):
                layers = [_AS_FOLDED, *range(max(model.layers for model in models) + 1)]
                heads = [_ALL_HEADS, *range(max(model.heads for model in models))]
                info = "the layer of the attention scores; 0 is the projected pairing scores"
                with gr.Row():
                    layer = gr.Dropdown(layers, value=_AS_FOLDED, label="Layer", info=info)
                    head = gr.Dropdown(heads, value=_ALL_HEADS, label="Head", info="of that layer")
                self._tab("Draw the map", self._ask_map, [self.prior, layer, head])
            with gr.Tab("Substitutions"):
                method = gr.Radio([_MASKED, _SINGLE], value=_MASKED, label="Scoring method")
                self._tab("Score all substitutions", self._ask_substitutions, [method])
            with gr.Tab("Embeddings"):
                gr.Markdown(_VECTORS)
                self._tab("Plot the vectors", partial(ask, "embeddings"))

    def _text(self) -> None:
        limits = self.requests.limits
        fasta = {
            rna.id: f">{rna.id} {rna.description}\n{rna.sequence}"
            for rna in read_fasta(examples() / "rna.fasta")
        }
        texts = {label: fasta[id] for id, label in _EXAMPLES.items()}
        texts[f"All {len(fasta)} examples"] = "\n".join(fasta.values())
        self.text = gr.Textbox(
            next(iter(texts.values())),
            label="RNA, as FASTA or a bare sequence",
            info=f"up to {limits.sequences} sequences, {limits.nucleotides} nt in total; T is U",
            placeholder=">name\nGGGGAAAACCCC",
            lines=6,
            max_lines=12,
            elem_classes="rna",
        )
        with gr.Row():
            for label, text in texts.items():
                button = gr.Button(label, size="sm", min_width=120)
                button.click(lambda text=text: text, None, self.text, **_QUIET)
            file = gr.UploadButton("Load a FASTA file", type="binary", size="sm")
        file.upload(_load, file, self.text, api_visibility="private")

    def _model(self) -> None:
        models, ids = self.requests.models, self.requests.ids(self.text.value)
        names = list(models)
        self.model = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)
        gr.Markdown("\n\n".join(model.note for model in models.values()))
        self.rna = gr.Dropdown(
            ids, value=ids[0], label="RNA to draw", info="one of yours", allow_custom_value=True
        )
        info = "added to the structure head's logits; it changes the structures and their map"
        self.prior = gr.Radio(
            [*_PRIORS],
            value=_NO_PRIOR,
            label="Energy prior",
            info=info,
            visible=any(model.has_prior for model in models.values()),
        )
        latest = {"trigger_mode": "always_last", **_QUIET}
        self.text.change(self._choices, [self.text, self.rna], self.rna, **latest)

    def _choices(self, text: str, chosen: str | None) -> Any:
        ids = self.requests.ids(text)
        return gr.Dropdown(ids, value=chosen if chosen in ids else next(iter(ids), None))

    def _structure(self) -> None:
        opening = Result({}, [])
        with contextlib.suppress(InputError, TaskError):  # The button will show the error.
            inputs = self.text.value, self.model.value, self.rna.value, _NO_PRIOR
            opening = self.requests.answer(self._ask_fold(*inputs))
        button = gr.Button("Fold", variant="primary")
        text = gr.Textbox(
            opening.text,
            label="Structures in dot-bracket",
            lines=3,
            max_lines=12,
            buttons=["copy"],
            elem_classes="dot-bracket",
        )
        outputs = [text, *_outputs(opening)]
        for listen in (button.click, self.rna.input, self.prior.input):
            self._connect(listen, self._ask_fold, [self.rna, self.prior], outputs)

    def _ask_fold(self, text: str, model: str, id: str, prior: str) -> dict[str, Any]:
        return self.requests.check("fold", text, model, id, prior=_PRIORS.get(prior))

    def _ask_map(
        self, text: str, model: str, id: str, prior: str, layer: Any, head: Any
    ) -> dict[str, Any]:
        what, choices = "map", {"layer": layer, "head": head}
        if layer == _AS_FOLDED:
            choices = {"prior": _PRIORS.get(prior)}
        elif head == _ALL_HEADS:
            what, choices = "heads", {"layer": layer}
        return self.requests.check(what, text, model, id, **choices)

    def _ask_substitutions(self, text: str, model: str, id: str, method: str) -> dict[str, Any]:
        return self.requests.check("substitutions", text, model, id, masked=method == _MASKED)

    def _tab(self, label: str, ask: Callable[..., Any], choices: Sequence[Any] = ()) -> None:
        """Add a button and the outputs of its request."""
        button = gr.Button(label, variant="primary")
        self._connect(button.click, ask, [self.rna, *choices], _outputs())

    def _connect(
        self, listen: Any, ask: Callable[..., Any], choices: list[Any], outputs: list[Any]
    ) -> None:
        """Make an event check its inputs at once, then wait for a free process to compute."""
        inputs = [self.text, self.model, *choices]

        def check(*values: Any) -> Iterator[list[Any]]:
            # Clear the result of the request before.
            yield ["", "", gr.File(None, visible=False)][-len(outputs) :]
            with _showing_errors():
                ask(*values)

        def work(*values: Any) -> list[Any]:
            with _showing_errors():
                result = self.requests.answer(ask(*values))
            files = [str(file) for file in (*result.captions, *result.files)]
            return [result.text, _as_html(result), gr.File(files, visible=True)][-len(outputs) :]

        hidden = {"show_progress": "hidden", "api_visibility": "private"}
        # Checks need not wait for computations, but are queued, since errors are then shown.
        checked = listen(check, inputs, outputs, concurrency_limit=None, **hidden)
        limited = {"concurrency_id": "models", "concurrency_limit": self.requests.limits.workers}
        checked.success(work, inputs, outputs, api_visibility="private", **limited)


def _load(content: bytes) -> str:
    with _showing_errors():
        return decode(content)


@contextlib.contextmanager
def _showing_errors() -> Iterator[None]:
    """Show our own errors on the page with their message; for others it only says "error"."""
    try:
        yield
    except (InputError, TaskError) as error:
        message = html.escape(" ".join(str(error).split()), quote=False)
        raise gr.Error(message, duration=20, print_exception=False) from None


def _outputs(result: Result | None = None) -> list[Any]:
    """The elements that show the pictures and offer the files of a result."""
    options: Any = {"file_count": "multiple", "interactive": False, "visible": False}
    return [gr.HTML(_as_html(result) if result else ""), gr.File(label="Downloads", **options)]


def _as_html(result: Result) -> str:
    """The pictures of a result, embedded in the HTML; the keyboard can focus and scroll them."""
    figures = []
    for picture, caption in result.captions.items():
        data, text = base64.b64encode(picture.read_bytes()).decode(), html.escape(caption)
        figures.append(
            f'<figure class="picture" tabindex="0"><img alt="{picture.stem}: {text}" '
            f'src="data:image/svg+xml;base64,{data}"><figcaption>{text}</figcaption></figure>'
        )
    return "".join(figures)
