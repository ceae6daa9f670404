"""Embeddings on two axes."""

import numpy as np
import pytest

from ernie_rna.plots.vectors import plot_components, principal_components

pytest.importorskip("matplotlib")


def test_components_are_those_of_the_covariance():
    vectors = np.random.default_rng(0).normal(size=(20, 5)) * [5, 1, 3, 0.5, 0.1]
    places, held = principal_components(vectors)
    variances = np.linalg.eigvalsh(np.cov(vectors.T))[::-1]
    np.testing.assert_allclose(places.var(axis=0, ddof=1), variances[:2])
    np.testing.assert_allclose(held, variances[:2] / variances.sum())
    # Two axes make no distance longer.
    flat = np.hypot(*(places[0] - places[1]))
    assert flat <= np.linalg.norm(vectors[0] - vectors[1])


def test_vectors_of_one_number():
    places, held = principal_components(np.array([[0.0], [2.0]]))
    np.testing.assert_allclose(np.abs(places), [[1, 0], [1, 0]])
    assert held.tolist() == [1, 0]


def test_groups_have_colours(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(9, 5))
    groups = [f"$g{number // 2}" for number in range(9)]
    figure = plot_components(vectors, list("abcdefghi"), groups=groups, path=tmp_path / "a.svg")
    (axes,) = figure.axes
    assert [len(line.get_xdata()) for line in axes.lines] == [2, 2, 2, 2, 1]
    assert len({line.get_color() for line in axes.lines}) == 5
    assert [text.get_text() for text in axes.texts] == list("abcdefghi")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == sorted(set(groups))
    assert not plot_components(vectors, list("abcdefghi")).legends


@pytest.mark.parametrize(
    ("vectors", "names", "message"),
    [
        (np.zeros((1, 3)), ["a"], "two vectors or more"),
        (np.ones((2, 3)), ["a", "b"], "all vectors are the same"),
        (np.eye(2), ["a"], "1 names for 2 vectors"),
    ],
)
def test_what_cannot_be_drawn(vectors, names, message):
    with pytest.raises(ValueError, match=message):
        plot_components(vectors, names)
