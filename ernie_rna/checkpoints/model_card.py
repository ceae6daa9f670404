"""The model card (README.md) of a converted folder, written from the facts of its conversion."""

from __future__ import annotations

from ernie_rna.checkpoints.card_usage import card_title, pipeline_tag, usage
from ernie_rna.checkpoints.conversion import Conversion
from ernie_rna.checkpoints.origin import RANDOM

_CARD = """---
license: {license_id}
library_name: transformers
{pipeline_tag}tags:
- rna
- biology
- ernie-rna
---

# {title}

ERNIE-RNA (Yin et al., 2025) is a BERT-like encoder for RNA. The potential of every two bases to
pair enters the attention of its first layer, and the scores of each layer bias the next one's.
This folder was converted from {source}; it holds its own code.
{warning}
{usage}

## Sizes

| | |
|---|---|
{sizes}

## Conversion

| | |
|---|---|
{facts}

{left_out}

## Licence and citation

{licence}

```bibtex
@article{{yin2025ernierna,
  title   = {{{{ERNIE-RNA}}: an {{RNA}} language model with structure-enhanced representations}},
  author  = {{Yin, Weijie and Zhang, Zhaoyu and others}},
  journal = {{Nature Communications}},
  volume  = {{16}},
  pages   = {{8407}},
  year    = {{2025}},
  doi     = {{10.1038/s41467-025-64972-0}}
}}
```
"""

_RANDOM_WARNING = """
**These weights are random: they were never trained, and what the model says of an RNA means
nothing.** They serve to try the code.
"""
_RANDOM = """The weights were drawn at random to test the code with; they are not those of the
authors of ERNIE-RNA. The code in this folder is under the Apache License 2.0."""
_MIT = """The weights are the work of the authors of ERNIE-RNA
(https://github.com/Bruce-ywj/ERNIE-RNA), under the MIT licence:

> Copyright (c) 2024 Weijie Yin
>
> Permission is hereby granted, free of charge, to any person obtaining a copy of this software
> and associated documentation files (the "Software"), to deal in the Software without
> restriction, including without limitation the rights to use, copy, modify, merge, publish,
> distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
> Software is furnished to do so, subject to the following conditions:
>
> The above copyright notice and this permission notice shall be included in all copies or
> substantial portions of the Software.
>
> THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING
> BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
> NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
> DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
> OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

The code in this folder is under the Apache License 2.0."""
_MULTIMOLECULE = """This copy came through MultiMolecule, whose card states AGPL-3.0 for the file
it was made from; the same weights from the authors are under MIT alone.

"""


def model_card(conversion: Conversion) -> str:
    """The text of the card."""
    via_multimolecule = conversion.naming == "multimolecule"
    random = conversion.config.weights_origin == RANDOM
    trained_id = "agpl-3.0" if via_multimolecule else "mit"
    trained_licence = (_MULTIMOLECULE if via_multimolecule else "") + _MIT
    return _CARD.format(
        license_id="apache-2.0" if random else trained_id,
        warning=_RANDOM_WARNING if random else "",
        source=f"`{conversion.source.path.name}` ({conversion.source.kind})",
        pipeline_tag=pipeline_tag(conversion),
        title=card_title(conversion),
        usage=usage(conversion),
        sizes=_table(_sizes(conversion)),
        facts=_table(_facts(conversion)),
        left_out=_left_out(conversion),
        licence=_RANDOM if random else trained_licence,
    )


def _sizes(conversion: Conversion) -> dict[str, object]:
    config = conversion.config
    parameters = sum(weight.numel() for weight in conversion.state_dict.values())
    return {
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "width": config.hidden_size,
        "feed-forward width": config.intermediate_size,
        "vocabulary": config.vocab_size,
        "tokens in pretraining, at most": config.max_position_embeddings,
        "parameters": f"{parameters:,} ({_parts(conversion)}; float32)",
        "LayerNorm": "behind each residual sum (post-LN)",
    }


def _parts(conversion: Conversion) -> str:
    if conversion.kind:
        return f"encoder and {conversion.kind.task} head"
    return "encoder, pooler and LM head"


def _facts(conversion: Conversion) -> dict[str, object]:
    source = conversion.source
    return {
        "source": f"`{source.path.name}`",
        "its kind": f"{source.kind}, names of {conversion.naming}",
        "its SHA-256": f"`{source.sha256}`",
        "weights taken": len(conversion.state_dict) - len(_whole(conversion.initialised)),
        "keys dropped": len(_whole(conversion.dropped)),
        **{f"note {number}": note for number, note in enumerate(conversion.notes, start=1)},
    }


def _whole(names: dict[str, str]) -> list[str]:
    """The keys that are no single token of a key."""
    return [name for name in names if not name.endswith("]")]


def _left_out(conversion: Conversion) -> str:
    parts = []
    for title, listed in (
        ("Dropped, each with its reason:", conversion.dropped),
        ("Made by a rule, because the source does not have it:", conversion.initialised),
    ):
        if listed:
            parts.append("\n".join([title, "", *by_reason(listed)]))
    return "\n\n".join(parts) or "Nothing was dropped."


def by_reason(listed: dict[str, str]) -> list[str]:
    """Lines of a list: each reason, then all keys that it holds for."""
    keys: dict[str, list[str]] = {}
    for key, reason in listed.items():
        keys.setdefault(reason, []).append(key)
    return [
        f"- {reason}: {', '.join(f'`{key}`' for key in found)}" for reason, found in keys.items()
    ]


def _table(rows: dict[str, object]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in rows.items())
