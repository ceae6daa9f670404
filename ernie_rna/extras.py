"""Optional packages: imported where they are used, named with their extra where missing."""

import importlib
from types import ModuleType

# Packages whose modules have another name.
_PACKAGES = {"RNA": "ViennaRNA", "sklearn": "scikit-learn"}


def import_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a module that an extra of this package brings.

    Args:
        module: its dotted name.
        extra: the extra, as in `pip install "ernie-rna[extra]"`.
        purpose: what it is needed for, the beginning of the message.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # The package is there and lacks something itself.
        name = _PACKAGES.get(package, package)
        raise ImportError(
            f'{purpose} needs {name}, which is not installed: pip install "ernie-rna[{extra}]"'
        ) from error
