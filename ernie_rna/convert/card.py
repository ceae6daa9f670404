"""The model card (README.md) of a converted folder: `card.md`, a template of huggingface_hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from ernie_rna.convert.conversion import RANDOM, Conversion

_TEMPLATE = Path(__file__).with_name("card.md")


def model_card(conversion: Conversion) -> str:
    """The text of the card."""
    random = conversion.config.weights_origin == RANDOM
    foreign = conversion.naming.name == "multimolecule"
    data = ModelCardData(
        license="apache-2.0" if random else "agpl-3.0" if foreign else "mit",
        library_name="transformers",
        pipeline_tag=None if conversion.kind else "fill-mask",
        mask_token=None if conversion.kind else "<mask>",
        tags=["rna", "biology", "ernie-rna"],
    )
    facts = {
        "conversion": conversion,
        "kind": conversion.kind,
        "config": conversion.config,
        "source": conversion.source,
        "random": random,
        "foreign": foreign,
        "parameters": sum(weight.numel() for weight in conversion.state_dict.values()),
        # Behind brackets stands a token: a row of a weight.
        "taken": len(conversion.state_dict) - sum("[" not in n for n in conversion.initialised),
        "dropped": sum("[" not in name for name in conversion.dropped),
    }
    return str(ModelCard.from_template(data, template_path=str(_TEMPLATE), **facts))
