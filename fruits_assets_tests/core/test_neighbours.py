"""Neighbours are exact, whatever the block, the ties and the number of rows."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from fruits_assets.core import neighbours
from fruits_assets.core.neighbours import nearest


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32) + 100


@pytest.mark.parametrize("block_bytes", [1, 50_000, 2**26])
def test_they_equal_scikit_learn(
    rows: np.ndarray, block_bytes: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", block_bytes)
    indices, distances = nearest(rows, 7)
    found = NearestNeighbors(n_neighbors=7).fit(rows.astype(np.float64)).kneighbors()
    np.testing.assert_array_equal(indices, found[1])
    np.testing.assert_allclose(distances, found[0], rtol=1e-12)


def test_neighbours_of_a_split_equal_scikit_learn(rows: np.ndarray):
    among = np.random.default_rng(1).random(300) < 0.4
    indices, distances = nearest(rows, 1, among=among)
    tree = NearestNeighbors(n_neighbors=2).fit(rows[among].astype(np.float64))
    away, found = tree.kneighbors(rows.astype(np.float64))
    own = among.astype(int)  # a row of the split finds itself first
    every = np.arange(300)
    np.testing.assert_array_equal(indices[:, 0], np.flatnonzero(among)[found[every, own]])
    np.testing.assert_allclose(distances[:, 0], away[every, own], rtol=1e-9)


def test_small_distances_are_more_than_rounding():
    rows = np.full((4, 3), 1000.0) + np.diag([0, 1e-6, 3e-6, 0])[:, :3]
    indices, distances = nearest(rows, 2)
    assert indices[0].tolist() == [3, 1]
    np.testing.assert_allclose(distances[0], [0, 1e-6], rtol=1e-6, atol=0)


def test_of_equally_distant_rows_the_first_comes_first():
    indices, distances = nearest(np.zeros((5, 2)), 4)
    assert indices.tolist() == [[j for j in range(5) if j != i] for i in range(5)]
    assert not distances.any()


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [-1, -1]), (2, [1, -1]), (3, [1, 2])])
def test_where_there_are_fewer_than_asked_for(count: int, expected: list[int]):
    indices, distances = nearest(np.arange(count, dtype=float)[:, np.newaxis], 2)
    assert indices.shape == (count, 2)
    assert indices[:1].ravel().tolist() == expected
    assert (np.isinf(distances) == (indices < 0)).all()


def test_nobody_to_be_compared_with(rows: np.ndarray):
    indices, distances = nearest(rows, 1, among=np.zeros(300, bool))
    assert (indices == -1).all()
    assert np.isinf(distances).all()
