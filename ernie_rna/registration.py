"""Makes transformers' Auto classes know ERNIE-RNA, without waiting for transformers.

transformers and torch take seconds to import, and much of this package (`--help`, the checks of
an input) needs neither. So what is registered with a module of transformers is registered when
somebody imports that module, or at once if it is imported already.
"""

import importlib
import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def register_with_transformers() -> None:
    """Register configuration, tokenizer, models and pipeline; once."""
    for name, register in _REGISTRATIONS.items():
        if name in sys.modules:
            register(sys.modules[name])
    sys.meta_path.insert(0, _AfterImport())


def _register_config(auto: Any) -> None:
    config = _module("configuration").ErnieRnaConfig
    auto.AutoConfig.register(config.model_type, config, exist_ok=True)


def _register_tokenizer(auto: Any) -> None:
    config, tokenizer = _module("configuration").ErnieRnaConfig, _module("tokenization")
    tokenizer = tokenizer.ErnieRnaTokenizer
    auto.AutoTokenizer.register(config, fast_tokenizer_class=tokenizer, exist_ok=True)


def _register_models(_: Any) -> None:
    auto = sys.modules.get("transformers.models.auto.modeling_auto")
    configuration, modeling = _module("configuration"), _module("modeling")
    if auto is None or not hasattr(modeling, "ErnieRnaForPreTraining"):
        return  # Its own import, which ends with this, has made transformers 4.x import `auto`.
    for auto_class, place in configuration.AUTO_MAP.items():
        module, _, name = place.partition(".")
        if module == "modeling_ernie_rna":
            names = (name, *(configuration.HEAD_MODELS if auto_class == "AutoModel" else ()))
            # Of several, transformers takes the one that a folder's `architectures` names, else
            # the first.
            models = tuple(getattr(modeling, name) for name in names)
            model = models if len(models) > 1 else models[0]
            config = configuration.ErnieRnaConfig
            getattr(auto, auto_class).register(config, model, exist_ok=True)


def _register_pipeline(pipelines: Any) -> None:
    task, place = _module("configuration").PIPELINE
    module, _, name = place.partition(".")
    pipeline = getattr(_module(module.removesuffix("_ernie_rna")), name)
    # Not by an Auto class: of a model with several heads it would load another one.
    head = _module("modeling").ErnieRnaForSecondaryStructure
    pipelines.PIPELINE_REGISTRY.register_pipeline(task, pipeline, pt_model=head, type="text")


def _module(name: str) -> Any:
    return importlib.import_module(f"ernie_rna.model.{name}_ernie_rna")


# Module -> what to do once it is there.
_REGISTRATIONS: dict[str, Callable[[ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.tokenization_auto": _register_tokenizer,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.pipelines": _register_pipeline,
    "ernie_rna.model.modeling_ernie_rna": _register_models,
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds the modules of `_REGISTRATIONS`, and has the model registered once they are loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _REGISTRATIONS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        loader: Any = spec and spec.loader
        if loader is not None:
            load = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                _REGISTRATIONS[fullname](module)

            loader.exec_module = exec_module
        return spec
