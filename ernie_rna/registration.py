"""Makes transformers' Auto classes know ERNIE-RNA, without waiting for transformers.

transformers and torch take seconds to import, and much of this package (`--help`, the checks of
an input) needs neither. So what is registered with a module of transformers is registered when
somebody imports that module, or at once if it is imported already.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def register_with_transformers() -> None:
    """Register configuration, tokenizer, models and pipeline; once."""
    for name, register in _REGISTRATIONS.items():
        if name in sys.modules:
            register(sys.modules[name])
    sys.meta_path.insert(0, _AfterImport())


def _register_config(auto: Any) -> None:
    config = _config_class()
    auto.AutoConfig.register(config.model_type, config, exist_ok=True)


def _register_tokenizer(auto: Any) -> None:
    tokenizer = _module("tokenization_ernie_rna").ErnieRnaTokenizer
    auto.AutoTokenizer.register(_config_class(), fast_tokenizer_class=tokenizer, exist_ok=True)


def _register_models(auto: Any) -> None:
    config, modeling = _config_class(), _module("modeling_ernie_rna")
    configuration = _module("configuration_ernie_rna")
    for auto_class, place in configuration.AUTO_MAP.items():
        module, _, name = place.partition(".")
        if module == "modeling_ernie_rna":
            names = (name, *(configuration.HEAD_MODELS if auto_class == "AutoModel" else ()))
            # Of several, transformers takes the one that a folder's `architectures` names, else
            # the first.
            models = tuple(getattr(modeling, name) for name in names)
            model = models if len(models) > 1 else models[0]
            getattr(auto, auto_class).register(config, model, exist_ok=True)


def _register_pipeline(pipelines: Any) -> None:
    task, place = _module("configuration_ernie_rna").PIPELINE
    module, _, name = place.partition(".")
    # Not by an Auto class: of a model with several heads it would load another one.
    head = _module("modeling_ernie_rna").ErnieRnaForSecondaryStructure
    pipelines.PIPELINE_REGISTRY.register_pipeline(
        task, getattr(_module(module), name), pt_model=head, type="text"
    )


def _config_class() -> Any:
    return _module("configuration_ernie_rna").ErnieRnaConfig


def _module(name: str) -> Any:
    return importlib.import_module(f"ernie_rna.model.{name}")


# Module of transformers -> what to do once it is there.
_REGISTRATIONS: dict[str, Callable[[ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.tokenization_auto": _register_tokenizer,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.pipelines": _register_pipeline,
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Has the modules of `_REGISTRATIONS` found as ever, and loaded by `_Loader`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _REGISTRATIONS:
            return None
        # The finders behind this one; it must not find itself again.
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Loads a module by another loader, then registers the model with it."""

    def __init__(self, loader: Any):
        self._loader = loader

    def __getattr__(self, name: str) -> Any:  # such as get_source, for tracebacks
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _REGISTRATIONS[module.__name__](module)
