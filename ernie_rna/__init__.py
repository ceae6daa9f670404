"""ERNIE-RNA for transformers: the model, and the library around it.

What is listed in `__all__` is loaded when it is first used, so that importing this package takes
no time. The import makes transformers' Auto classes know the model, see `registration`.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ernie_rna import registration

if TYPE_CHECKING:
    from ernie_rna.conversion.convert import convert
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
    from ernie_rna.plots.pictures import plot
    from ernie_rna.run.loading import load_masked_lm, load_model
    from ernie_rna.run.on_ray import on_ray
    from ernie_rna.scoring.mutate import mutate
    from ernie_rna.scoring.predict import predict
    from ernie_rna.structures.closeness import closeness
    from ernie_rna.structures.evaluation import evaluate
    from ernie_rna.structures.fold import fold
    from ernie_rna.training.collators import MaskingCollator, PairCollator
    from ernie_rna.training.finetune import finetune

__version__ = "0.1.0"

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
    "MaskingCollator",
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
    "on_ray",
    "plot",
    "predict",
    "read_embeddings",
]

# The module of each name that does not begin with ErnieRna.
_HOMES = {
    "MaskingCollator": "training.collators",
    "PairCollator": "training.collators",
    "closeness": "structures.closeness",
    "convert": "conversion.convert",
    "embed": "embeddings.embed",
    "evaluate": "structures.evaluation",
    "examples": "data",
    "finetune": "training.finetune",
    "fold": "structures.fold",
    "load_masked_lm": "run.loading",
    "load_model": "run.loading",
    "mini": "data",
    "mutate": "scoring.mutate",
    "on_ray": "run.on_ray",
    "plot": "plots.pictures",
    "predict": "scoring.predict",
    "read_embeddings": "embeddings.formats",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    kind = {"ErnieRnaConfig": "configuration", "ErnieRnaTokenizer": "tokenization"}
    home = _HOMES.get(name) or f"model.{kind.get(name, 'modeling')}_ernie_rna"
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _Package(ModuleType):
    """This package, of which the function mini keeps its name beside the folder mini."""

    def __setattr__(self, name: str, value: Any) -> None:
        # What Python does with ernie_rna.mini once it has imported the folder.
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
registration.register_with_transformers()
