"""The model card of a fine-tuned folder, and the curves of its training."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData

from ernie_rna.training.metrics import format_metrics

if TYPE_CHECKING:
    from ernie_rna.training.finetune import FinetuneSummary


def write_card(folder: Path, summary: FinetuneSummary) -> None:
    """Write README.md, which the Hub shows, from `card.md`, a template of huggingface_hub."""
    options = summary.facts["options"]
    without_effect = {"held_out"} if options["split"] is None else set()
    without_effect |= {"epochs"} if options["steps"] is not None else set()
    if options["task"] != "masked-lm":
        without_effect |= {"mask_pairing", "mask_probability"}
    facts = {
        **summary.facts,
        "used_options": {
            name: value
            for name, value in options.items()
            if not (value is None or value is False or value == {} or name in without_effect)
        },
        "metrics": format_metrics(summary.metrics) if summary.metrics else "",
        "versions": ", ".join(map(" ".join, summary.facts["versions"].items())),
        "notes": summary.notes,
    }
    data = ModelCardData(library_name="transformers", tags=["rna", "biology", "ernie-rna"])
    template = Path(__file__).with_name("card.md")
    card = ModelCard.from_template(data, template_path=str(template), **facts)
    (folder / "README.md").write_text(str(card), encoding="utf-8")


def draw_curve(log: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss and metrics over steps as SVG, if matplotlib is installed."""
    names = dict.fromkeys(name for entry in log for name in entry)
    drawn = [name for name in names if name == "loss" or name.startswith("eval_")]
    if not drawn or importlib.util.find_spec("matplotlib") is None:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2 * len(drawn)), layout="constrained")
    axes = figure.subplots(len(drawn), sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, drawn, strict=True):
        points = [(entry["step"], entry[name]) for entry in log if name in entry]
        axis.plot(*zip(*points, strict=True), marker="." if len(points) < 20 else "")
        axis.set_ylabel(name.removeprefix("eval_") if name != "loss" else "training loss")
    axes[-1].set_xlabel("step")
    figure.savefig(path)
