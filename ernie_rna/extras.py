"""Optional packages: imported when needed; the error for a missing one names its extra."""

import importlib
from types import ModuleType

# Names of packages that differ from those of their modules.
_PACKAGES = {"RNA": "ViennaRNA", "sklearn": "scikit-learn"}


def import_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a module that an extra of this package installs.

    Args:
        module: its dotted name.
        extra: the extra, as in `pip install "ernie-rna[extra]"`.
        purpose: what needs the module; the message begins with it.

    Raises:
        ImportError: the module is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # The package is installed, but one of its own dependencies is missing.
        name = _PACKAGES.get(package, package)
        raise ImportError(
            f'{purpose} needs {name}, which is not installed: pip install "ernie-rna[{extra}]"'
        ) from error
