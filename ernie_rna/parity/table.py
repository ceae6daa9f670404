"""Prints what `differences` and `published` measured.

A row for each output, a column for each comparison; in each cell the largest absolute difference
over all sequences, with `!` where it misses its bar.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ernie_rna.parity.differences import BARS, Difference
from ernie_rna.parity.heads import BAR, CONTACT_BAR
from ernie_rna.parity.published import PUBLISHED_BAR

# Columns by their common title: the case of each, and its own title.
_Columns = Mapping[str, Mapping[str, str]]
_AUTHORS: _Columns = {
    "eager": {"eager alone": "alone", "eager padded right": "right", "eager padded left": "left"},
    "sdpa": {"sdpa alone": "alone", "sdpa padded right": "right", "sdpa padded left": "left"},
}
_ROUNDING: _Columns = {
    "sdpa from": {"sdpa from eager": "eager"},
    "from float64": {
        "authors from float64": "authors",
        "eager from float64": "eager",
        "sdpa from float64": "sdpa",
    },
    "batch from alone": {
        "float32 batch from alone": "float32",
        "float64 batch from alone": "float64",
    },
}
_PUBLISHED: _Columns = {"": {"eager": "eager", "sdpa": "sdpa", "float64": "float64"}}

_PLACES = ("hidden state", "bias", "layer", "logits", "pooler output")
_WIDTH = 9
_GAP = "    "


def format_parity(differences: Sequence[Difference]) -> str:
    """Both tables of `compare_with_golden`, their legends, and a line for each missed bar."""
    parts = [
        "Largest absolute difference from the authors' values: each sequence alone, and their",
        "batch, padded right and left (real tokens).",
        "",
        _table(_AUTHORS, differences),
        "",
        f"Bars: {', '.join(f'{kind} {bar:.1e}' for kind, bar in BARS.items())}.",
        "",
        "What rounding alone does: sdpa from eager; values in float32 from the same weights",
        "in float64; a sequence in a batch from the same sequence alone.",
        "",
        _table(_ROUNDING, differences),
        *_missed(differences),
    ]
    return "\n".join(parts)


def format_summary(differences: Sequence[Difference]) -> str:
    """A row for each kind of output: its largest difference over layers, sequences and padding."""
    kinds = ("hidden state", "bias", "logits", "pooler output")
    lines = [f"{'':<16}{'eager':>{_WIDTH}}{'sdpa':>{_WIDTH}}"]
    for kind in kinds:
        cells = []
        for cases in _AUTHORS.values():
            of_kind = [d for d in differences if d.place.startswith(kind) and d.case in cases]
            cells.append(_cell(max(of_kind, key=lambda d: d.value, default=None)))
        lines.append(f"{kind:<16}" + _row(cells))
    return "\n".join([*lines, *_missed(differences)])


def format_heads(differences: Sequence[Difference]) -> str:
    """The table of `heads.compare_head`, its legend, and a line for each missed bar."""
    parts = [
        "Largest absolute difference from the authors' values: each sequence alone, and in one",
        "batch, padded right and left.",
        "",
        _table(_AUTHORS, differences),
        "",
        f"Bar: {BAR:.0e}, contacts {CONTACT_BAR:.1e}, .ct text equal to the byte.",
        *_missed(differences),
    ]
    return "\n".join(parts)


def format_published(differences: Sequence[Difference]) -> str:
    """The table of `compare_with_published`, its legend, and a line for each missed bar."""
    parts = [
        "Largest absolute difference of the <cls> embedding from the authors' published one, for",
        "their two test sequences; float64: of the same weights in float64.",
        "",
        _table(_PUBLISHED, differences),
        "",
        f"Bar: {PUBLISHED_BAR:.0e}.",
        *_missed(differences),
    ]
    return "\n".join(parts)


def _missed(differences: Sequence[Difference]) -> list[str]:
    """A line for each missed bar, the worst first; empty if there is none."""
    missed = sorted((d for d in differences if d.missed), key=lambda d: -d.value)
    if not missed:
        return []
    return [
        "",
        *(
            f"missed: {d.case}, {d.place} of {d.sample}: {d.value:.1e} > {d.bar:.1e}"
            for d in missed
        ),
    ]


def _table(columns: _Columns, differences: Sequence[Difference]) -> str:
    cells = _worst(differences)
    known = {case for _, case in cells}
    columns = {
        title: {case: name for case, name in cases.items() if case in known}
        for title, cases in columns.items()
    }
    columns = {title: cases for title, cases in columns.items() if cases}
    shown = {case for cases in columns.values() for case in cases}
    places = sorted({place for place, case in cells if case in shown}, key=_order)
    stub = max(map(len, places), default=0)
    titles = [_title(title, _WIDTH * len(cases)) for title, cases in columns.items()]
    lines = [" " * stub + _GAP.join(["", *titles])] if any(columns) else []
    names = (_row(cases.values()) for cases in columns.values())
    lines.append(" " * stub + _GAP.join(["", *names]))
    for place in places:
        rows = (_row(_cell(cells.get((place, c))) for c in cases) for cases in columns.values())
        lines.append(f"{place:<{stub}}" + _GAP.join(["", *rows]))
    return "\n".join(line.rstrip() for line in lines)


def _worst(differences: Sequence[Difference]) -> dict[tuple[str, str], Difference]:
    """The largest difference of each place and case; NaN is larger than any."""
    worst: dict[tuple[str, str], Difference] = {}
    for difference in differences:
        key = difference.place, difference.case
        if key not in worst or not difference.value <= worst[key].value:
            worst[key] = difference
    return worst


def _title(title: str, width: int) -> str:
    """A title with a line over its columns."""
    return f"{f' {title} ':-^{width - 2}}".rjust(width)


def _row(cells: Iterable[str]) -> str:
    return "".join(f"{cell:>{_WIDTH}}" for cell in cells)


def _cell(difference: Difference | None) -> str:
    if difference is None:
        return "·"
    value = "0" if difference.value == 0 else f"{difference.value:.1e}"
    return value + ("!" if difference.missed else "")


def _order(place: str) -> tuple[int, int, str]:
    """Hidden states by number, then biases, logits and the rest."""
    kind = next((i for i, start in enumerate(_PLACES) if place.startswith(start)), len(_PLACES))
    number = place.rpartition(" ")[2]
    return kind, int(number) if number.isdigit() else 0, place
