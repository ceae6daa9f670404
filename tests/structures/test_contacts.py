"""From a pairing map to base pairs, against the authors' values and a plain form of them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ernie_rna.structures.contacts import (
    allowed_pairs,
    extract_pairing_map,
    solve_contacts,
    symmetrize,
)
from ernie_rna.structures.formats.by_extension import format_ct
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.structures.pairs import predict_pairs
from tests.golden_folder import GOLDEN

SEQUENCES = json.loads((GOLDEN / "sequences.json").read_text())["sequences"]
# The largest difference measured is 3e-7, from another order of the float32 sums.
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def heads():
    return load_file(GOLDEN / "tiny_heads_expected.safetensors")


def random_rna(length, generator):
    return "".join("ACGU"[k] for k in torch.randint(0, 4, (length,), generator=generator).tolist())


def random_map(length, generator):
    """Noise below zero with some strong scores, so that contacts compete for bases."""
    scores = 3 * torch.randn(length, length, generator=generator) - 2
    strong = torch.rand(length, length, generator=generator) < 2 / length
    return symmetrize(torch.where(strong, 6 + 6 * torch.rand(1, generator=generator), scores))


def plain_contacts(scores, sequence, steps=100):
    """The optimisation of one sequence on whole matrices, step by step as the authors define it."""
    allowed = allowed_pairs([sequence])[0].to(scores.dtype)
    scores = torch.sigmoid(2 * (scores - 1.5)) * scores
    a = torch.sigmoid(scores) * torch.sigmoid(2 * (scores - 1.5))
    multipliers = ((a * a * allowed).sum(-1) - 1).relu()
    for step in range(steps):
        force = multipliers * torch.sigmoid(2 * ((a * a * allowed).sum(-1) - 1))
        a = a - 0.01 * 0.99**step * a * allowed * (force[:, None] + force - scores)
        a = (a.abs() - 1.6 * 0.01 * 0.99 ** (step + 1)).relu()
        multipliers = multipliers + 0.1 * 0.99**step * ((a * a * allowed).sum(-1) - 1).relu()
    return a * a * allowed


@pytest.mark.parametrize("name", ["trna_arg", "rrna_5s"])
@pytest.mark.parametrize(
    ("kind", "scores"),
    [
        ("zero_shot", "pairing_map"),
        ("zero_shot_zero_prior", "pairing_map"),
        ("secondary_structure", "logits"),
    ],
)
def test_golden_contacts_and_ct(heads, kind, scores, name):
    contacts = solve_contacts(heads[f"{kind}.{name}.{scores}"][None], [SEQUENCES[name]])
    torch.testing.assert_close(contacts[0], heads[f"{kind}.{name}.contact"], rtol=0, atol=TOLERANCE)
    pairs = predict_pairs(contacts)[0]
    expected = json.loads((GOLDEN / "tiny_structures.json").read_text())[f"{kind}.{name}"]
    assert format_ct(Structure(name, SEQUENCES[name], pairs)) == expected


def test_golden_maps_in_one_batch(heads):
    names = ["trna_arg", "rrna_5s"]
    batch = torch.full((2, 124, 124), float("nan"))
    for row, name in enumerate(names):
        one = heads[f"secondary_structure.{name}.logits"]
        batch[row, : len(one), : len(one)] = one
    contacts = solve_contacts(batch, [SEQUENCES[name] for name in names])
    for row, name in enumerate(names):
        expected = heads[f"secondary_structure.{name}.contact"]
        size = len(expected)
        torch.testing.assert_close(contacts[row, :size, :size], expected, rtol=0, atol=TOLERANCE)
    assert contacts[0, 75:].eq(0).all()
    assert contacts[0, :, 75:].eq(0).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("extra", [0, 3])
def test_a_batch_equals_each_sequence_alone(seed, extra):
    generator = torch.Generator().manual_seed(seed)
    lengths = [1, 17, 80, *torch.randint(2, 150, (4,), generator=generator).tolist()]
    sequences = [random_rna(length, generator) for length in lengths]
    maps = [random_map(length, generator) for length in lengths]
    batch = torch.full((len(maps), max(lengths) + extra, max(lengths) + extra), float("inf"))
    for row, one in enumerate(maps):
        batch[row, : len(one), : len(one)] = one
    together = solve_contacts(batch, sequences)
    pairs = predict_pairs(together)
    for row, (one, sequence) in enumerate(zip(maps, sequences, strict=True)):
        alone = solve_contacts(one[None], [sequence])
        size = len(sequence)
        torch.testing.assert_close(together[row, :size, :size], alone[0], rtol=0, atol=TOLERANCE)
        assert pairs[row] == predict_pairs(alone)[0]


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_the_plain_form_in_double_precision(seed):
    generator = torch.Generator().manual_seed(seed)
    sequence = random_rna(90, generator)
    scores = random_map(90, generator)
    oracle = plain_contacts(scores.double(), sequence)
    assert oracle.max() > 0.5, "the test needs some contacts"
    double = solve_contacts(scores.double()[None], [sequence])[0]
    torch.testing.assert_close(double, oracle, rtol=0, atol=1e-12)
    single = solve_contacts(scores[None], [sequence])[0]
    plain_error = (plain_contacts(scores, sequence).double() - oracle).abs().max()
    assert (single.double() - oracle).abs().max() <= 2 * plain_error + 1e-6


def test_contacts_are_symmetric_and_keep_the_autograd_graph_out():
    scores = random_map(40, torch.Generator().manual_seed(5)).requires_grad_()
    contacts = solve_contacts(scores[None], ["GCAU" * 10])
    assert torch.equal(contacts, contacts.transpose(1, 2))
    assert not contacts.requires_grad


def test_a_map_is_made_symmetric():
    scores = 4 * torch.randn(1, 30, 30, generator=torch.Generator().manual_seed(6))
    sequences = ["GGGCCCAAAUUUGCGCAUAUGGUUGGAACC"]
    assert torch.equal(
        solve_contacts(scores, sequences), solve_contacts(symmetrize(scores), sequences)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_maps_are_solved_in_float32(dtype):
    scores = random_map(50, torch.Generator().manual_seed(7)).to(dtype)[None]
    sequences = ["GGCAU" * 10]
    contacts = solve_contacts(scores, sequences)
    assert contacts.dtype == torch.float32
    assert torch.equal(contacts, solve_contacts(scores.float(), sequences))


def test_without_sparsity_every_allowed_pair_stays():
    contacts = solve_contacts(torch.ones(1, 4, 4), ["GAAC"], sparsity=0.0)
    assert contacts[0, 0, 3] > 0


@pytest.mark.parametrize("sequence", ["GGCAUTUNRYgcaun", ["G", "<mask>", "c", "T", "A"]])
def test_allowed_pairs(sequence):
    letters = [base.upper().replace("T", "U") for base in sequence]
    canonical = {"AU", "UA", "GC", "CG", "GU", "UG"}
    expected = [[a + b in canonical for b in letters] for a in letters]
    allowed = allowed_pairs([sequence, "A"])
    assert allowed[0].tolist() == expected
    assert not allowed[1].any()


def test_shortest_loop():
    near = allowed_pairs(["GGAAACC"], min_loop=3)[0].nonzero().tolist()
    assert sorted((i, j) for i, j in near if i < j) == [(0, 5), (0, 6), (1, 5), (1, 6)]
    strong = torch.full((1, 4, 4), 8.0)
    assert predict_pairs(solve_contacts(strong, ["GCAA"])) == [[(0, 1)]]
    assert predict_pairs(solve_contacts(strong, ["GCAA"], min_loop=3)) == [[]]


@pytest.mark.parametrize(
    ("shape", "sequences", "message"),
    [
        ((4, 4), ["ACGU"], r"must be \(batch, length, length\), got \(4, 4\)"),
        ((1, 4, 5), ["ACGU"], r"got \(1, 4, 5\)"),
        ((2, 4, 4), ["ACGU"], "2 maps for 1 sequences"),
        ((1, 4, 4), ["ACGUA"], "5 bases does not fit a map of 4"),
    ],
)
def test_shapes_that_disagree(shape, sequences, message):
    with pytest.raises(ValueError, match=message):
        solve_contacts(torch.zeros(shape), sequences)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_names_the_sequence(value):
    scores = torch.zeros(2, 4, 4)
    scores[1, 0, 3] = value
    with pytest.raises(ValueError, match="sequence 1: the map has a score that is not finite"):
        solve_contacts(scores, ["GAAC", "GAAC"])
    # Bases that may not pair are never looked at.
    assert solve_contacts(scores, ["GAAC", "AAAA"]).shape == (2, 4, 4)


def test_divergence_is_an_error():
    with pytest.raises(ValueError, match="sequence 0: the optimisation diverged"):
        solve_contacts(torch.full((1, 4, 4), 1000.0), ["GAAC"])


def padded_biases(side):
    """Three layers of two sequences with 5 and 3 bases, in 9 tokens, and their attention mask."""
    generator = torch.Generator().manual_seed(9)
    biases = torch.randn(3, 2, 6, 9, 9, generator=generator)
    first, last = (0, 6) if side == "right" else (2, 8)
    mask = torch.zeros(2, 9, dtype=torch.long)
    mask[0, first : last + 1] = 1
    mask[1, first + 2 * (side == "left") : last + 1 - 2 * (side == "right")] = 1
    return biases, mask, [first, first + 2 * (side == "left")]


@pytest.mark.parametrize("side", ["left", "right"])
def test_extracting_the_map_of_a_layer_and_head(side):
    biases, mask, starts = padded_biases(side)
    biases = biases.masked_fill(mask[None, :, None, None, :] == 0, -float("inf"))
    maps = extract_pairing_map(biases[1], mask, head=4)
    assert maps.shape == (2, 5, 5)
    for row, (start, length) in enumerate(zip(starts, [5, 3], strict=True)):
        inner = slice(start + 1, start + 1 + length)
        expected = symmetrize(biases[1, row, 4, inner, inner])
        assert torch.equal(maps[row, :length, :length], expected)
        assert maps[row, length:].eq(0).all()
        assert maps[row, :, length:].eq(0).all()


def test_extracting_takes_the_last_scores_of_head_5():
    expected = load_file(GOLDEN / "tiny_expected.safetensors")
    biases = expected["readme_1.attention_biases"][:, None]
    maps = extract_pairing_map(biases[-1], torch.ones(1, 14))
    assert torch.equal(maps[0], symmetrize(biases[-1, 0, 5, 1:-1, 1:-1]))


def test_extracting_from_a_sequence_without_bases():
    assert extract_pairing_map(torch.zeros(1, 6, 2, 2), torch.ones(1, 2)).shape == (1, 0, 0)


@pytest.mark.parametrize("row", [[1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]])
def test_masks_that_make_no_sense(row):
    mask = torch.tensor([[1, 1, 1, 1], row])
    with pytest.raises(ValueError, match="attention_mask of sequence 1"):
        extract_pairing_map(torch.zeros(2, 6, 4, 4), mask)


def test_symmetrize():
    scores = torch.arange(8.0).reshape(2, 2, 2)
    expected = np.array([[[0, 1.5], [1.5, 3]], [[4, 5.5], [5.5, 7]]])
    assert np.array_equal(symmetrize(scores).numpy(), expected)
