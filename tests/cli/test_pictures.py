"""`ernie-rna plot` and `ernie-rna serve`, as they are typed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from ernie_rna.data import examples
from ernie_rna.structures.formats.by_extension import write_structures
from ernie_rna.structures.formats.structure import Structure

pytest.importorskip("matplotlib")
needs_vienna = pytest.mark.skipif(
    importlib.util.find_spec("RNA") is None, reason="needs ViennaRNA (extra vienna)"
)
RNA = "GGGGAAAACCCCA"


@pytest.fixture
def plot(here, run):
    """Runs `ernie-rna plot` on two RNAs in an empty folder; gives what it says."""
    Path("in.fasta").write_text(f">one fish\n{RNA}\n>two fish\nGGGAAACCCAGCN\n")

    return lambda arguments, code=0: run(f"plot in.fasta -m mini --threads 1 {arguments}", code).err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--id one --what map", "one: 4 base pairs are read off this map"),
        ("--id one --what map --layer 2 --head 1 --values v.npz", "are read off this map"),
        ("--id one --what heads --layer 2 --values v.npz", "6 heads; structures without"),
        ("--id two --what arcs", "two: "),
        pytest.param("--id one --what layout", "one: 4 base pairs", marks=needs_vienna),
        ("--id two --what substitutions --values v.npz", "two: pseudo-perplexity "),
        ("--what embeddings --values v.npz", "2 vectors of 192 numbers"),
    ],
)
def test_what_is_drawn(plot, arguments, said):
    assert plot(f"{arguments} -o out.svg").startswith("out.svg: ")
    assert "mini, " in Path("out.svg").read_text()
    if "--values" in arguments:
        shapes = {name: array.shape for name, array in np.load("v.npz").items()}
        assert shapes.get("one", shapes.get("effects", (13, 4)))[-1] in (13, 4, 192)
    assert "out.svg exists already; --force" in plot(f"{arguments} -o out.svg", code=1)


def test_the_known_structure_is_drawn_too(plot):
    write_structures(Path("known.dbn"), [Structure("one", RNA.replace("C", "c"), [(0, 11)])])
    plot("--id one --what arcs -o alone.svg")
    said = plot("--id one --what arcs -o both.svg --reference known.dbn")
    assert "its known structure is below the arcs" in said
    assert Path("alone.svg").read_text() != Path("both.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        ("-o out.gif", "the extension must be .png or .svg or .pdf", 1),
        ("-o out.png --values out.txt", "out.txt: the extension must be .npz", 1),
        ("-o out.png", "there are several sequences: choose one with --id, such as one", 1),
        ("-o out.png --id x", "no sequence has the id 'x', but one has '", 1),
        ("-o out.png --id one --layer 9", "layer 9", 1),
        ("-o out.png --id one --head 12", "head 12", 1),
        ("-o out.png --id one --what closeness", "has no closeness head", 1),
        ("-o out.png --id one --reference known.dbn", "one has 13 nt, 5 in known.dbn", 1),
        ("-o out.png --id two --reference known.dbn", "base at position 2 in known.dbn", 1),
        ("-o out.png --id one --reference rna.dbn", "no structure with the id 'one'", 1),
        ("-o out.png --what heads --reference known.dbn", "for map, arcs, not for heads", 2),
        ("-o out.png --what layout --confidence", "for map, arcs, not for layout", 2),
        ("-o out.png --what heads --long window", "window is for map, arcs, layout", 2),
        ("-o out.png --what heads --prior vienna", "vienna is for map, arcs, layout, not for h", 2),
        ("-o out.png --what embeddings --layer 2", "2 is for map, arcs, layout, heads, not for", 2),
        ("-o out.png --what substitutions --pairing-scores zero", "closeness, not for subst", 2),
        ("-o out.png --what map --unmasked", "False is for substitutions, not for map", 2),
        ("-o out.png --what embeddings --id one", "not for embeddings", 2),
    ],
)
def test_what_plot_refuses(plot, arguments, message, code):
    known = [Structure("one", "GAAAC", []), Structure("two", "GAGAAACCCAGCN", [])]
    write_structures(Path("known.dbn"), known)
    Path("rna.dbn").write_text((examples() / "rna.dbn").read_text())
    assert message in plot(arguments, code)
    assert not Path("out.png").exists()


def test_the_only_record_needs_no_name(plot):
    assert plot("--id one --quiet -o out.pdf") == ""
    Path("in.fasta").write_text(f">one\n{RNA}\n")
    assert "one: 4 base pairs" in plot("-o out.svg")


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        ("-m ./none", "there is no folder ./none", 1),
        ("--seconds 0", "--seconds: must be a number above 0", 2),
        ("--workers -1", "--workers: must be a whole number of at least 1", 2),
        ("--port 70000", "--port: must be a whole number from 1 to 65535", 2),
    ],
)
def test_what_serve_refuses(run, options, message, code):
    for module in ("pebble", "RNA"):
        pytest.importorskip(module)
    assert message in run(f"serve {options}", code).err
