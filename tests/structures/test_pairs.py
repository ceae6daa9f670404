"""Base pairs from contacts, against a plain loop."""

import pytest
import torch

from ernie_rna.structures.contacts import symmetrize
from ernie_rna.structures.pairs import predict_pairs


def plain_greedy(contacts, threshold=0.5):
    found = [
        (contacts[i, j], i, j)
        for i in range(len(contacts))
        for j in range(i + 1, len(contacts))
        if contacts[i, j] > threshold
    ]
    partner = {}
    for _, i, j in sorted(found, reverse=True):
        if i not in partner and j not in partner:
            partner[i] = j
            partner[j] = i
    return sorted((i, j) for i, j in partner.items() if i < j)


@pytest.mark.parametrize("levels", [4, 1000])
def test_greedy_matching_with_ties_and_without(levels):
    generator = torch.Generator().manual_seed(8)
    contacts = symmetrize(torch.randint(0, levels, (5, 30, 30), generator=generator) / levels)
    expected = [plain_greedy(one.numpy()) for one in contacts]
    assert predict_pairs(contacts) == expected
    assert any(expected)


def test_a_contact_at_the_threshold_is_no_pair():
    contacts = torch.zeros(1, 4, 4)
    contacts[0, 0, 3] = contacts[0, 3, 0] = 0.5
    assert predict_pairs(contacts) == [[]]
    assert predict_pairs(contacts, threshold=0.4) == [[(0, 3)]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_lengths_keep_padding_out(dtype):
    contacts = torch.ones(3, 6, 6, dtype=dtype)
    assert [len(pairs) for pairs in predict_pairs(contacts, [6, 4, 1])] == [3, 2, 0]


def test_no_candidates_and_an_empty_batch():
    assert predict_pairs(torch.zeros(2, 5, 5)) == [[], []]
    assert predict_pairs(torch.zeros(0, 5, 5)) == []


def test_short_stems_are_left_out():
    contacts = torch.zeros(1, 14, 14)
    stem, pair_over_a_bulge, alone = [(0, 12), (1, 11), (2, 10)], (4, 9), (5, 13)
    for i, j in [*stem, pair_over_a_bulge, alone]:
        contacts[0, i, j] = 1.0
    assert predict_pairs(contacts) == [[*stem, pair_over_a_bulge, alone]]
    assert predict_pairs(contacts, min_stem=2) == predict_pairs(contacts, min_stem=3) == [stem]
    assert predict_pairs(contacts, min_stem=4) == [[]]
