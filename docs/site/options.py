"""Has mkdocstrings show the options of functions, which their docstrings get when they are run."""

import inspect
from typing import Any

import griffe


class Options(griffe.Extension):
    """A function that `ernie_rna.options.takes` has decorated is shown with all its options."""

    def on_function(self, *, func: griffe.Function, **others: Any) -> None:
        if "options" not in func.parameters or func.docstring is None:
            return
        text = inspect.getdoc(griffe.dynamic_import(func.path)) or ""
        if "\nOptions:\n" in text:
            func.docstring.value = text.replace("\nOptions:\n", "\nOther Parameters:\n")
            func.parameters["options"].kind = griffe.ParameterKind.var_keyword
