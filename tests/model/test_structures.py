"""From maps to contacts and base pairs, compared with the authors' values and worked examples."""

import json

import pytest
import torch
from safetensors.torch import load_file

from ernie_rna.model.structures_ernie_rna import (
    allowed_pairs,
    pair_probabilities,
    predict_pairs,
    solve_each,
)
from ernie_rna.structures.formats.by_extension import format_ct
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.structures.pairing_maps import symmetrize
from tests.conftest import GOLDEN

# The largest difference measured is 3e-7, from another order of the float32 sums.
TOLERANCE = 2e-6


def solve_contacts(maps, sequences, **options):
    """The contacts of sequences whose maps can all be solved, (batch, length, length)."""
    return torch.stack(solve_each(maps, sequences, **options))


def random_rna(length, generator):
    return "".join("ACGU"[i] for i in torch.randint(0, 4, (length,), generator=generator))


def random_map(length, generator):
    """Mostly negative noise with some strong scores, so that contacts compete for bases."""
    scores = 3 * torch.randn(length, length, generator=generator) - 2
    strong = torch.rand(length, length, generator=generator) < 2 / length
    return symmetrize(torch.where(strong, 6 + 6 * torch.rand(1, generator=generator), scores))


@pytest.mark.parametrize("name", ["trna_arg", "rrna_5s"])
@pytest.mark.parametrize("kind", ["zero_shot", "zero_shot_zero_prior", "secondary_structure"])
def test_golden_contacts_and_ct(sequences, kind, name):
    golden, sequence = load_file(GOLDEN / "tiny_heads_expected.safetensors"), sequences[name]
    scores = golden[f"{kind}.{name}.{'pairing_map' if 'zero' in kind else 'logits'}"]
    (contacts,) = solve_contacts(scores[None], [sequence])
    torch.testing.assert_close(contacts, golden[f"{kind}.{name}.contact"], rtol=0, atol=TOLERANCE)
    expected = json.loads((GOLDEN / "tiny_structures.json").read_text())[f"{kind}.{name}"]
    assert format_ct(Structure(name, sequence, predict_pairs(contacts))) == expected


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("extra", [0, 3])
def test_a_batch_equals_each_sequence_alone(seed, extra):
    generator = torch.Generator().manual_seed(seed)
    lengths = [1, 17, 80, *torch.randint(2, 150, (4,), generator=generator).tolist()]
    sequences = [random_rna(length, generator) for length in lengths]
    maps = [random_map(length, generator) for length in lengths]
    batch = torch.full((len(maps), max(lengths) + extra, max(lengths) + extra), float("inf"))
    for row, scores in zip(batch, maps, strict=True):
        row[: len(scores), : len(scores)] = scores
    together = solve_contacts(batch, sequences)
    for contacts, scores, sequence in zip(together, maps, sequences, strict=True):
        (alone,) = solve_contacts(scores[None], [sequence])
        real = contacts[: len(sequence), : len(sequence)]
        torch.testing.assert_close(real, alone, rtol=0, atol=TOLERANCE)
        assert contacts.count_nonzero() == real.count_nonzero()
        assert predict_pairs(contacts) == predict_pairs(alone)


def test_contacts_are_symmetric_and_have_no_autograd_graph():
    """A map that is not symmetric is made symmetric."""
    scores = 4 * torch.randn(1, 40, 40, generator=torch.Generator().manual_seed(6))
    contacts = solve_contacts(scores.requires_grad_(), ["GCAU" * 10])
    assert contacts.any()
    assert torch.equal(contacts, contacts.transpose(1, 2))
    assert torch.equal(contacts, solve_contacts(symmetrize(scores), ["GCAU" * 10]))
    assert not contacts.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_half_precision_is_solved_in_float32_and_float64_in_float64(dtype):
    scores = random_map(50, torch.Generator().manual_seed(7)).to(dtype)[None]
    contacts, single = (solve_contacts(each, ["GGCAU" * 10]) for each in (scores, scores.float()))
    is_double = dtype == torch.float64
    assert contacts.dtype == (torch.float64 if is_double else torch.float32)
    torch.testing.assert_close(contacts.float(), single, rtol=0, atol=TOLERANCE if is_double else 0)


@pytest.mark.parametrize("sequence", ["GGCAUTUNRYgcaun", ["G", "<mask>", "c", "T", "A"]])
def test_allowed_pairs(sequence):
    letters = [base.upper().replace("T", "U") for base in sequence]
    canonical = {"AU", "UA", "GC", "CG", "GU", "UG"}
    expected = [[a + b in canonical for b in letters] for a in letters]
    allowed = allowed_pairs([sequence, "A"])
    assert allowed[0].tolist() == expected
    assert not allowed[1].any()


