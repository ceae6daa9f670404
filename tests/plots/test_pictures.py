"""Errors of the function `plot`; tests/cli/test_computing.py has the command."""

import pytest

from ernie_rna.options import DRAWN_BESIDE, PLOTS, OptionError
from ernie_rna.plots.pictures import plot


@pytest.mark.parametrize("what", [kind for kind in PLOTS if kind not in DRAWN_BESIDE])
def test_known_pairs_are_refused_except_for_maps_and_arcs(tmp_path, what):
    with pytest.raises(OptionError, match=f"known pairs apply to map, arcs, not to {what}"):
        plot({"one": "GAAAC"}, "mini", tmp_path / "out.svg", known=[(0, 4)], what=what)
