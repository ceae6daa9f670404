"""ERNIE-RNA for transformers: the model, and the library around it.

What is listed in `__all__` is loaded when it is first used, so that importing this package takes
no time. The import makes transformers' Auto classes know the model, see `registration`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ernie_rna import registration

if TYPE_CHECKING:
    from ernie_rna.convert.export import convert
    from ernie_rna.data import examples, mini
    from ernie_rna.embeddings.embed import embed
    from ernie_rna.embeddings.formats import read_embeddings
    from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
    from ernie_rna.model.modeling_ernie_rna import (
        ErnieRnaForCloseness,
        ErnieRnaForMaskedLM,
        ErnieRnaForPreTraining,
        ErnieRnaForRibosomeLoading,
        ErnieRnaForSecondaryStructure,
        ErnieRnaForSequenceClassification,
        ErnieRnaForTokenClassification,
        ErnieRnaModel,
    )
    from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
    from ernie_rna.run.loading import load_masked_lm, load_model
    from ernie_rna.scoring.mutate import mutate
    from ernie_rna.scoring.predict import predict
    from ernie_rna.structures.closeness import closeness
    from ernie_rna.structures.evaluation import evaluate
    from ernie_rna.structures.fold import fold
    from ernie_rna.training.finetune import finetune
    from ernie_rna.training.pairs import PairCollator

__version__ = "0.1.0"

# Each name of the API -> the module that defines it.
_HOMES = {
    "ErnieRnaConfig": "ernie_rna.model.configuration_ernie_rna",
    "ErnieRnaForCloseness": "ernie_rna.model.modeling_ernie_rna",
    "ErnieRnaForMaskedLM": "ernie_rna.model.modeling_ernie_rna",
    "ErnieRnaForPreTraining": "ernie_rna.model.modeling_ernie_rna",
    "ErnieRnaForRibosomeLoading": "ernie_rna.model.modeling_ernie_rna",
    "ErnieRnaForSecondaryStructure": "ernie_rna.model.modeling_ernie_rna",
    "ErnieRnaForSequenceClassification": "ernie_rna.model.modeling_ernie_rna",
    "ErnieRnaForTokenClassification": "ernie_rna.model.modeling_ernie_rna",
    "ErnieRnaModel": "ernie_rna.model.modeling_ernie_rna",
    "ErnieRnaTokenizer": "ernie_rna.model.tokenization_ernie_rna",
    "PairCollator": "ernie_rna.training.pairs",
    "closeness": "ernie_rna.structures.closeness",
    "convert": "ernie_rna.convert.export",
    "embed": "ernie_rna.embeddings.embed",
    "evaluate": "ernie_rna.structures.evaluation",
    "examples": "ernie_rna.data",
    "finetune": "ernie_rna.training.finetune",
    "fold": "ernie_rna.structures.fold",
    "load_masked_lm": "ernie_rna.run.loading",
    "load_model": "ernie_rna.run.loading",
    "mini": "ernie_rna.data",
    "mutate": "ernie_rna.scoring.mutate",
    "predict": "ernie_rna.scoring.predict",
    "read_embeddings": "ernie_rna.embeddings.formats",
}

__all__ = [
    "ErnieRnaConfig",
    "ErnieRnaForCloseness",
    "ErnieRnaForMaskedLM",
    "ErnieRnaForPreTraining",
    "ErnieRnaForRibosomeLoading",
    "ErnieRnaForSecondaryStructure",
    "ErnieRnaForSequenceClassification",
    "ErnieRnaForTokenClassification",
    "ErnieRnaModel",
    "ErnieRnaTokenizer",
    "PairCollator",
    "closeness",
    "convert",
    "embed",
    "evaluate",
    "examples",
    "finetune",
    "fold",
    "load_masked_lm",
    "load_model",
    "mini",
    "mutate",
    "predict",
    "read_embeddings",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


registration.register_with_transformers()
