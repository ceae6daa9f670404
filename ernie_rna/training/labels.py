"""Labels: the names of classes, and what the cells of a table say. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Sized

from ernie_rna.sequences.fasta import InputError
from ernie_rna.sequences.tables import parse_decimal
from ernie_rna.training.rows import Rows, some

# Of tokens that have no label: what torch and transformers leave out of a loss.
NO_LABEL = -100

_MISSING = frozenset(("na", "nan", "n/a", "none", "null", "#n/a", "?", "-"))
_SEPARATORS = ",;|/+ "
_LARGEST = 1e18  # its square is still a number of float32


def class_names(cells: Sequence[str]) -> list[str]:
    """The different labels, in order: numbers by value, other names by letters."""
    names = sorted({cell for cell in cells if cell})
    try:
        values = {name: float(name) for name in names}
    except ValueError:
        return names
    # nan has no place among numbers.
    return (
        sorted(names, key=values.__getitem__) if all(map(math.isfinite, values.values())) else names
    )


def parse_class(names: Sequence[str]) -> Callable[[str], int]:
    """Parser of one label: its place among the names."""
    ids = {name: index for index, name in enumerate(names)}

    def parse(cell: str) -> int:
        if cell not in ids:
            raise ValueError(f"{_label(cell)} is none of the labels of training: {some(names)}")
        return ids[cell]

    return parse


def split_labels(cell: str, separator: str) -> list[str]:
    """The labels of a cell that may hold several, or none."""
    return [label.strip() for label in cell.split(separator) if label.strip()]


def parse_classes(names: Sequence[str], separator: str) -> Callable[[str], list[float]]:
    """Parser of several labels: 1 for each of the names that is there, else 0."""
    parse_one = parse_class(names)

    def parse(cell: str) -> list[float]:
        held = {parse_one(label) for label in split_labels(cell, separator)}
        return [float(index in held) for index in range(len(names))]

    return parse


def parse_flag(cell: str) -> float:
    """Parser of 0 and 1."""
    if cell not in ("0", "1"):
        raise ValueError(f"{_label(cell)} is neither 0 nor 1")
    return float(cell)


def parse_target(decimal_comma: bool) -> Callable[[str], float]:
    """Parser of a number that a model can be trained to give."""

    def parse(cell: str) -> float:
        if not cell:
            raise ValueError("an empty cell is no number")
        value = parse_decimal(cell, decimal_comma)
        if not math.isfinite(value):
            raise ValueError(f"{cell!r} is not finite")
        if abs(value) > _LARGEST:
            raise ValueError(
                f"{cell!r} is too large: beyond {_LARGEST:g} its square is no number of float32; "
                "choose another unit"
            )
        return value

    return parse


def split_bases(cell: str) -> list[str]:
    """The labels of the bases: words divided by blanks or commas, else a letter each."""
    words = cell.replace(",", " ").split()
    return words if len(words) > 1 else list(cell)


def base_names(cells: Sequence[str], ignored: str | None) -> list[str]:
    """As `class_names`, of the labels of all bases but the ignored one."""
    labels = {label for cell in cells for label in split_bases(cell)}
    return class_names(sorted(labels - {ignored}))


def parse_bases(names: Sequence[str], ignored: str | None) -> Callable[[str], list[int]]:
    """Parser of a label for each base; `ignored` gives `NO_LABEL`."""
    parse_one = parse_class(names)

    def parse(cell: str) -> list[int]:
        labels = split_bases(cell)
        return [NO_LABEL if label == ignored else parse_one(label) for label in labels]

    return parse


def check_bases(rows: Rows, sequences: Sequence[str], labels: Sequence[Sized]) -> None:
    """Raise InputError unless every base has a label."""
    for line, sequence, own in zip(rows.lines, sequences, labels, strict=True):
        if len(sequence) != len(own):
            raise InputError(
                f"{rows.name}: line {line}: {len(own)} labels for {len(sequence)} bases"
            )


def check_lengths(rows: Rows, sequences: Sequence[str], longest: int) -> None:
    """Raise InputError if a sequence has more than `longest` nucleotides, saying how many do."""
    lengths = [len(sequence) for sequence in sequences]
    long = sum(length > longest for length in lengths)
    if long:
        worst = max(range(len(lengths)), key=lengths.__getitem__)
        raise InputError(
            f"{rows.name}: {long} of {len(lengths)} sequences are longer than {longest} "
            f"nucleotides, the longest has {lengths[worst]} (line {rows.lines[worst]}); "
            "--truncate cuts them, --max-length moves the limit"
        )


def odd_classes(labels: Sequence[str]) -> Iterator[str]:
    """What looks wrong with the classes of the training rows, a sentence each."""
    counts = Counter(labels)
    missing = sorted(name for name in counts if name.lower() in _MISSING)
    if missing:
        rows = sum(counts[name] for name in missing)
        yield (
            f"{', '.join(missing)} ({rows} rows) is taken for a class of its own: if it stands for "
            "a missing label, leave these rows out"
        )
    single = class_names([name for name, count in counts.items() if count == 1])
    if single:
        yield f"one training row alone has the class {some(single)}"


def other_separator(cells: Sequence[str], separator: str) -> Iterator[str]:
    """A sentence on cells that seem to hold several labels by another separator."""
    if any(separator in cell for cell in cells):
        return
    for other in _SEPARATORS:
        count = sum(other in cell for cell in cells)
        if count:
            yield (
                f"no cell has the separator {separator!r}, but {count} have {other!r}: if that "
                f"separates labels, give --label-separator {other!r}"
            )
            return


def _label(cell: str) -> str:
    return repr(cell) if cell else "an empty cell"
