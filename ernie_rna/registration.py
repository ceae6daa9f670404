"""Registration of ERNIE-RNA with transformers' Auto classes, without importing transformers.

transformers and torch take seconds to import, and much of this package (`--help`, the checks of an
input) needs neither. So each registration with a module of transformers happens when that module is
imported, or at once if it has been imported already.
"""

import importlib
import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def register_with_transformers() -> None:
    """Register configuration, tokenizer, models and pipeline. To be called once."""
    for name, register in _REGISTRATIONS.items():
        if name in sys.modules:
            register(sys.modules[name])
    sys.meta_path.insert(0, _AfterImport())


def _register_config(auto: Any) -> None:
    config = _module("configuration").ErnieRnaConfig
    auto.AutoConfig.register(config.model_type, config, exist_ok=True)


def _register_tokenizer(auto: Any) -> None:
    config = _module("configuration").ErnieRnaConfig
    tokenizer = _module("tokenization").ErnieRnaTokenizer
    auto.AutoTokenizer.register(config, fast_tokenizer_class=tokenizer, exist_ok=True)


def _register_models(_: Any) -> None:
    auto = sys.modules.get("transformers.models.auto.modeling_auto")
    configuration, modeling = _module("configuration"), _module("modeling")
    if auto is None or not hasattr(modeling, "ErnieRnaForPreTraining"):
        return  # transformers 4.x imports `auto` for `modeling`, whose own import runs this again.
    for auto_class, reference in configuration.AUTO_MAP.items():
        module, _, name = reference.partition(".")
        if module == "modeling_ernie_rna":
            names = [name, *(configuration.HEAD_MODELS if auto_class == "AutoModel" else ())]
            # From several models transformers chooses the one that `architectures` in config.json
            # names, else the first.
            models = tuple(getattr(modeling, name) for name in names)
            model = models if len(models) > 1 else models[0]
            config = configuration.ErnieRnaConfig
            getattr(auto, auto_class).register(config, model, exist_ok=True)


def _register_pipeline(pipelines: Any) -> None:
    task, reference = _module("configuration").PIPELINE
    module, _, name = reference.partition(".")
    pipeline = getattr(_module(module.removesuffix("_ernie_rna")), name)
    # Not an Auto class, which could load another head of a model with several heads.
    head = _module("modeling").ErnieRnaForSecondaryStructure
    pipelines.PIPELINE_REGISTRY.register_pipeline(task, pipeline, pt_model=head, type="text")


def _module(name: str) -> Any:
    return importlib.import_module(f"ernie_rna.model.{name}_ernie_rna")


# Module -> what to register after it has been imported.
_REGISTRATIONS: dict[str, Callable[[ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.tokenization_auto": _register_tokenizer,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.pipelines": _register_pipeline,
    "ernie_rna.model.modeling_ernie_rna": _register_models,
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds the modules of `_REGISTRATIONS` and runs their registrations after they are loaded."""

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
