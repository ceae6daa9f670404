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

_CARD = """---
{{ card_data }}
---

# {{ options.task | capitalize }} by ERNIE-RNA

{{ model }}, fine-tuned by `ernie-rna finetune`. The folder includes the model's code:
`AutoTokenizer` and `{{ auto_class }}` load it with `trust_remote_code=True`.
{% if options.task == "structure" %}
```python
from transformers import pipeline

fold = pipeline("rna-secondary-structure", "path/to/this/folder", trust_remote_code=True)
print(fold("GGGGAAAACCCC"))  # sequence, dot_bracket, and pairs with their probabilities
```
{% endif %}{% if labels %}
Labels: {{ labels | join(", ") }}.
{% endif %}
## Data
{% for name, split in splits | items %}
- {{ name }}: {{ "{:,}".format(split.rows) }} rows, sha256 {{ split.sha256 }}
{%- endfor %}

## Metrics

```
{{ metrics or "It was not evaluated." }}
```

## Training

{{ "{:,} of {:,}".format(weights_trained, weights) }} weights were trained in {{ steps }} steps,
with {{ versions }} and these options:
{% for name, value in changed | items %}
- {{ name }}: {{ value }}
{%- endfor %}

## Limits

The metrics hold for sequences like those of the evaluation. Families in both training and
evaluation make metrics better than they are on new families.
{% for note in notes %}
- {{ note }}
{%- endfor %}
"""


def write_card(folder: Path, summary: FinetuneSummary) -> None:
    """Write README.md, which the Hub shows, from the facts of a fine-tuning."""
    options = summary.facts["options"]
    unused = {"held_out"} if options["split"] is None else set()
    unused |= {"epochs"} if options["steps"] is not None else set()
    changed = {
        name: value
        for name, value in options.items()
        if not (value is None or value is False or value == {} or name in unused)
        and (options["task"] == "masked-lm" or not name.startswith("mask_"))
    }
    metrics = format_metrics(summary.metrics) if summary.metrics else ""
    data = ModelCardData(library_name="transformers", tags=["rna", "biology", "ernie-rna"])
    versions = ", ".join(map(" ".join, summary.facts["versions"].items()))
    more = {"versions": versions, "notes": summary.notes}
    facts = {**summary.facts, "changed": changed, "metrics": metrics, **more}
    card = ModelCard.from_template(data, template_str=_CARD, **facts)
    (folder / "README.md").write_text(str(card), encoding="utf-8")


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
