"""What the page shows, and which of its buttons asks the desk for what."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ernie_rna.data import examples
from ernie_rna.extras import import_extra
from ernie_rna.sequences.fasta import FastaRecord, InputError, read_fasta
from ernie_rna.web.requests import ALL_HEADS, AS_FOLDED, Desk, decode
from ernie_rna.web.style import heads, layers, note, shown
from ernie_rna.web.workers import TaskError

if TYPE_CHECKING:
    from ernie_rna.web.tasks import Result

TITLE = "ERNIE-RNA"
_INTRODUCTION = """\
# ERNIE-RNA

What a language model that knows which nucleotides can pair makes of your RNA: secondary structures,
the maps they are read off, the effects of substitutions, and vectors.
"""
# Ids of the examples -> what their button says.
_EXAMPLES = {
    "tRNA-Phe": "tRNA",
    "hammerhead": "Hammerhead",
    "TLS-PK3": "tRNA-like structure",
    "purine-1": "Purine riboswitch",
}
_MASKED, _SINGLE = "mask each position in turn", "a single pass (faster, sees the letter itself)"


def build_page(desk: Desk, at_once: int = 1) -> Any:
    """The page as a `gradio.Blocks`.

    Args:
        desk: answers its requests.
        at_once: how many requests are computed at a time; the others wait in a queue.

    Raises:
        ImportError: Gradio is not installed.
    """
    return _Page(desk, at_once).blocks


class _Page:
    """The parts that several tabs share, and how a button is connected."""

    def __init__(self, desk: Desk, at_once: int):
        self.gr = import_extra("gradio", "web", "the web page")
        self.desk, self.at_once = desk, at_once
        with self.gr.Blocks(title=TITLE, analytics_enabled=False) as self.blocks:
            self.gr.Markdown(_INTRODUCTION)
            self._input()
            with self.gr.Tabs():
                for name, build in {
                    "Structure": self._structure,
                    "Pairing maps": self._maps,
                    "Substitutions": self._substitutions,
                    "Embeddings": self._embeddings,
                }.items():
                    with self.gr.Tab(name):
                        build()

    # -----------------------------------------------------------------------------------------
    # What is above the tabs

    def _input(self) -> None:
        gr, limits = self.gr, self.desk.limits
        records = list(read_fasta(examples() / "rna.fasta"))
        with gr.Row():
            with gr.Column(scale=3):
                self.text = gr.Textbox(
                    label="RNA, as FASTA or a bare sequence",
                    info=f"up to {limits.sequences} sequences of {limits.nucleotides} nt, "
                    f"{limits.together} nt together; T is read as U",
                    placeholder=">name\nGGGGAAAACCCC",
                    lines=6,
                    max_lines=12,
                    elem_classes="rna",
                )
                with gr.Row():
                    for id, label in _EXAMPLES.items():
                        one = next(record for record in records if record.id == id)
                        self._example(label, [one])
                    self._example(f"All {len(records)} examples", records)
                    file = gr.UploadButton("Load a FASTA file", type="binary", size="sm")
            with gr.Column(scale=1, min_width=260):
                names = list(self.desk.models)
                self.model = gr.Dropdown(
                    names, value=names[0], label="Model", visible=len(names) > 1
                )
                self.note = gr.Markdown(note(names[0], self.desk.models[names[0]]))
                self.rna = gr.Dropdown(
                    [],
                    label="RNA to draw",
                    info="one of those given",
                    allow_custom_value=True,
                )
        file.upload(self._said(decode), file, self.text, api_visibility="private")
        self.text.change(
            self._choices,
            [self.text, self.rna],
            self.rna,
            queue=False,
            show_progress="hidden",
            trigger_mode="always_last",
            api_visibility="private",
        )

    def _example(self, label: str, records: Sequence[FastaRecord]) -> None:
        text = "\n".join(f">{one.id} {one.description}\n{one.sequence}" for one in records)
        button = self.gr.Button(label, size="sm", min_width=120)
        button.click(lambda: text, None, self.text, queue=False, api_visibility="private")

    def _choices(self, text: str, chosen: str | None) -> Any:
        ids = self.desk.ids(text)
        value = chosen if chosen in ids else next(iter(ids), None)
        return self.gr.Dropdown(choices=ids, value=value)

    # -----------------------------------------------------------------------------------------
    # The tabs

    def _structure(self) -> None:
        gr = self.gr
        button = gr.Button("Fold", variant="primary")
        text = gr.Textbox(
            label="Structures in dot-bracket",
            lines=3,
            max_lines=12,
            buttons=["copy"],
            elem_classes="dot-bracket",
        )
        drawing, arcs = gr.HTML(label="Drawing"), gr.HTML(label="Arcs")
        line = gr.Markdown()
        with gr.Row():
            files, pictures = self._downloads("Structures of all"), self._downloads("Drawings")
        given = [self.text, self.model]

        def fold(text: str, model: str) -> Any:
            result = self.desk.fold(text, model)
            return result.text, self._files(result)

        def draw(text: str, model: str, id: str | None) -> Any:
            result = self.desk.draw(text, model, id)
            return *shown(result, "loops", "arcs"), result.text, self._files(result)

        drawn = [drawing, arcs, line, pictures]
        folded = self._on(button, self.desk.records, fold, given, [text, files])
        self._then(folded, draw, [*given, self.rna], drawn)

        def draw_another(folded: str, *rest: Any) -> Any:
            return draw(*rest) if folded else [gr.skip()] * len(drawn)

        changed = [text, *given, self.rna]
        self._work(self.rna.input, draw_another, changed, drawn)

    def _maps(self) -> None:
        gr = self.gr
        first = next(iter(self.desk.models.values()))
        with gr.Row():
            layer = gr.Dropdown(
                layers(first), value=AS_FOLDED, label="Layer", info="whose attention scores"
            )
            head = gr.Dropdown(heads(first), value=ALL_HEADS, label="Head", info="of that layer")
        button = gr.Button("Draw the map", variant="primary")
        outputs = self._outputs("pairing map", self.desk.pairing_map)
        given = [self.text, self.model, self.rna, layer, head]
        self._on(button, self._check, outputs[0], given, outputs[1])

        def describe(model: str) -> Any:
            chosen = self.desk.models[model]
            return (
                note(model, chosen),
                gr.Dropdown(choices=layers(chosen), value=AS_FOLDED),
                gr.Dropdown(choices=heads(chosen), value=ALL_HEADS),
            )

        self.model.change(
            describe, self.model, [self.note, layer, head], queue=False, api_visibility="private"
        )

    def _check(self, text: str, model: str, *rest: Any) -> None:
        self.desk.records(text, model)

    def _substitutions(self) -> None:
        gr, desk = self.gr, self.desk
        how = gr.Radio([_MASKED, _SINGLE], value=_MASKED, label="How the model is asked")
        button = gr.Button("Score all substitutions", variant="primary")

        def by_name(function: Any) -> Any:
            return lambda text, model, id, how: function(text, model, id, how == _MASKED)

        work, parts = self._outputs("substitutions", by_name(desk.substitutions))
        given = [self.text, self.model, self.rna, how]
        self._on(button, by_name(desk.check_substitutions), work, given, parts)

    def _embeddings(self) -> None:
        self.gr.Markdown(
            "A point for each RNA: the mean vector of its nucleotides, on the two axes along which "
            "yours differ most. Colours are by the last word of the headers, if some share it."
        )
        button = self.gr.Button("Plot the vectors", variant="primary")
        work, parts = self._outputs("embeddings", self.desk.embeddings)
        self._on(button, self.desk.check_embeddings, work, [self.text, self.model], parts)

    # -----------------------------------------------------------------------------------------
    # How a button is connected

    def _downloads(self, label: str) -> Any:
        return self.gr.File(label=label, file_count="multiple", interactive=False, visible=False)

    def _files(self, result: Result) -> Any:
        files = [str(file) for file in result.files]
        return self.gr.File(files, interactive=False, visible=True)

    def _outputs(
        self, what: str, ask: Callable[..., Result]
    ) -> tuple[Callable[..., Any], list[Any]]:
        """Parts for a picture, a line and files, and a function that gives their values."""
        parts = [self.gr.HTML(label=what), self.gr.Markdown(), self._downloads("Downloads")]

        def work(*given: Any) -> Any:
            result = ask(*given)
            return *shown(result, what), result.text, self._files(result)

        return work, parts

    def _on(self, button: Any, check: Any, work: Any, inputs: list[Any], outputs: list[Any]) -> Any:
        """Have a button check what it is given at once, and then work on it in its turn."""
        checked = button.click(
            self._said(lambda *given: check(*given) and None),
            inputs,
            None,
            # Checks wait for nobody's computing, but in the queue, whose errors the page shows.
            concurrency_limit=None,
            show_progress="hidden",
            api_visibility="private",
        )
        return self._then(checked, work, inputs, outputs)

    def _then(self, event: Any, work: Any, inputs: list[Any], outputs: list[Any]) -> Any:
        return self._work(event.success, work, inputs, outputs)

    def _work(self, listen: Any, work: Any, inputs: list[Any], outputs: list[Any]) -> Any:
        """All that computes waits in one queue."""
        return listen(
            self._said(work),
            inputs,
            outputs,
            concurrency_id="models",
            concurrency_limit=self.at_once,
            api_visibility="private",
        )

    def _said(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Have our errors shown as what they say, others as nothing but that there was one."""

        @functools.wraps(function)
        def told(*given: Any) -> Any:
            try:
                return function(*given)
            except (InputError, TaskError) as error:
                message = html.escape(" ".join(str(error).split()), quote=False)
                raise self.gr.Error(message, duration=20, print_exception=False) from None

        return told
