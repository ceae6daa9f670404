"""What a model card says of the task, the input and the output of each kind of model."""

from __future__ import annotations

from configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.checkpoints.conversion import Conversion

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


def pipeline_tag(conversion: Conversion) -> str:
    """The line of the card's header that says what kind of model it is; empty for a head."""
    return "" if conversion.kind else "pipeline_tag: fill-mask\nmask_token: <mask>\n"


def card_title(conversion: Conversion) -> str:
    return f"ERNIE-RNA for {conversion.kind.task}" if conversion.kind else "ERNIE-RNA"


def usage(conversion: Conversion) -> str:
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
