"""What the cells of a table say of labels, and what looks wrong with them. No torch."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from ernie_rna.sequences.tables import parse_decimal

# Of tokens that have no label: what torch and transformers leave out of a loss.
NO_LABEL = -100

_MISSING = frozenset(("na", "nan", "n/a", "none", "null", "#n/a", "?", "-"))
_SEPARATORS = ",;|/+ "
_LARGEST = 1e18  # its square is still a number of float32
_SHOWN = 8  # names in a message
_MANY_CLASSES = 10  # fewer are taken for classes, whatever their names


def class_names(cells: Iterable[str]) -> list[str]:
    """The different labels, in order: numbers by value, other names by letters."""
    names = sorted({cell for cell in cells if cell})
    try:
        values = {name: float(name) for name in names}
    except ValueError:
        return names
    # nan has no place among numbers.
    finite = all(map(math.isfinite, values.values()))
    return sorted(names, key=values.__getitem__) if finite else names


def are_measured(names: Sequence[str], rows: int) -> bool:
    """Whether names of classes are measured values: decimals, about one for each row."""
    marks = [name for name in names if re.fullmatch(r"-?[0-9]+[.,][0-9]+", name)]
    return len(names) >= _MANY_CLASSES and 2 * len(names) > rows and 2 * len(marks) > len(names)


def split_labels(cell: str, separator: str) -> list[str]:
    """The labels of a cell that may hold several, or none."""
    return [label.strip() for label in cell.split(separator) if label.strip()]


def split_bases(cell: str) -> list[str]:
    """The labels of the bases: words divided by blanks or commas, else a letter each."""
    words = cell.replace(",", " ").split()
    return words if len(words) > 1 else list(cell)


def parse_flag(cell: str) -> float:
    """0 or 1."""
    if cell not in ("0", "1"):
        raise ValueError(f"{shown(cell)} is neither 0 nor 1")
    return float(cell)


def parse_target(cell: str, decimal_comma: bool) -> float:
    """A number that a model can be trained to give."""
    if not cell:
        raise ValueError("an empty cell is not a number: fill it in, or delete its row")
    value = parse_decimal(cell, decimal_comma)
    if not math.isfinite(value):
        raise ValueError(f"{cell!r} is not finite")
    if abs(value) > _LARGEST:
        raise ValueError(
            f"{cell!r} is too large: beyond {_LARGEST:g} its square overflows float32; "
            "choose another unit"
        )
    return value


def odd_classes(labels: Sequence[str]) -> Iterator[str]:
    """What looks wrong with the classes of the training rows, a sentence each."""
    counts = Counter(labels)
    missing = sorted(name for name in counts if name.lower() in _MISSING)
    if missing:
        yield (
            f"{', '.join(missing)} ({sum(counts[name] for name in missing)} rows) is taken for a "
            "class of its own: if it stands for a missing label, leave these rows out"
        )
    single = class_names(name for name, count in counts.items() if count == 1)
    if single:
        yield f"classes with a single row: {some(single)}"


def other_separator(cells: Sequence[str], separator: str) -> Iterator[str]:
    """A sentence on cells that seem to hold several labels by another separator."""
    counts = {other: sum(other in cell for cell in cells) for other in (separator, *_SEPARATORS)}
    other = next((other for other, count in counts.items() if count), separator)
    if other != separator:
        yield (
            f"no cell has the separator {separator!r}, but {counts[other]} have {other!r}: if that "
            f"separates labels, give --label-separator {other!r}"
        )


def shown(cell: str) -> str:
    return repr(cell) if cell else "an empty cell"


def some(names: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name or "''" for name in names[:_SHOWN]) + more
