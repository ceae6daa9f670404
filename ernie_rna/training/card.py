"""The model card of a fine-tuned folder, and the curves of its training."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_rna.training.metrics import format_metrics

if TYPE_CHECKING:
    from ernie_rna.training.finetune import FinetuneSummary

_CARD = """---
library_name: transformers
tags:
- rna
- biology
- ernie-rna
---

# {task} by ERNIE-RNA

{model}, fine-tuned by `ernie-rna finetune`. The folder includes the model's code:
`AutoTokenizer` and `{auto_class}` load it with `trust_remote_code=True`.
{example}{labels}
## Data

{splits}

## Metrics

```
{metrics}
```

## Training

{trained:,} of {weights:,} weights were trained in {steps} steps, with {versions} and these
options:

{options}

## Limits

The metrics hold for sequences like those of the evaluation. Families in both training and
evaluation make metrics better than they are on new families.
{notes}
"""

_STRUCTURES = """
```python
from transformers import pipeline

fold = pipeline("rna-secondary-structure", "path/to/this/folder", trust_remote_code=True)
print(fold("GGGGAAAACCCC"))  # sequence, dot_bracket, and pairs with their probabilities
```
"""


def write_card(folder: Path, summary: FinetuneSummary) -> None:
    """Write README.md, which the Hub shows, from the facts of a fine-tuning."""
    facts, options = summary.facts, summary.facts["options"]
    changed = {
        name: value
        for name, value in options.items()
        if value is not None
        and value is not False
        and value != {}
        and (name != "held_out" or options["split"] is not None)
        and (name != "epochs" or options["steps"] is None)
        and (options["task"] == "masked-lm" or not name.startswith("mask_"))
    }
    splits = facts["splits"].items()
    text = _CARD.format(
        task=options["task"].capitalize(),
        model=facts["model"],
        auto_class=facts["auto_class"],
        example=_STRUCTURES if options["task"] == "structure" else "",
        labels=f"\nLabels: {', '.join(facts['labels'])}.\n" if facts["labels"] else "",
        splits="\n".join(
            f"- {n}: {one['rows']:,} rows, sha256 {one['sha256']}" for n, one in splits
        ),
        metrics=format_metrics(summary.metrics) if summary.metrics else "It was not evaluated.",
        trained=facts["weights_trained"],
        weights=facts["weights"],
        steps=facts["steps"],
        versions=", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        options="\n".join(f"- {name}: {value}" for name, value in changed.items()),
        notes="".join(f"\n- {note}" for note in summary.notes),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def draw_curve(log: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss and metrics over steps as SVG, where matplotlib is installed."""
    names = dict.fromkeys(name for entry in log for name in entry)
    shown = [name for name in names if name == "loss" or name.startswith("eval_")]
    if not shown or importlib.util.find_spec("matplotlib") is None:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, shown, strict=True):
        points = [(entry["step"], entry[name]) for entry in log if name in entry]
        axis.plot(*zip(*points, strict=True), marker="." if len(points) < 20 else "")
        axis.set_ylabel(name.removeprefix("eval_") if name != "loss" else "training loss")
    axes[-1].set_xlabel("step")
    figure.savefig(path)
