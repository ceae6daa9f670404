"""A picture of a pretraining's log: losses and F1 over the steps."""

from __future__ import annotations

import json
from pathlib import Path

from ernie_rna.extras import import_extra

LOG_FILE = "log.jsonl"
PICTURE = "log.svg"
# What is drawn: each panel's title, and its curves by their name in the log.
_PANELS = {
    "masked-LM loss": {"eval_masked_lm_loss": "validation"},
    "pair loss": {"eval_pair_loss": "validation"},
    "F1": {"eval_f1": "validation"},
    "loss of both kinds of batches": {"loss": "training"},
}


def read_log(run: Path) -> dict[str, dict[int, float]]:
    """Each logged value by step; of a step that was done twice, by going on, the later one."""
    values: dict[str, dict[int, float]] = {}
    for line in (run / LOG_FILE).read_text().splitlines():
        logged = json.loads(line)
        step = logged.pop("step")
        for name, value in logged.items():
            values.setdefault(name, {})[step] = value
    return values


def plot_log(run: Path, picture: Path | None = None) -> Path:
    """Draw the log of a run; into `log.svg` of its folder unless a file is named.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure_module = import_extra("matplotlib.figure", "plot", "a picture of the log")
    log = read_log(run)
    panels = {title: curves for title, curves in _PANELS.items() if curves.keys() & log.keys()}
    figure = figure_module.Figure(figsize=(4 * max(1, len(panels)), 3), layout="constrained")
    for index, (title, curves) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), index)
        for name, label in curves.items():
            steps = sorted(log.get(name, {}))
            axes.plot(steps, [log[name][step] for step in steps], marker=".", label=label)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.legend()
    target = run / PICTURE if picture is None else picture
    figure.savefig(target)
    return target
