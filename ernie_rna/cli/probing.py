"""Options for reactivities of chemical probing, and what `evaluate` says of them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ernie_rna.structures.formats.structure import Structure
    from ernie_rna.structures.reactivities import Probing


def add_reactivity(parser: argparse.ArgumentParser, use: str, energies: bool = False) -> None:
    """`--reactivity` and `--probe`.

    Args:
        use: what the reactivities are for.
        energies: whether the constants of the pseudo-energy are asked for as well.
    """
    group = parser.add_argument_group("chemical probing")
    add = group.add_argument
    add(
        "--reactivity",
        metavar="FILE",
        help=f"{use}. A .tsv with the columns id, position and reactivity; ID.shape or ID.map with "
        "position and reactivity; ID.rdat; or a folder of such files. NaN and -999 are no data",
    )
    add(
        "--probe",
        choices=("shape", "dms"),
        default="shape",
        help="the reagent: shape (the default), or dms, of which A and C alone count",
    )
    if energies:
        for name, default in (("slope", 2.6), ("intercept", -0.8)):
            add(
                f"--reactivity-{name}",
                type=float,
                default=default,
                metavar="E",
                help=f"of the pseudo-energy, in kcal/mol ({default})",
            )


def read_probing(args: argparse.Namespace) -> Probing | None:
    """What the options say; None without `--reactivity`.

    Raises:
        ValueError: the file cannot be understood.
        OSError: there is no such file.
    """
    from ernie_rna.structures.reactivities import INTERCEPT, SLOPE, Probing, read_reactivities

    if args.reactivity is None:
        return None
    found = read_reactivities(args.reactivity)
    slope = getattr(args, "reactivity_slope", SLOPE)
    return Probing(found, args.probe, slope, getattr(args, "reactivity_intercept", INTERCEPT))


Fits = dict[str, list[float]]


def fits(probing: Probing, structures: Mapping[str, Sequence[Structure]]) -> Fits:
    """How well each structure fits the reactivities, see `reactivities.unpaired_auc`.

    Args:
        structures: by whose they are; of the same sequences in the same order.

    Raises:
        ValueError: a sequence has no reactivities, or not one a base.
    """
    from ernie_rna.structures.reactivities import unpaired_auc

    for group in structures.values():
        probing.check(group)
    return {
        name: [unpaired_auc(one, probing.of(one)) for one in group]
        for name, group in structures.items()
    }


def fit_columns(found: Fits) -> list[list[str]]:
    """A row of titles and one for each sequence."""
    rows = zip(*found.values(), strict=True)
    return [
        [f"{name}_reactivity_auc" for name in found],
        *([f"{value:.6f}" for value in row] for row in rows),
    ]


def fit_summary(found: Fits) -> str:
    """The means, in words."""
    parts = []
    for name, values in found.items():
        known = [value for value in values if value == value]  # NaN is not
        mean = f"{sum(known) / len(known):.4f}" if known else "none"
        parts.append(f"{name} {mean} ({len(known)} of {len(values)} sequences)")
    return f"mean AUC of reactivities, unpaired against paired bases: {', '.join(parts)}"
