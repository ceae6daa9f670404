"""The model card (README.md) of a converted folder, written from the facts of its conversion."""

from __future__ import annotations

from ernie_rna.convert.conversion import RANDOM, Conversion
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig

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


_LOAD = """```python
from transformers import {classes}, AutoTokenizer

folder = "path/to/this/folder"  # or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True)

batch = tokenizer(["GGGAAACCC", "AUGGCUACG"], padding=True, return_tensors="pt")
{line}
```
"""

_PRETRAINED = """
`AutoModelForMaskedLM` predicts masked nucleotides (write `<mask>` in the sequence);
`AutoModelForSequenceClassification` and `AutoModelForTokenClassification` are for fine-tuning.
T is read as U, in any case; `output_attention_biases=True` returns the scores of each layer."""

_STRUCTURE = """
| | |
|---|---|
| task | secondary structure: which bases pair |
| input | the sequence; pairing scores {pairing} |
| reads | the last attention scores of head {heads}, between bases |
| output | `logits`, one for every two bases, symmetric; more than 0 speaks for a pair |

Pairs are read off the logits by the authors' constrained optimisation, of which `ernie-rna fold` is
the whole: A-U, G-C and G-U only, one partner a base."""

_CLOSENESS = """
| | |
|---|---|
| task | closeness: which bases are near one another in space |
| input | the sequence; pairing scores {pairing} |
| reads | the last attention scores of all heads, between bases |
| output | `logits`, one for every two bases, symmetric; their sigmoid is a probability |

`ernie-rna closeness` writes the probabilities of many sequences."""

_LOADING = """
| | |
|---|---|
| task | mean ribosome loading of 5' untranslated regions |
| input | the sequence; pairing scores {pairing} |
| reads | the last hidden states of the bases |
| output | `logits`, standardised, and `predictions`, the mean number of ribosomes on a transcript |

A prediction is {mean} + {scale} * logit, by the authors' scaler. `ernie-rna ribosome-loading`
writes a table."""

_PAIRING = {
    "sequence": "read off it (A-U {au:g}, G-C {gc:g}, G-U {gu:g})",
    "zero": "of zero everywhere, as the authors' script for structures has them",
}
# What the authors' script does with a structure model that is converted to read them.
_SCRIPT = """

The authors' script for structures runs with pairing scores of zero everywhere; what its training
ran with is not published. `ernie-rna fold --pairing-scores zero`, or `pairing_scores="zero"` in
config.json, does as the script does."""


def model_card(conversion: Conversion) -> str:
    """The text of the card."""
    kind, via_multimolecule = conversion.kind, conversion.naming == "multimolecule"
    random = conversion.config.weights_origin == RANDOM
    trained_id = "agpl-3.0" if via_multimolecule else "mit"
    trained_licence = (_MULTIMOLECULE if via_multimolecule else "") + _MIT
    return _CARD.format(
        license_id="apache-2.0" if random else trained_id,
        warning=_RANDOM_WARNING if random else "",
        source=f"`{conversion.source.path.name}` ({conversion.source.kind})",
        pipeline_tag="" if kind else "pipeline_tag: fill-mask\nmask_token: <mask>\n",
        title=f"ERNIE-RNA for {kind.task}" if kind else "ERNIE-RNA",
        usage=_usage(conversion),
        sizes=_table(_sizes(conversion)),
        facts=_table(_facts(conversion)),
        left_out=_left_out(conversion),
        licence=_RANDOM if random else trained_licence,
    )


def _usage(conversion: Conversion) -> str:
    """How to load the model, what goes in and what comes out."""
    config, kind = conversion.config, conversion.kind
    if kind is None:
        line = "embedding = model(**batch).last_hidden_state  # (batch, <cls> sequence <eos>, "
        line += f"{config.hidden_size})"
        return _LOAD.format(classes="AutoModel, AutoModelForMaskedLM", line=line) + _PRETRAINED
    line, text = {
        "ErnieRnaForSecondaryStructure": (
            "logits = model(**batch).logits  # (batch, length, length), over bases",
            _STRUCTURE + (_SCRIPT if config.pairing_scores == "sequence" else ""),
        ),
        "ErnieRnaForCloseness": (
            "closeness = model(**batch).logits.sigmoid()  # (batch, length, length), over bases",
            _CLOSENESS,
        ),
        "ErnieRnaForRibosomeLoading": (
            "mrl = model(**batch).predictions  # (batch,)",
            _LOADING,
        ),
    }[kind.model_class]
    return _LOAD.format(classes="AutoModel", line=line) + text.format(
        pairing=_pairing(config),
        heads=", ".join(map(str, config.pair_heads or ())),
        mean=config.loading_mean,
        scale=config.loading_scale,
    )


def _pairing(config: ErnieRnaConfig) -> str:
    return _PAIRING[config.pairing_scores].format(
        au=config.au_pairing_score, gc=config.gc_pairing_score, gu=config.gu_pairing_score
    )


def _sizes(conversion: Conversion) -> dict[str, object]:
    config = conversion.config
    parameters = sum(weight.numel() for weight in conversion.state_dict.values())
    kind = conversion.kind
    parts = f"encoder and {kind.task} head" if kind else "encoder, pooler and LM head"
    return {
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "width": config.hidden_size,
        "feed-forward width": config.intermediate_size,
        "vocabulary": config.vocab_size,
        "tokens in pretraining, at most": config.max_position_embeddings,
        "parameters": f"{parameters:,} ({parts}; float32)",
        "LayerNorm": "behind each residual sum (post-LN)",
    }


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