def test_min_loop():
    pairs = allowed_pairs(["GGAAACC"], min_loop=3)[0].nonzero().tolist()
    assert sorted((i, j) for i, j in pairs if i < j) == [(0, 5), (0, 6), (1, 5), (1, 6)]
    strong = torch.full((1, 4, 4), 8.0)
    assert predict_pairs(solve_contacts(strong, ["GCAA"])[0]) == [(0, 1)]
    assert predict_pairs(solve_contacts(strong, ["GCAA"], min_loop=3)[0]) == []


@pytest.mark.parametrize(
    ("shape", "sequences", "message"),
    [
        ((4, 4), ["ACGU"], r"must be \(batch, length, length\), got \(4, 4\)"),
        ((1, 4, 5), ["ACGU"], r"got \(1, 4, 5\)"),
        ((2, 4, 4), ["ACGU"], "2 maps for 1 sequences"),
        ((1, 4, 4), ["ACGUA"], "5 bases, but the map only 4"),
    ],
)
def test_shapes_that_disagree_are_refused(shape, sequences, message):
    with pytest.raises(ValueError, match=message):
        solve_each(torch.zeros(shape), sequences)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1000.0])
def test_a_map_that_cannot_be_solved_is_reported_for_its_sequence_alone(value):
    scores, diverges = torch.zeros(2, 4, 4), value == 1000
    scores[1, 0, 3] = value
    if diverges:
        scores[1] = value
    contacts, error = solve_each(scores, ["GAAC", "GAAC"])
    expected = "the optimisation diverged" if diverges else "the map has a score that is not finite"
    assert error.startswith(expected)
    assert torch.equal(contacts, solve_each(scores[:1], ["GAAC"])[0])
    # Scores of bases that cannot pair are ignored.
    assert solve_contacts(scores, ["GAAC", "AAAA"]).shape == (2, 4, 4)


def test_only_allowed_pairs_have_probabilities():
    logits = torch.zeros(2, 5, 5)
    logits[0, 0, 4] = logits[0, 4, 0] = 2.0
    probabilities = pair_probabilities(logits, ["GAAAC", "GU"], min_loop=3)
    assert probabilities[0, 0, 4] == pytest.approx(torch.tensor(2.0).sigmoid())
    assert probabilities.sum() == probabilities[0, 0, 4] + probabilities[0, 4, 0]
    assert pair_probabilities(logits, ["GAAAC", "GU"])[1, 0, 1] == 0.5
    assert pair_probabilities(logits, ["GAAAC", "GU"], calibration=[0.5, -1.0])[0, 0, 4] == 0.5


STEM, BULGED, SINGLE = [(0, 12), (1, 11), (2, 10)], [(4, 9)], [(5, 13)]
LONGER, CROSSING = [(0, 9), (1, 8), (2, 7)], [(5, 13), (6, 12)]


@pytest.mark.parametrize(
    ("contacts", "options", "pairs"),
    [
        # A base pairs by its strongest contact; among equal ones, by the last.
        ({(0, 5): 1, (1, 5): 1, (2, 7): 1, (2, 8): 1}, {}, [(1, 5), (2, 8)]),
        ({(0, 5): 1.5, (1, 5): 1, (2, 7): 1.5, (2, 8): 1}, {}, [(0, 5), (2, 7)]),
        # A contact at the threshold is not a pair.
        ({(0, 3): 0.5}, {}, []),
        ({(0, 3): 0.5}, {"threshold": 0.4}, [(0, 3)]),
        # Short stems are removed.
        ([*STEM, *BULGED, *SINGLE], {}, [*STEM, *BULGED, *SINGLE]),
        ([*STEM, *BULGED, *SINGLE], {"min_stem": 2}, STEM),
        ([*STEM, *BULGED, *SINGLE], {"min_stem": 3}, STEM),
        ([*STEM, *BULGED, *SINGLE], {"min_stem": 4}, []),
        # Without pseudoknots only the largest set of pairs that do not cross is kept.
        ([*LONGER, *CROSSING], {}, [*LONGER, *CROSSING]),
        ([*LONGER, *CROSSING], {"pseudoknots": False}, LONGER),
        ([LONGER[2], *CROSSING], {"pseudoknots": False, "min_stem": 2}, CROSSING),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_pairs_of_contacts(contacts, options, pairs, dtype):
    matrix = torch.zeros(14, 14, dtype=dtype)
    for pair in contacts:
        matrix[pair] = contacts[pair] if isinstance(contacts, dict) else 1.0
    assert predict_pairs(matrix, **options) == pairs
