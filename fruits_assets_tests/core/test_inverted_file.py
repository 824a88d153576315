"""The search by cells finds what the exact one finds, and looks at few rows for it."""

import numpy as np
import pytest

from fruits_assets.core import inverted_file
from fruits_assets.core.inverted_file import (
    InvertedFile,
    cells_for,
    fit_centroids,
    nearest_centroids,
    sampled,
)

ROWS, ASKED = 4000, 300


@pytest.fixture(scope="module")
def clustered() -> tuple[np.ndarray, np.ndarray]:
    """Rows of 40 classes with a spectrum that falls off, and new ones of the same classes."""
    rng = np.random.default_rng(0)
    spectrum = 1 / np.sqrt(np.arange(1, 31))
    means = 2 * rng.normal(size=(40, 30)) * spectrum
    drawn = means[rng.integers(40, size=ROWS + ASKED)]
    everything = (drawn + rng.normal(size=drawn.shape) * spectrum).astype(np.float32)
    return everything[:ROWS], everything[ROWS:]


def brute_force(rows: np.ndarray, row: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(np.linalg.norm(rows.astype(np.float64) - row, axis=1))[:count]


def in_cells(rows: np.ndarray) -> InvertedFile:
    centroids = fit_centroids(rows[:2000], cells_for(len(rows)))
    return InvertedFile.filled(nearest_centroids(rows, centroids), rows.shape[1], [rows])


def test_a_single_cell_is_exact(clustered: tuple[np.ndarray, np.ndarray]) -> None:
    rows, asked = clustered
    found = InvertedFile.filled(np.zeros(ROWS, int), 30, [rows[:1000], rows[1000:]])
    np.testing.assert_array_equal(found.rows, rows)
    for row in asked[:20]:
        positions, squares = found.nearest(row, 10)
        np.testing.assert_array_equal(positions, brute_force(rows, row, 10))
        distances = np.linalg.norm(rows[positions] - row, axis=1)
        np.testing.assert_allclose(np.sqrt(squares), distances, rtol=1e-5)
    assert len(found.nearest(asked[0], 10 * ROWS)[0]) == ROWS


def test_few_rows_are_looked_at_and_the_nearest_is_found(
    clustered: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inverted_file, "PROBED", 12)
    rows, asked = clustered
    found = in_cells(rows)
    looked_at: list[int] = []
    measure = inverted_file.squared_distances

    def counted(some: np.ndarray, row: np.ndarray) -> np.ndarray:
        looked_at.append(len(some))
        return measure(some, row)

    monkeypatch.setattr(inverted_file, "squared_distances", counted)
    first = [found.nearest(row, 1)[0][0] for row in asked]
    assert sum(looked_at) < 0.3 * ROWS * ASKED
    expected = [brute_force(rows, row, 1)[0] for row in asked]
    assert np.mean(np.equal(first, expected)) >= 0.99


def test_as_many_are_found_as_are_asked_for(
    clustered: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inverted_file, "PROBED", 1)
    rows, asked = clustered
    found = in_cells(rows)
    for count in (1000, ROWS, ROWS + 1):
        positions, squares = found.nearest(asked[0], count)
        assert len(positions) == len({*positions.tolist()}) == min(count, ROWS)
        assert np.all(np.diff(squares) >= 0)


def test_cells_without_rows_are_passed_over() -> None:
    rows = np.array([[0, 0], [5, 5], [1, 0]], np.float32)
    found = InvertedFile.filled(np.array([7, 2, 7]), 2, iter([rows]))
    positions, squares = found.nearest(np.array([1, 0], np.float32), 3)
    assert positions.tolist() == [2, 0, 1]
    assert squares.tolist() == [0, 1, 41]
    np.testing.assert_array_equal(found.rows[found.places()], rows)
    nothing = InvertedFile.filled(np.zeros(0, int), 2, [])
    assert len(nothing.nearest(rows[0], 1)[0]) == 0


def test_centroids_are_the_means_of_their_rows(
    clustered: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inverted_file, "ROUNDS", 200)  # so that they have come to rest
    rows, _ = clustered
    centroids = fit_centroids(rows, 5)
    cells = nearest_centroids(rows, centroids)
    means = np.stack([rows[cells == cell].mean(axis=0) for cell in range(5)])
    np.testing.assert_allclose(centroids, means, atol=1e-5)
    distances = np.linalg.norm(rows[:, np.newaxis] - centroids, axis=2)
    np.testing.assert_array_equal(cells, distances.argmin(axis=1))
    same = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(fit_centroids(same, 8), same, "fewer rows than cells, all alike")


def test_a_sample_is_drawn_by_content_whatever_else_there_is() -> None:
    digests = [f"{number:08x}" + 56 * "0" for number in range(0, 2**32, 2**22)]
    drawn = sampled(digests, 0.25)
    assert drawn.sum() == 256
    apart = [sampled(digests[start : start + 100], 0.25) for start in range(0, 1024, 100)]
    np.testing.assert_array_equal(np.concatenate(apart), drawn)
    assert sampled(digests, 1.0).all()
